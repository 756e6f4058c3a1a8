"""The tokenizer's files for a fine-tuned network: they frame a row by themselves, and fill up batches at the right.

The head reads the last token before the padding. transformers finds it by the padding's id, so that id must be in no
row: with ``</s>``, which many take for GPT-2's missing padding, it would find the token before the last, or another
one. A tokenizer without a padding token gets one, and the embedding a row for it if all rows have a piece.
"""

from __future__ import annotations

import json
from itertools import count
from typing import Any, NamedTuple

from kogpt2_gluon.convert.tokenizer_files import FromJson, TokenizerFiles
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.storage.tokenizer_file import CONFIG, MAP, TOKENIZER_JSON

PAD = "<pad>"


class Padding(NamedTuple):
    """The padding token. `is_new` if the tokenizer lacks it."""

    token: str
    id: int
    is_new: bool

    def rows(self, model: ModelRecipe) -> int:
        """Returns how many rows the embedding needs."""
        return max(model.vocab_size, self.id + 1)


def padding_of(tokenizer: TokenizerFiles) -> Padding:
    """Returns the tokenizer's padding token, or a new one whose id follows all others."""
    token = tokenizer.special_tokens.get("pad_token")
    if token is not None:
        return Padding(token, tokenizer.ids[token], is_new=False)
    name = next(name for number in count() if (name := PAD if not number else f"<pad{number}>") not in tokenizer.ids)
    return Padding(name, max(tokenizer.ids.values()) + 1, is_new=True)


def framing_files(tokenizer: TokenizerFiles, padding: Padding, most: int) -> dict[str, bytes]:
    """Returns {file name: content}; a row has at most `most` tokens, to which ``truncation=True`` cuts it."""
    files = dict(tokenizer.files(most))
    config: dict[str, Any] = json.loads(files[CONFIG])
    config.update(
        model_max_length=most,
        split_special_tokens=True,  # as in the fine-tuning: written out in a text they are text
        padding_side="right",
        truncation_side="right",
        pad_token=padding.token,
        model_input_names=["input_ids", "attention_mask"],  # token_type_ids would be added to the embeddings
    )
    files[CONFIG] = _json(config)
    files[MAP] = _json({**json.loads(files[MAP]), "pad_token": padding.token})
    files[TOKENIZER_JSON] = _framing(json.loads(files[TOKENIZER_JSON]), tokenizer, padding)
    return files


def _framing(content: dict[str, Any], tokenizer: TokenizerFiles, padding: Padding) -> bytes:
    """Returns a tokenizer.json that puts a row between the tokens that begin and end documents; see tasks/encoding."""
    begin, end = (tokenizer.special_tokens[name] for name in ("bos_token", "eos_token"))
    # No types of tokens, and no other processor: what others do, such as trimming places, the fine-tuning did not.
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    before, after = ({"SpecialToken": {"id": token, "type_id": 0}} for token in (begin, end))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [before, first, after],
        "pair": [before, first, after, second, after],
        "special_tokens": {
            token: {"id": token, "ids": [tokenizer.ids[token]], "tokens": [token]} for token in (begin, end)
        },
    }
    content["truncation"] = content["padding"] = None
    model, unknown = content["model"], tokenizer.special_tokens.get("unk_token")
    if isinstance(model["vocab"], dict) and unknown in model["vocab"]:  # a BPE that may not name it, such as KoGPT2's
        model["unk_token"] = unknown  # else what has no piece is dropped, where the fine-tuning had this token
        model["dropout"] = None
    if isinstance(tokenizer, FromJson):
        symbols = set(tokenizer.special_symbols)  # such as the emoticons of KoGPT2, which are found in texts
        for each in content.get("added_tokens", []):
            each["special"] = bool(each.get("special")) and each["content"] not in symbols
    if padding.is_new:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = {"id": padding.id, "content": padding.token, **flags, "special": True}
        content["added_tokens"] = [*content.get("added_tokens", []), added]
    return json.dumps(content, ensure_ascii=False).encode()


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
