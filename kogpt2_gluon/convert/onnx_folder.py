"""A checkpoint as a folder for onnxruntime: two graphs over one file of weights, and the tokenizer.

``model.onnx`` has a cache and generates, ``logits.onnx`` has none and scores; ``model.onnx_data`` has the weights of
both. optimum and transformers.js take the file that is named ``model.onnx``, and want a cache: from a graph without one
optimum refuses to generate, and transformers.js 4.3.2 generates nonsense, as it passes the last token alone.

Neither MXNet nor torch nor a GPU is needed; the package `onnx` is. Nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.convert.huggingface import check_tokenizer, model_config, write_settings
from kogpt2_gluon.convert.model_card import card_sections, card_title
from kogpt2_gluon.convert.names import Float32s, bytes_of, to_transformers
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import refuse_occupied, target_folder
from kogpt2_gluon.convert.tokenizer_files import TokenizerFiles, read_tokenizer
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import ModelRecipe

GRAPHS = {"model.onnx": True, "logits.onnx": False}  # whether each has a cache
WEIGHTS = "model.onnx_data"  # as optimum and transformers.js name it


def write_onnx(source: Source, out: Path, bos: bool = False) -> None:
    """Verifies a source and writes it as folder `out`, which appears complete or not at all.

    With `bos`, its tokenizer puts the bos token in front of every text by itself.

    Raises RecipeError if `out` exists and is not an empty folder, or if the package `onnx` is missing; DataError naming
    the array, piece or file that cannot be converted.
    """
    _require_onnx()
    refuse_occupied(out)
    source.verify(optimizer=False)
    recipe, state = source.recipe(), source.state()
    tokenizer = read_tokenizer(source.tokenizer_path)
    check_tokenizer(tokenizer, recipe.model)
    files = tokenizer.files(recipe.model.max_length, bos)
    tensors = to_transformers(source.model_arrays(), recipe.model, str(source.model_path))
    needed = bytes_of(recipe.model) + 2 * sum(map(len, files.values()))  # and up to 3 MB
    with target_folder(out, needed) as folder:
        _write_graphs(folder, recipe.model, model_config(recipe.model, tokenizer), tensors)
        write_settings(folder, recipe.model, tokenizer, files)
        (folder / "README.md").write_text(_model_card(recipe, state, tokenizer), encoding="utf-8")


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        raise RecipeError("--to onnx needs the package onnx: pip install 'kogpt2-gluon[convert]'") from None
    except ImportError as error:
        reason = str(error).strip().split("\n")[0]
        raise RecipeError(f"onnx cannot be imported ({reason}): pip install 'kogpt2-gluon[convert]'") from None


def _write_graphs(folder: Path, model: ModelRecipe, config: Mapping[str, Any], tensors: Mapping[str, Float32s]) -> None:
    from kogpt2_gluon.convert.onnx_graph import build_model, stored_arrays

    with (folder / WEIGHTS).open("wb") as stream:
        for array in stored_arrays(model):
            stream.seek(array.offset)
            stream.write(np.ascontiguousarray(tensors[array.name]).data)
    metadata = {key: str(value) for key, value in config.items() if key.endswith("token_id") or key == "vocab_size"}
    metadata["max_length"] = str(model.max_length)
    for name, cached in GRAPHS.items():
        graph = build_model(model, cached, WEIGHTS, metadata)
        with (folder / name).open("wb") as stream:
            stream.write(graph.SerializeToString(deterministic=True))


def _model_card(recipe: Recipe, state: dict[str, Any], tokenizer: TokenizerFiles) -> str:
    model, pieces = recipe.model, len(tokenizer.ids)
    spare = pieces < model.vocab_size
    last = f"logits[0, -1, :{pieces}]" if spare else "logits[0, -1]"
    note = "  # the other rows of the embedding have no piece" if spare else ""
    bos_piece, eos_piece = (tokenizer.special_tokens[name] for name in ("bos_token", "eos_token"))
    bos, eos = tokenizer.ids[bos_piece], tokenizer.ids[eos_piece]
    return f"""---
language: ko
library_name: onnx
pipeline_tag: text-generation
tags: [gpt2, korean, onnxruntime]
---

{card_title(recipe, state)}
For onnxruntime (opset 17): `model.onnx` generates, `logits.onnx` scores, and both read `model.onnx_data`.

```python
import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

session, tokenizer = InferenceSession("model.onnx"), Tokenizer.from_file("tokenizer.json")
tokenizer.encode_special_tokens = True  # "{eos_piece}" in a text is text
names = [each.name for each in session.get_inputs() if each.name.startswith("past_key_values")]
past = {{name: np.zeros((1, {model.num_heads}, 0, {model.units // model.num_heads}), np.float32) for name in names}}
ids = new = [{bos}, *tokenizer.encode("오늘은 날씨가").ids]  # {bos_piece} begins a document
for _ in range({min(40, model.max_length // 2)}):
    feed = {{"input_ids": np.array([new], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}}
    logits, *present = session.run(None, {{**feed, **past}})
    past = dict(zip(names, present))
    new = [int({last}.argmax())]{note}
    ids = ids + new
    if new == [{eos}]:  # {eos_piece}
        break
print(tokenizer.decode(ids))
```

- `model.onnx` takes `input_ids` (batch, length) and `attention_mask` (batch, past + length), both int64, and for each
  layer `past_key_values.N.key` and `.value` (batch, heads, past, units of a head), where past may be 0. It returns
  `logits` (batch, length, vocabulary) and, for past and input, `present.N.key` and `.value`.
- Pad prompts of several lengths on the left, with 0 in the mask there. Positions follow from the mask.
- `logits.onnx` takes `input_ids` alone and returns `logits`. Pad its texts on the right.
- More than {model.max_length:,} positions, an id outside the vocabulary, or a mask that is not as long as past and
  input is an error. It names a node, such as `sequence_is_longer_than_max_length_{model.max_length}`.
- `quantize_dynamic` of onnxruntime 1.32 works; older ones spoil a matrix that is used twice, as the embedding is here.

{tokenizer.cutting}{card_sections(recipe, state, tokenizer)}"""
