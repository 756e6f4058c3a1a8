"""The card (README.md) of a converted folder: how it was made, and what to know of its tokenizer, in any format."""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.convert.names import bytes_of
from kogpt2_gluon.convert.tokenizer_files import TokenizerFiles
from kogpt2_gluon.recipe import Recipe


def card_title(recipe: Recipe, state: dict[str, Any], dtype: str = "float32") -> str:
    """Returns the heading of a card, and its first paragraph."""
    model = recipe.model
    origin = "Trained with KoGPT-2 on Gluon (Apache MXNet)" if state["step"] else "Weights that were taken over"
    body_of = state.get("body_of")  # of convert/heads.py
    if body_of:
        origin = (
            f"The body of a network that was fine-tuned for `{body_of}`, without its head: what it writes is not what "
            "the\nlanguage model before it did. It was"
        )
    rounding = "without rounding" if dtype == "float32" else f"and rounded to {dtype}"
    return f"""# {recipe.name}

A GPT-2 with {bytes_of(model, 1):,} parameters: {model.num_layers} layers, {model.num_heads} heads, {model.units} units,
{model.max_length} positions. {origin}{"" if body_of else ","} converted {rounding}.
"""


def card_sections(
    recipe: Recipe, state: dict[str, Any], tokenizer: TokenizerFiles, of_the_tokenizer: str | None = None
) -> str:
    """Returns the sections of a card that are alike for every format: training, tokenizer, what this is not.

    `of_the_tokenizer` has the lines about the tokenizer where transformers does not read it.
    """
    bos, eos = (tokenizer.special_tokens[name] for name in ("bos_token", "eos_token"))
    begin = "" if bos == eos else f"`{bos}` "
    return f"""## Training

{_how_it_was_trained(recipe, state)}- Documents are {begin}text `{eos}`, one after another: a prompt that begins a
  document needs `{bos}` in front, and `{eos}` ends what is generated.
{_evaluation_table(state.get("evaluation"))}
## Tokenizer

{of_the_tokenizer or _in_transformers(tokenizer, eos)}{_what_this_is_not(state)}"""


def special_tokens(tokenizer: TokenizerFiles) -> str:
    """Returns a sentence with the special tokens and their ids."""
    named = dict.fromkeys(tokenizer.special_tokens.values())
    return f"Special tokens: {', '.join(f'`{piece}` {tokenizer.ids[piece]}' for piece in named)}."


def _in_transformers(tokenizer: TokenizerFiles, eos: str) -> str:
    return f"""- {tokenizer.description} {special_tokens(tokenizer)}
- Special tokens are not looked for in texts: a text that has `{eos}` written in it is spelled with ordinary
  pieces. Pass `split_special_tokens=False` to have them recognised (transformers 4.40 always does).
- `skip_special_tokens=True` leaves out unknown tokens too.
- Decode a generated sequence whole: transformers' text-generation pipeline decodes the new tokens alone, and a space
  before them is lost.
"""


def _how_it_was_trained(recipe: Recipe, state: dict[str, Any]) -> str:
    """Returns lines, "" for weights that come from elsewhere."""
    if not state["step"]:
        return ""
    training, step, length = recipe.training, state["step"], recipe.data.seq_length
    tokens = step * recipe.tokens_per_step
    return f"""- Recipe `{recipe.name}`, step {step:,}: {tokens:,} tokens in sequences of {length}.
- Updates of {training.total_batch_size} sequences with `{training.optimizer}`, peak learning rate
  {training.learning_rate:g}, `{training.schedule}` decay.
"""


def _evaluation_table(evaluation: Any) -> str:
    """Returns the figures of a state's `evaluation` as a section, "" if there are none."""
    if not isinstance(evaluation, dict):
        return ""
    figures = {key: value for key, value in evaluation.items() if isinstance(value, (int, float))}
    rows = "".join(f"| {key.replace('_', ' ')} | {value:.6g} |\n" for key, value in figures.items())
    return f"\n## Held-out text\n\n| figure | value |\n|---|---|\n{rows}" if rows else ""


def _what_this_is_not(state: dict[str, Any]) -> str:
    """Returns a section about weights that were trained here."""
    if not state["step"]:
        return ""
    return """
## What this is not

KoGPT-2's training code was never published. The network and the tokenizer follow what was; the optimizer, its schedule
and the batch are a reconstruction. These weights are not the ones that SK telecom released.
"""
