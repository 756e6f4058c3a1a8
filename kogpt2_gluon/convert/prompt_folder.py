"""A tuned prompt as a folder that peft loads (PROMPT_TUNING), in front of the converted network.

With an encoder or without, what was trained is vectors in the end (model/prompt_encoder.py), so one form does for all.
The network itself is converted by itself: `kogpt2 convert RUN OUT --part body`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kogpt2_gluon.convert.huggingface import write_json
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import refuse_occupied, target_folder
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import PROMPT
from kogpt2_gluon.runs.tuned_prompt import WEIGHTS, body_fingerprint, write_tuned_prompt

CONFIG = "adapter_config.json"


def write_prompt(source: Source, out: Path) -> None:
    """Verifies a source with a tuned prompt and writes that as folder `out`, which appears complete or not at all.

    Raises RecipeError if `out` exists and is not an empty folder, DataError if the source is damaged.
    """
    refuse_occupied(out)
    source.verify(optimizer=False)
    recipe, arrays = source.recipe(), source.model_arrays()
    shape = (recipe.adaptation.prompt_length, recipe.model.units)
    if PROMPT not in arrays or arrays[PROMPT].shape != shape:
        raise DataError(f"{source.model_path}: has no {PROMPT} of shape {shape}, as its recipe says")
    tuned_by = f"{recipe.name}/step-{source.state()['step']:08d}"
    with target_folder(out, 4 * shape[0] * shape[1]) as folder:
        write_tuned_prompt(folder / WEIGHTS, arrays[PROMPT], body_fingerprint(arrays), tuned_by)
        write_json(folder / CONFIG, peft_config(recipe.model, shape[0]))


def peft_config(model: ModelRecipe, prompt_length: int) -> dict[str, Any]:
    """Returns the content of adapter_config.json, which peft reads as a PromptTuningConfig."""
    return {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": prompt_length,
        "token_dim": model.units,
        "num_transformer_submodules": 1,
        "num_attention_heads": model.num_heads,
        "num_layers": model.num_layers,
        "prompt_tuning_init": "RANDOM",  # peft needs a word; the vectors are in the file
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
