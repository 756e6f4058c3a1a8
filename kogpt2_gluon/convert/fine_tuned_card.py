"""The card (README.md) of a fine-tuned network in transformers' format: its rows, its answers, and how it is used."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from kogpt2_gluon.convert.framing import Padding
from kogpt2_gluon.convert.model_card import special_tokens
from kogpt2_gluon.convert.names import bytes_of
from kogpt2_gluon.convert.tokenizer_files import FromJson, TokenizerFiles
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.saved_task import REGRESSION, SavedTask

SHOWN = 100  # labels


def fine_tuned_card(
    recipe: Recipe,
    state: dict[str, Any],
    task: SavedTask,
    tokenizer: TokenizerFiles,
    padding: Padding,
    dtype: str,
    has_tags: bool,
) -> str:
    """Returns the card; `has_tags` if the head of labels of tokens is the one that is converted."""
    model, kind = recipe.model, "token-classification" if has_tags else "text-classification"
    rounding = "without rounding" if dtype == "float32" else f"and rounded to {dtype}"
    return f"""---
language: ko
library_name: transformers
pipeline_tag: {kind}
tags: [gpt2, korean]
---

# {task.name}

A GPT-2 with {bytes_of(model, 1):,} parameters and a head, fine-tuned for `{task.name}` with KoGPT-2 on Gluon (Apache
MXNet), converted {rounding}.

```python
{_program(task, has_tags)}
```

{tokenizer.cutting}## Rows and answers

{_answers(task, has_tags)}
{_rows(recipe, task, tokenizer, padding)}{_scores(state)}
## Tokenizer

- {tokenizer.description} {special_tokens(tokenizer)}
{_bullet(_spelled_out(tokenizer))}
"""


def _spelled_out(tokenizer: TokenizerFiles) -> str:
    """Returns what becomes of a special token that is written out in a text."""
    if isinstance(tokenizer, FromJson):
        return "Take special tokens that are written out in a text out of it, if you do not trust it."
    return "Special tokens that are written out in a text are spelled with ordinary pieces."


def _program(task: SavedTask, has_tags: bool) -> str:
    if has_tags:
        return """from transformers import pipeline
find = pipeline("token-classification", model=".", aggregation_strategy="simple")
print(find(["첫 번째 글", "두 번째 글"], batch_size=2))"""
    row = '{"text": "첫 번째 글", "text_pair": "두 번째 글"}' if task.is_pair else '"첫 번째 글", "두 번째 글"'
    lines = f"""from transformers import pipeline
answer = pipeline("text-classification", model=".", truncation=True)
found = answer([{row}], batch_size=2)"""
    if task.head != REGRESSION:
        return f"{lines}\nprint(found)"
    low, high = task.value_range
    scaled = f"{low:g} + {high - low:g} * min(1, max(0, each['score']))"
    return f"{lines}\nprint([{scaled} for each in found])"


def _answers(task: SavedTask, has_tags: bool) -> str:
    if has_tags:
        return _bullet(
            f"Each token has one of {len(task.tag_names)} labels: `O`, and `B-` and `I-` of {_listed(task.kinds)}. A "
            "span begins at a B, or at an I after another kind, and goes on over the I of its kind; `start` and `end` "
            "can include a space that is not part of it, and a character of several tokens, such as an emoji, can come "
            'several times. Take `aggregation_strategy="simple"`: the others decide by '
            "words."
        )
    if task.head == REGRESSION:
        low, high = task.value_range
        return _bullet(
            f"The number is scaled: `score` is 0 for {low:g} and 1 for {high:g}, and can lie a little outside. The "
            "last line above restores it. Older versions of transformers put a sigmoid over it: pass them "
            '`function_to_apply="none"`.'
        )
    labels = _listed(tuple(f"{number}: {label}" for number, label in enumerate(task.labels)))
    return _bullet(f"The labels, by the rows of the head: {labels}.")


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"`{json.dumps(name, ensure_ascii=False)[1:-1]}`" for name in names[:SHOWN]) + more


def _rows(recipe: Recipe, task: SavedTask, tokenizer: TokenizerFiles, padding: Padding) -> str:
    begin, end = (tokenizer.special_tokens[name] for name in ("bos_token", "eos_token"))
    row = f"{begin} first {end} second {end}" if task.is_pair else f"{begin} text {end}"
    new = (
        f" It is new, with id {padding.id:,}: a row ends with `{end}`, so it cannot be that." if padding.is_new else ""
    )
    pairs = " Of a pair the longer text is cut, as in the fine-tuning to within a token." if task.is_pair else ""
    lines = (
        f"A row is `{row}`, and the tokenizer of this folder makes it so by itself. With another tokenizer do the "
        "same: the head reads the last token before the padding.",
        "Pad at the right, as the tokenizer does. At the left the positions are others, and so are the answers.",
        f"The padding is `{padding.token}`.{new}",
        f"The fine-tuning had rows of at most {recipe.data.seq_length:,} tokens, to which `truncation=True` cuts."
        f"{pairs} The network takes {recipe.model.max_length:,}; beyond them transformers raises IndexError.",
    )
    return "".join(f"{_bullet(line)}\n" for line in lines)


def _bullet(text: str) -> str:
    return textwrap.fill(
        text, 120, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _scores(state: dict[str, Any]) -> str:
    """Returns a section with the scores on the dev rows, "" if there are none."""
    evaluation = state.get("evaluation")
    if not isinstance(evaluation, dict):
        return ""
    figures = {key: value for key, value in evaluation.items() if isinstance(value, (int, float))}
    rows = "".join(
        f"| {key.replace('_', ' ')} | {value:.6g} |\n"
        for key, value in figures.items()
        if key not in ("step", "attempt")
    )
    step = f"\nBy the checkpoint of step {state['step']:,}.\n" if rows else ""
    return f"\n## Dev rows\n{step}\n| figure | value |\n|---|---|\n{rows}" if rows else ""
