"""The part of a model card that says what other tools need to know of the folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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


def morpheme_usage(analyzer: Mapping[str, Any]) -> str:
    """Returns a section of the card: how texts are cut at morphemes before the folder's tokenizer gets them."""
    packages = " ".join(f"{name}=={analyzer.get(name)}" for name in ("kiwipiepy", "kiwipiepy_model"))
    return f"""## Cut texts at morphemes first

The network has learnt from texts that Kiwi cut at morphemes, which no tokenizer.json can do. Without `morphemes.py` of
this folder a text gets other ids, without an error, and the network reads it badly:

```python
import sys

from transformers import AutoTokenizer

sys.path.insert(0, ".")
from morphemes import Cutter  # pip install {packages}

tokenizer, cutter = AutoTokenizer.from_pretrained("."), Cutter.of(".")
ids = tokenizer(cutter.cut("나는 학교에 갔다."), is_split_into_words=True)["input_ids"]
```

With `tokenizers` alone it is `tokenizer.encode(cutter.cut(text), is_pretokenized=True)`.

Pipelines, lm-eval, transformers.js and OpenVINO encode texts by themselves, without the cut. Decoding needs nothing:
the ids' text is the text, byte for byte.
"""
