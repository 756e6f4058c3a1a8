"""The words of a run's page that a newcomer meets there for the first time."""

from __future__ import annotations

import html
import re

from kogpt2_gluon.runs.report_parts import safe, section

# A word is explained on pages that have it; the pattern is looked for in the page's text, in small letters.
WORDS = {
    "bits per byte": (
        "bits per byte|bits_per_byte",
        "The held-out loss in bits (log2), for each byte of the text instead of each token. Unlike perplexity it can "
        "be compared between tokenizers. Lower is better.",
    ),
    "perplexity": (
        "perplexity",
        "e to the power of the held-out loss: among so many equally likely tokens the network chooses on average. It "
        "depends on the tokenizer. Lower is better; a guess among all pieces has as many as there are pieces.",
    ),
    "nats per token": (
        "nats per token",
        "The unit of the loss (cross-entropy with the natural logarithm). A nat is 1.44 bits.",
    ),
    "held-out": ("held-out", "Data that is set aside and not trained on, so that learning by heart does not help."),
    "token, piece": (
        "token",
        "A token is a piece of text as the tokenizer cuts it; a piece is an entry of its list.",
    ),
    "step, update": (
        "step",
        "A step is one update of the network's parameters, by one batch over all workers. Skipped updates are counted "
        "as updates, and are not steps.",
    ),
    "pass, epoch": ("pass(es)? over the data|epoch", "One reading of all the training data."),
    "spike": ("spike", "An update whose loss or gradient norm is far above that of the updates before it."),
    "peak": (
        "of (the )?peak",
        "The most operations in a second that are counted on: measured in matrix products on a CPU, the data sheet's "
        "of a GPU. See docs/watching.md.",
    ),
    "chunk": ("chunk", "The piece of a file of tokens that has a hash of its own and is read whole."),
    "lanes": ("lanes", "The independent parts of the data that the sequences of a step are drawn from."),
    "oneDNN, packed": (
        "onednn|packed",
        "Two ways to make a matrix product on a CPU: by Intel's library, or with the weights rearranged beforehand. "
        "The faster one was measured for each shape, and its count is in the log.",
    ),
    "GFLOP/s": ("gflop/s", "A thousand million operations with numbers of a fraction, in a second."),
    "fingerprint": (
        "fingerprint",
        "A hash of data and settings that decide what is read in which order; the same one means the same sequences.",
    ),
    "MiB, GiB": ("mib|gib", "1,048,576 bytes, and 1,024 times that. MB and GB are millions and thousand millions."),
    "rank": (r"\brank\b", "The number of a worker; the first has 0."),
}


def words_section(page: str) -> str:
    """Returns the explanations of the words that are in `page`, the HTML of its other sections."""
    text = html.unescape(re.sub(r"<[^>]*>", " ", page)).lower()
    known = [(word, meaning) for word, (pattern, meaning) in WORDS.items() if re.search(pattern, text)]
    if not known:
        return ""
    items = "".join(f"<dt>{safe(word)}</dt><dd>{safe(meaning)}</dd>" for word, meaning in known)
    return section("Words", f'<dl class="words">{items}</dl>', "words")
