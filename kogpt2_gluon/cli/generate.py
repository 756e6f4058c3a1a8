"""The verb `kogpt2 generate`: continues a text."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.group import echo_json
from kogpt2_gluon.cli.paths import ANY_PATH

RULE = "-" * 20


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("prompt")
@click.option("--num-samples", "-n", default=1, show_default=True, type=click.IntRange(min=1), help="Texts to print.")
@click.option("--max-new-tokens", default=60, show_default=True, help="Most new tokens of a text.")
@click.option("--temperature", default=1.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", default=0, show_default=True, help="Keep the k likeliest tokens; 0: all.")
@click.option(
    "--top-p", default=1.0, show_default=True, help="Keep the likeliest tokens that have this probability together."
)
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1: avoid tokens already in the text.")
@click.option("--seed", default=0, show_default=True, help="Seed of the draws.")
@click.option("--allow-unk", is_flag=True, help="Allow <unk>, the token of text that the tokenizer cannot spell.")
@options.json_output
@options.device
@options.precision
@options.operators
def generate(
    checkpoint: Path,
    prompt: str,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    seed: int,
    allow_unk: bool,
    as_json: bool,
    device: str,
    precision: str,
    operators: str,
) -> None:
    """Continue PROMPT with a checkpoint; each text ends at </s>.

    CHECKPOINT is its folder, the run's (its newest one), or RUN/best (of the lowest held-out loss).
    Several texts of which one has a line break are separated by a rule. Notes on stderr say what of the prompt the
    network does not read as it is written. --json has prompt, texts and notes.

    \b
    Example: kogpt2 generate runs/demo "오늘 날씨는" --top-k 40 -n 3        (prompt: "today's weather is")
    """
    from kogpt2_gluon.machine import runtime

    runtime.wait_briefly()  # before the next line loads MXNet
    from kogpt2_gluon.inference.generation import generate_from_checkpoint
    from kogpt2_gluon.inference.sampling import Sampling

    sampling = Sampling(max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed, allow_unk)
    notes: list[str] = []

    def say(note: str) -> None:
        notes.append(note)
        click.echo(f"kogpt2: note: {note}", err=True)

    texts = generate_from_checkpoint(checkpoint, prompt, sampling, num_samples, device, precision, operators, say)
    if as_json:
        echo_json({"prompt": prompt, "texts": texts, "notes": notes})
        return
    has_lines = any("\n" in text for text in texts)
    for number, text in enumerate(texts, start=1):
        if has_lines and len(texts) > 1:
            click.echo(f"{RULE} {number} of {len(texts)} {RULE}")
        click.echo(text)
