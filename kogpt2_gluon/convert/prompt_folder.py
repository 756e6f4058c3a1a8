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
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import PROMPT
from kogpt2_gluon.runs.tuned_prompt import WEIGHTS, body_fingerprint, write_tuned_prompt

CONFIG, CARD = "adapter_config.json", "README.md"


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
    body = body_fingerprint(arrays)
    with target_folder(out, 4 * shape[0] * shape[1]) as folder:
        write_tuned_prompt(folder / WEIGHTS, arrays[PROMPT], body, tuned_by)
        write_json(folder / CONFIG, peft_config(recipe.model, shape[0]))
        (folder / CARD).write_text(prompt_card(recipe, tuned_by, body), encoding="utf-8")


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
        "base_model_name_or_path": None,  # wherever the network was converted to; the card says which one it is
    }


def prompt_card(recipe: Recipe, tuned_by: str, body: str) -> str:
    """Returns the card (README.md) of the folder; `body` is the fingerprint of the network that it was tuned on."""
    model, tuned = recipe.model, recipe.adaptation
    encoder = "" if tuned.encoder == "none" else f", which an encoder ({tuned.encoder}) made while they were trained"
    return f"""---
language: ko
library_name: peft
tags: [gpt2, korean, prompt-tuning]
---

# {recipe.name}

{tuned.prompt_length} vectors of {model.units} numbers that go in front of each text{encoder}: a prompt that was tuned
with KoGPT-2 on Gluon (Apache MXNet), as peft's prompt tuning reads it. It was tuned by `{tuned_by}`.

## Its network

It was tuned on `{recipe.training.init_from}`: a GPT-2 of {model.num_layers} layers, {model.num_heads} heads,
{model.units} units and {model.max_length} positions. In front of any other network the vectors mean nothing. The
network is not in this folder. Convert it from the run that tuned the prompt (or, without `--part`, from what that run
began with):

```
kogpt2 convert RUN my-body --part body
```

```python
from peft import PeftModel
from transformers import AutoTokenizer, GPT2LMHeadModel

network = GPT2LMHeadModel.from_pretrained("my-body")
model = PeftModel.from_pretrained(network, ".").eval()
tokenizer = AutoTokenizer.from_pretrained("my-body", add_bos_token=True)
ids = tokenizer("이 영화는", return_tensors="pt", return_token_type_ids=False)
found = model.generate(**ids, max_new_tokens=8)
print(tokenizer.decode(found[0], skip_special_tokens=True))
```

- peft does not check the network. `kogpt2 generate NETWORK TEXT --tuned-prompt FOLDER` does, and so does
  `kogpt2 serve`: its fingerprint is `{body}`, as in the metadata of
  `{WEIGHTS}`.
- `AutoPeftModelForCausalLM` looks for the network by itself. Before you use it, write the folder of the network into
  `{CONFIG}`, as `base_model_name_or_path`.
- The prompt takes {tuned.prompt_length} positions: {model.max_length - tuned.prompt_length} are left for a text.
"""
