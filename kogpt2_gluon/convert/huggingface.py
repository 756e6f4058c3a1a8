"""A checkpoint as a Hugging Face folder, for ``GPT2LMHeadModel`` and ``AutoTokenizer``.

KoGPT-2 is GPT-2 with the erf GELU, which transformers calls "gelu" ("gelu_new", its GPT-2 default, is the tanh form).
The arrays are renamed by the table in :mod:`.names`; nothing is rounded. Neither MXNet nor PyTorch nor a GPU is needed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from kogpt2_gluon.convert.names import parameters_of, to_transformers
from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE, tokenizer_json
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import ModelRecipe, Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint
from kogpt2_gluon.storage.disk import disk_full, full_disk_named
from kogpt2_gluon.storage.files import new_folder
from kogpt2_gluon.wording import gigabytes


def convert_checkpoint(checkpoint: Checkpoint, out: Path) -> None:
    """Verifies a checkpoint and writes it as folder `out`, which appears complete or not at all.

    Raises RecipeError if `out` exists and is not an empty folder, DataError naming the array, piece or file that cannot
    be converted.
    """
    _refuse_occupied(out)
    checkpoint.verify()
    recipe, state = checkpoint.recipe(), checkpoint.state()
    source = SentencePieceBPE(checkpoint.tokenizer_path)
    _check_tokenizer(source, recipe.model)
    tokenizer = tokenizer_json(source)
    tensors = to_transformers(checkpoint.model_arrays(), recipe.model, str(checkpoint.model_path))
    needed = sum(each.nbytes for each in tensors.values()) + 2 * len(tokenizer)  # and a few kB

    def about() -> str:
        return f"the converted model needs {gigabytes(needed)}; make room, or name another folder"

    try:
        with full_disk_named(out, about), new_folder(out) as folder:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})  # transformers needs the mark
            (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
            _write_json(folder / "config.json", model_config(recipe.model, source))
            _write_json(folder / "generation_config.json", _generation_config(recipe.model, source))
            _write_json(folder / "tokenizer_config.json", _tokenizer_config(recipe.model, source))
            _write_json(folder / "special_tokens_map.json", _special_tokens(source))
            (folder / "README.md").write_text(_model_card(recipe, state, source), encoding="utf-8")
            shutil.copymode(folder / "README.md", folder / "model.safetensors")  # safetensors makes it private
    except SafetensorError as error:
        if "No space left" in str(error) or "quota" in str(error).lower():
            raise disk_full(out, about()) from None
        raise RecipeError(f"{out}: cannot be written: {error}") from None
    except OSError as error:
        raise RecipeError(f"{out}: cannot be written: {error.strerror or error}") from None


def model_config(model: ModelRecipe, tokenizer: SentencePieceBPE) -> dict[str, Any]:
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


def _generation_config(model: ModelRecipe, tokenizer: SentencePieceBPE) -> dict[str, Any]:
    spare = list(range(len(tokenizer.ids), model.vocab_size))  # rows of the embedding without a piece
    return {**_token_ids(tokenizer), **({"suppress_tokens": spare} if spare else {})}


def _special_tokens(tokenizer: SentencePieceBPE) -> dict[str, str]:
    tokens = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos, "unk_token": tokenizer.unk}
    return {**tokens, "pad_token": tokenizer.pad} if tokenizer.pad else tokens


def _tokenizer_config(model: ModelRecipe, tokenizer: SentencePieceBPE) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # without it transformers uses GPT-2's byte-level tokenizer
        "model_max_length": model.max_length,
        "split_special_tokens": True,  # "</s>" in a text is text, as in SentencePiece
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
            raise DataError(f"tokenizer {tokenizer.path}: it has no {name} piece, which every document needs")


def _refuse_occupied(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise RecipeError(f"{out}: the folder is not empty; name a new one, or empty it")
    if out.exists() and not out.is_dir():
        raise RecipeError(f"{out}: it is a file; name a folder")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _model_card(recipe: Recipe, state: dict[str, Any], tokenizer: SentencePieceBPE) -> str:
    model, training = recipe.model, recipe.training
    normalisation = tokenizer.proto.normalizer_spec.name or "identity"
    tokens = state["step"] * recipe.tokens_per_step
    parameters = sum(int(np.prod(each.shape)) for each in parameters_of(model))
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
    """Returns the figures of a state's `evaluation` as a section of the card, or "" if there are none."""
    if not isinstance(evaluation, dict):
        return ""
    figures = {key: value for key, value in evaluation.items() if isinstance(value, (int, float))}
    rows = "".join(f"| {key.replace('_', ' ')} | {value:.6g} |\n" for key, value in figures.items())
    return f"\n## Held-out text\n\n| figure | value |\n|---|---|\n{rows}" if rows else ""
