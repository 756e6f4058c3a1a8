"""The options of `kogpt2 generate` that say how texts are written; a file of prompts has the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

COUNT = click.IntRange(min=0)


def _option(name: str, default: Any, meaning: str, **more: Any) -> Callable[..., Any]:
    return click.option(*name.split(), default=default, show_default=True, help=meaning, **more)


OPTIONS = (
    _option("--num-samples -n", 1, "Texts of each prompt; with --num-beams the best ones.", type=click.IntRange(min=1)),
    _option("--max-new-tokens", 60, "Most new tokens of a text."),
    _option("--min-new-tokens", 0, "A text does not end before it has so many.", type=COUNT),
    _option("--temperature", 1.0, "0 is greedy."),
    _option("--top-k", 0, "Keep the k likeliest tokens; 0: all."),
    _option("--top-p", 1.0, "Keep the likeliest tokens that have this probability together."),
    _option("--min-p", 0.0, "Keep tokens with at least this share of the likeliest one's probability; 0: all."),
    _option("--typical-p", 1.0, "Keep the most typical tokens that have this probability together."),
    _option("--repetition-penalty", 1.0, "Above 1: avoid tokens already in the text."),
    _option("--no-repeat-ngram-size", 0, "No sequence of so many tokens comes twice; 0: any may.", type=COUNT),
    click.option("--bad-words", multiple=True, metavar="WORD", help="A word that is not written; repeatable."),
    click.option("--stop", multiple=True, metavar="TEXT", help="A text ends before it; repeatable."),
    _option("--seed", 0, "Seed of the draws."),
    click.option("--allow-unk", is_flag=True, help="Allow <unk>, the token of text that the tokenizer cannot spell."),
    click.option("--logprobs", type=COUNT, metavar="N", help="In JSON: each token's log-probability and N likeliest."),
    _option("--num-beams", 1, "Above 1: beam search, the likeliest whole texts; nothing is drawn."),
    _option("--length-penalty", 1.0, "With --num-beams: above 0 longer texts score better, below 0 shorter ones."),
    _option("--penalty-alpha", 0.0, "Above 0: contrastive search; how much likeness to the text so far counts, to 1."),
    _option("--num-candidates", 4, "With --penalty-alpha: how many of the likeliest tokens are compared."),
)


def text_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def text_values(options: dict[str, Any]) -> dict[str, Any]:
    """Takes their values out of those of a command."""
    from kogpt2_gluon.inference.text_settings import NAMES

    return {name: options.pop(name) for name in NAMES}
