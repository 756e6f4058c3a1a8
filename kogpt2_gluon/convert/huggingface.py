"""A checkpoint as a Hugging Face folder, for ``GPT2LMHeadModel`` and ``AutoTokenizer``.

KoGPT-2 is GPT-2 with the erf GELU, which transformers calls "gelu"; the tanh form, GPT-2's own, is "gelu_new" there.
The arrays are renamed by the table in :mod:`.names`; nothing is rounded. Neither MXNet nor PyTorch nor a GPU is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kogpt2_gluon.convert.model_card import card_sections, card_title
from kogpt2_gluon.convert.names import bytes_of, parameters_of, to_transformers
from kogpt2_gluon.convert.optimizer import write_optimizer
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import refuse_occupied, target_folder
from kogpt2_gluon.convert.tokenizer_files import TokenizerFiles, read_tokenizer
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.storage.safetensors_file import DTYPES as SAFETENSORS_DTYPES
from kogpt2_gluon.storage.safetensors_file import write_safetensors

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new"}  # the recipe's word: transformers'
WEIGHTS = "model.safetensors"
SIZES = {name: dtype.itemsize for name, dtype in SAFETENSORS_DTYPES.items()}
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # the recipe's word: safetensors'


def convert_checkpoint(
    source: Source,
    out: Path,
    dtype: str = "float32",
    max_shard_size: int = 0,
    with_optimizer: bool = False,
    bos: bool = False,
) -> None:
    """Verifies a source and writes it as folder `out`, which appears complete or not at all.

    Parameters
    ----------
    source : Source
        A checkpoint, or anything else that :func:`~kogpt2_gluon.convert.source.open_source` opens.
    out : Path
    dtype : str
        Of the weights: float32, or float16 or bfloat16, to which they are rounded.
    max_shard_size : int
        Most bytes of a file of weights; a larger array has a file of its own. 0: one file for all.
    with_optimizer : bool
        The optimizer's state too; see :mod:`.optimizer`.
    bos : bool
        The folder's tokenizer puts the bos token in front of every text by itself.

    Raises RecipeError if `out` exists and is not an empty folder, DataError naming the array, piece or file that cannot
    be converted.
    """
    refuse_occupied(out)
    source.verify(optimizer=with_optimizer)
    recipe, state, itemsize = source.recipe(), source.state(), SIZES[DTYPES[dtype]]
    tokenizer = read_tokenizer(source.tokenizer_path)
    check_tokenizer(tokenizer, recipe.model)
    files = tokenizer.files(recipe.model.max_length, bos)
    tensors = to_transformers(source.model_arrays(), recipe.model, str(source.model_path))
    needed = bytes_of(recipe.model, itemsize + 8 * with_optimizer) + 2 * sum(map(len, files.values()))  # and a few kB
    with target_folder(out, needed) as folder:
        write_weights(folder, tensors, shapes_of(recipe.model), DTYPES[dtype], max_shard_size)
        write_settings(folder, recipe.model, tokenizer, files, dtype)
        if with_optimizer:
            write_optimizer(folder, source)
        (folder / "README.md").write_text(_model_card(recipe, state, tokenizer, dtype, bos), encoding="utf-8")


def shapes_of(model: ModelRecipe) -> dict[str, tuple[int, ...]]:
    """{transformers' name: shape there} of all parameters, the tied matrix once."""
    return {each.in_transformers: each.transformers_shape for each in parameters_of(model)}


def write_weights(
    folder: Path, tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], dtype: str, max_shard_size: int
) -> None:
    """Writes `tensors`, which have these shapes, as one file, or as several with an index; `dtype` is safetensors'."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    used = 0
    for name, shape in shapes.items():
        size = SIZES[dtype] * math.prod(shape)
        if max_shard_size and shards[-1] and used + size > max_shard_size:
            shards.append({})
            used = 0
        shards[-1][name] = shape
        used += size
    if len(shards) == 1:
        write_safetensors(folder / WEIGHTS, tensors, shapes, dtype)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, tensors, shard, dtype)
        weight_map.update(dict.fromkeys(shard, name))
    total = {"total_size": sum(SIZES[dtype] * math.prod(shape) for shape in shapes.values())}
    write_json(folder / f"{WEIGHTS}.index.json", {"metadata": total, "weight_map": weight_map})


def write_settings(
    folder: Path, model: ModelRecipe, tokenizer: TokenizerFiles, files: Mapping[str, bytes], dtype: str = "float32"
) -> None:
    """Writes what libraries read apart from the weights: the settings of network and generation, and `files`.

    These are the tokenizer's own.
    """
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / "config.json", {**model_config(model, tokenizer), "torch_dtype": dtype})
    write_json(folder / "generation_config.json", _generation_config(model, tokenizer))


def model_config(model: ModelRecipe, tokenizer: TokenizerFiles) -> dict[str, Any]:
    """Returns the content of config.json, which transformers reads as a GPT2Config."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_positions": model.max_length,
        "n_ctx": model.max_length,  # the same under its older name, which llama.cpp's converter reads
        "n_embd": model.units,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "n_inner": 4 * model.units,
        "activation_function": ACTIVATIONS[model.activation],
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": model.dropout,
        "tie_word_embeddings": True,
        **_token_ids(tokenizer),
    }


def _token_ids(tokenizer: TokenizerFiles) -> dict[str, Any]:
    tokens = tokenizer.special_tokens
    return {f"{key}_id": tokenizer.ids[tokens[key]] for key in ("bos_token", "eos_token", "pad_token") if key in tokens}


def _generation_config(model: ModelRecipe, tokenizer: TokenizerFiles) -> dict[str, Any]:
    taken = set(tokenizer.ids.values())
    spare = [row for row in range(model.vocab_size) if row not in taken]  # rows of the embedding without a piece
    return {**_token_ids(tokenizer), **({"suppress_tokens": spare} if spare else {})}


def check_tokenizer(tokenizer: TokenizerFiles, model: ModelRecipe) -> None:
    """DataError if the tokenizer has more pieces than the embedding has rows, or lacks a piece that documents need."""
    size = max(tokenizer.ids.values(), default=-1) + 1
    if size > model.vocab_size:
        raise DataError(
            f"tokenizer {tokenizer.path}: it has {size} pieces, more than model.vocab_size={model.vocab_size}"
        )
    for name in ("bos", "eos"):
        if f"{name}_token" not in tokenizer.special_tokens:
            raise DataError(f"tokenizer {tokenizer.path}: it has no {name} piece, which every document needs")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a small file that libraries read."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _model_card(recipe: Recipe, state: dict[str, Any], tokenizer: TokenizerFiles, dtype: str, bos: bool) -> str:
    return f"""---
language: ko
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2, korean]
---

{card_title(recipe, state, dtype)}
```python
from transformers import AutoTokenizer, GPT2LMHeadModel
model, tokenizer = GPT2LMHeadModel.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```

{tokenizer.cutting}{tokenizer.usage(recipe.model.max_length, bos)}{card_sections(recipe, state, tokenizer)}"""
