"""The part of a model card that says what other tools need to know of the folder."""

from __future__ import annotations


def usage(bos: str, eos: str, max_length: int, adds_bos: bool) -> str:
    """Returns a section of the card: special tokens at both ends of a text and within it, lengths, odd characters.

    `adds_bos` says that the folder's tokenizer puts `bos` in front of a text by itself.
    """
    if adds_bos:
        ends = f"""\
- The tokenizer begins every text with `{bos}`, unless it is called with `add_special_tokens=False`. To fine-tune,
  load it with `AutoTokenizer.from_pretrained(".", add_bos_token=True, add_eos_token=True)`, or the model forgets to
  stop; `add_eos_token=True` alone takes `{bos}` away. For perplexity in lm-eval, which puts `{bos}` in front by itself,
  pass `add_bos_token=False`."""
    else:
        ends = f"""\
- The tokenizer adds neither `{bos}` nor `{eos}`. For prompts, the text-generation pipeline, and multiple choice
  and generation in lm-eval, load it with `AutoTokenizer.from_pretrained(".", add_bos_token=True)`. To fine-tune, add
  `add_eos_token=True`, or the model forgets to stop. For perplexity in lm-eval, which puts `{bos}` in front by itself,
  use neither. transformers 4 ignores both: convert with `kogpt2 convert --bos`."""
    return f"""## With other tools

{ends}
- A text and what is generated have room for {max_length} tokens together. Beyond them transformers raises IndexError:
  pass `truncation=True`, or fewer `max_new_tokens`.
- With special tokens of your own and with chat templates, load the tokenizer with `split_special_tokens=False`, or
  they are spelled with ordinary pieces.
- `tokenizers`, transformers.js and OpenVINO always look for special tokens in a text. Take them out of texts that you
  do not trust.
- The ids are SentencePiece's but for texts with several combining marks on one letter.
"""
