"""A checkpoint as a Hugging Face folder, for ``GPT2LMHeadModel`` and ``AutoTokenizer``.

KoGPT-2 is GPT-2 with the erf GELU, which transformers calls "gelu" ("gelu_new", its GPT-2 default, is the tanh form).
The arrays are renamed and the dense ones transposed, as GPT-2's ``Conv1D`` keeps weights as (in, out) and Gluon's
``Dense`` as (out, in); nothing is rounded. Neither MXNet nor PyTorch nor a GPU is needed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE, tokenizer_json
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import ModelRecipe, Recipe, load_recipe
from kogpt2_gluon.storage.params_file import read_params

Float32s = npt.NDArray[np.float32]

EMBEDDING, TIED_COPY = "_embed.weight", "_logits_proj.weight"


def convert_checkpoint(ckpt: Path, out: Path) -> None:
    """Writes checkpoint folder `ckpt` as folder `out`, which appears complete or not at all.

    `ckpt` holds model.params (float32), recipe.yaml, tokenizer.model and state.json. Raises RecipeError if `out` exists
    and is not an empty folder, DataError naming the array, piece or file that cannot be mapped.
    """
    _refuse_occupied(out)
    recipe = load_recipe(str(ckpt / "recipe.yaml"))
    state = _read_state(ckpt / "state.json")
    source = SentencePieceBPE(ckpt / "tokenizer.model")
    _check_tokenizer(source, recipe.model)
    tokenizer = tokenizer_json(source)
    tensors = rename_arrays(read_params(ckpt / "model.params"), recipe.model, str(ckpt / "model.params"))
    with _new_folder(out) as folder:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})  # transformers insists on the mark
        (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        _write_json(folder / "config.json", model_config(recipe.model, source))
        _write_json(folder / "generation_config.json", _token_ids(source))
        _write_json(folder / "tokenizer_config.json", _tokenizer_config(recipe.model, source))
        _write_json(folder / "special_tokens_map.json", _special_tokens(source))
        (folder / "README.md").write_text(_model_card(recipe, state, source), encoding="utf-8")
        shutil.copymode(folder / "README.md", folder / "model.safetensors")  # safetensors makes it private


def rename_arrays(arrays: dict[str, npt.NDArray[Any]], model: ModelRecipe, source: str) -> dict[str, Float32s]:
    """Structural names -> GPT2LMHeadModel's names; the tied matrix once. `source` names the file in messages.

    Raises DataError for a missing or unknown name, a shape that the recipe does not have, another dtype than float32,
    or tied copies that differ.
    """
    expected = {name: shape for name, _, shape in parameters_of(model)}
    expected[TIED_COPY] = expected[EMBEDDING]
    for names, fault in (
        (sorted(expected.keys() - arrays.keys()), "is missing from it"),
        (sorted(arrays.keys() - expected.keys()), "is no parameter of the network"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise DataError(f"{source}: {names[0]} {fault}{more}; the recipe has {model.num_layers} layers")
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise DataError(f"{source}: {name} has shape {array.shape}, but the recipe makes it {expected[name]}")
        if array.dtype != np.float32:
            raise DataError(f"{source}: {name} is {array.dtype}; only float32 is converted")
    if not np.array_equal(arrays[EMBEDDING], arrays[TIED_COPY]):
        raise DataError(f"{source}: {EMBEDDING} and {TIED_COPY} differ; they are one tied matrix in GPT-2")
    return {
        target: np.ascontiguousarray(arrays[name].T if _is_dense(name) else arrays[name])
        for name, target, _ in parameters_of(model)
    }


def parameters_of(model: ModelRecipe) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(structural name, transformers' name, shape in Gluon) of every parameter; the tied matrix once."""
    units, hidden = model.units, 4 * model.units
    yield EMBEDDING, "transformer.wte.weight", (model.vocab_size, units)
    yield "_pos_embed.weight", "transformer.wpe.weight", (model.max_length, units)
    dense = {  # Gluon's name: (transformers' name, out, in)
        "_self_attention_layers.{}._multi_head_qkv_proj": ("attn.c_attn", 3 * units, units),
        "_self_attention_layers.{}._out_proj": ("attn.c_proj", units, units),
        "_ffn_layers.{}._hidden_map": ("mlp.c_fc", hidden, units),
        "_ffn_layers.{}._out_map": ("mlp.c_proj", units, hidden),
    }
    for layer in range(model.num_layers):
        for name, (target, size_out, size_in) in dense.items():
            yield f"{name.format(layer)}.weight", f"transformer.h.{layer}.{target}.weight", (size_out, size_in)
            yield f"{name.format(layer)}.bias", f"transformer.h.{layer}.{target}.bias", (size_out,)
        for name, target in (("_attn_ln", "ln_1"), ("_ffn_ln", "ln_2")):
            yield f"{name}.{layer}.gamma", f"transformer.h.{layer}.{target}.weight", (units,)
            yield f"{name}.{layer}.beta", f"transformer.h.{layer}.{target}.bias", (units,)
    yield "_final_ln.gamma", "transformer.ln_f.weight", (units,)
    yield "_final_ln.beta", "transformer.ln_f.bias", (units,)


def _is_dense(name: str) -> bool:
    return name.endswith(".weight") and name.startswith(("_self_attention_layers.", "_ffn_layers."))


def model_config(model: ModelRecipe, tokenizer: SentencePieceBPE) -> dict[str, Any]:
    """config.json of transformers' GPT2Config."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_positions": model.max_length,
        "n_embd": model.units,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "n_inner": 4 * model.units,
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": model.dropout,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **_token_ids(tokenizer),
    }


def _token_ids(tokenizer: SentencePieceBPE) -> dict[str, Any]:
    tokens = _special_tokens(tokenizer)
    return {f"{key}_id": tokenizer.ids[tokens[key]] for key in ("bos_token", "eos_token", "pad_token") if key in tokens}


def _special_tokens(tokenizer: SentencePieceBPE) -> dict[str, str]:
    tokens = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos, "unk_token": tokenizer.unk}
    return {**tokens, "pad_token": tokenizer.pad} if tokenizer.pad else tokens


def _tokenizer_config(model: ModelRecipe, tokenizer: SentencePieceBPE) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # else transformers takes GPT-2's own byte-level tokenizer
        "model_max_length": model.max_length,
        "split_special_tokens": True,  # "</s>" in a text is text, as it is to SentencePiece
        "clean_up_tokenization_spaces": False,
        **_special_tokens(tokenizer),
    }


def _check_tokenizer(tokenizer: SentencePieceBPE, model: ModelRecipe) -> None:
    size = len(tokenizer.ids)
    if size > model.vocab_size:
        raise DataError(
            f"tokenizer {tokenizer.path}: it has {size} pieces, more than model.vocab_size={model.vocab_size}"
        )
    for name in ("bos", "eos"):
        if getattr(tokenizer, name) is None:
            raise DataError(f"tokenizer {tokenizer.path}: it has no {name} piece, which documents are delimited with")


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise DataError(f"{path}: not JSON") from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise DataError(f'{path}: it has no "step", so this is not the state of a run')
    return state


def _refuse_occupied(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise RecipeError(f"{out}: the folder is not empty; name a new one, or empty it")
    if out.exists() and not out.is_dir():
        raise RecipeError(f"{out}: it is a file; name a folder")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and is removed when it does not."""
    out = out.resolve()
    folder = out.parent / f".{out.name}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out)  # an empty folder of that name is replaced
    except OSError as error:
        raise RecipeError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _model_card(recipe: Recipe, state: dict[str, Any], tokenizer: SentencePieceBPE) -> str:
    model, training = recipe.model, recipe.training
    normalisation = tokenizer.proto.normalizer_spec.name or "identity"
    tokens = state["step"] * recipe.tokens_per_step
    parameters = sum(int(np.prod(shape)) for _, _, shape in parameters_of(model))
    special = ", ".join(f"`{piece}` {tokenizer.ids[piece]}" for piece in _special_tokens(tokenizer).values())
    return f"""---
language: ko
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2, korean]
---

# {recipe.name}

A Korean GPT-2 with {parameters:,} parameters: {model.num_layers} layers, {model.num_heads} heads, {model.units} units,
{model.max_length} positions. Trained with KoGPT-2 on Gluon (Apache MXNet) and converted without rounding.

```python
from transformers import AutoTokenizer, GPT2LMHeadModel
model, tokenizer = GPT2LMHeadModel.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```

## Training

- Recipe `{recipe.name}`, step {state["step"]:,}: {tokens:,} tokens in sequences of {recipe.data.seq_length}.
- Updates of {training.total_batch_size} sequences with `{training.optimizer}`, peak learning rate
  {training.learning_rate:g}, `{training.schedule}` decay.
- Documents are `{tokenizer.bos}` text `{tokenizer.eos}`, one after another: put `tokenizer.bos_token_id` in front of a
  prompt that begins a document, and stop at `tokenizer.eos_token_id`.
{_evaluation_table(state.get("evaluation"))}
## Tokenizer

- SentencePiece BPE, {len(tokenizer.ids):,} pieces, normalisation `{normalisation}`, written as a `tokenizers` file that
  gives the same ids. Special tokens: {special}.
- Special tokens are not looked for in texts: a text that has `{tokenizer.eos}` written in it is spelled with ordinary
  pieces. Pass `split_special_tokens=False` to have them recognised (transformers 4.40 always does).
- `skip_special_tokens=True` leaves out unknown tokens too.
- Decode a generated sequence whole: transformers' text-generation pipeline decodes the new tokens alone, and a space
  before them is lost.

## What this is not

KoGPT-2's training code was never published. The network and the tokenizer follow what was; the optimizer, its schedule
and the batch are a reconstruction. These weights are not the ones that SK telecom released.
"""


def _evaluation_table(evaluation: Any) -> str:
    """The figures of state.json's `evaluation`, if it has any, as a section of the card."""
    if not isinstance(evaluation, dict):
        return ""
    figures = {key: value for key, value in evaluation.items() if isinstance(value, (int, float))}
    rows = "".join(f"| {key.replace('_', ' ')} | {value:.6g} |\n" for key, value in figures.items())
    return f"\n## Held-out text\n\n| figure | value |\n|---|---|\n{rows}" if rows else ""
