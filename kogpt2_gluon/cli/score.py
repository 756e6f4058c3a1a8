"""The verb `kogpt2 score`: zero- and few-shot scores of a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.group import echo, echo_json
from kogpt2_gluon.cli.paths import ANY_PATH, FOLDER, check_folder_target
from kogpt2_gluon.machine.interrupts import interruptible

if TYPE_CHECKING:
    from kogpt2_gluon.tasks.in_context import InContextScores

SHOTS = "0,1,4,8"
TOO_LONG = ("refuse", "fewer-shots", "cut")


class Numbers(click.ParamType):
    """Whole numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
            self.fail(f"{value!r}: expected numbers with commas between them, such as {SHOTS}", param, ctx)
        return tuple(int(part) for part in parts)


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.option("--task", required=True, metavar="NAME|FILE.yaml", help="A public task, or your own; see docs/tasks.md.")
@click.option("--data", required=True, type=FOLDER, help="Folder of the task's files.")
@click.option("--shots", default=SHOTS, show_default=True, type=Numbers(), help="Solved rows in front of a question.")
@click.option("--draws", default=5, show_default=True, type=click.IntRange(1), help="How often shots are drawn.")
@click.option("--rows", default=0, show_default=True, type=click.IntRange(0), help="Rows, chosen at random; 0: all.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of rows and shots.")
@click.option(
    "--prompt", type=ANY_PATH, metavar="FILE.yaml", help="Your own words for the task; see docs/in_context.md."
)
@click.option(
    "--split", type=click.Choice(["test", "dev"]), help="Rows that are scored; default: test, if it is there."
)
@click.option(
    "--too-long",
    default=TOO_LONG[0],
    show_default=True,
    type=click.Choice(TOO_LONG),
    help="What is done with a prompt that does not fit: stop; leave out its first shots; cut its text too.",
)
@click.option("--export", type=FOLDER, help="Write the prompts there, as tasks for kogpt2 lm-eval.")
@options.json_output
@options.device
@options.precision
@options.operators
@interruptible()
def score(
    checkpoint: Path,
    task: str,
    data: Path,
    shots: tuple[int, ...],
    draws: int,
    rows: int,
    seed: int,
    prompt: Path | None,
    split: str | None,
    too_long: str,
    export: Path | None,
    as_json: bool,
    device: str,
    precision: str,
    operators: str,
) -> None:
    """Ask a checkpoint the questions of a task in words, after 0 or a few solved ones, without training it.

    The answer is the label whose word is the likeliest: as it is, per token, per byte, and against a neutral text
    in place of the row's. Shots are drawn from train, balanced; the mean over the draws is printed, and the standard
    deviation. Perplexity and bits per byte are those of the texts alone.

    \b
    Example: kogpt2 score runs/small_cpu --task nsmc --data data --shots 0,1,4 --rows 1000
    """
    from kogpt2_gluon.machine import runtime

    if export:
        check_folder_target("--export", export)
    runtime.wait_briefly()  # before the next line loads MXNet
    from kogpt2_gluon.tasks.in_context import InContextOptions, score_checkpoint

    def say(line: str) -> None:
        click.echo(f"kogpt2: {line}", err=True)

    wanted = InContextOptions(shots, draws, rows, seed, too_long)
    scores = score_checkpoint(
        checkpoint, task, data, wanted, prompt, split or "", device, precision, operators, export, say
    )
    if as_json:
        echo_json(scores.to_dict())
    else:
        echo(table(scores))


def table(scores: InContextScores) -> str:
    """Writes the scores as a table: a line for each number of shots and metric, a column for each way to choose."""
    from kogpt2_gluon.tasks.in_context import WAYS, summary

    lines = [
        f"{scores.task.name}: {scores.rows:,} rows; prompt: {scores.prompt.name}",
        f"texts alone: perplexity {scores.text.perplexity:.3f} per token, "
        f"{scores.text.bits_per_byte:.4f} bits per byte of the normalised text, UTF-8",
        f"{'shots':>5} {'draws':>5}  {'metric':<10}" + "".join(f"{way:>18}" for way in WAYS),
    ]
    for shots in scores.shots():
        for metric in scores.task.metrics:
            values = [scores.values(shots, way, metric) for way in WAYS]
            cells = "".join(f"{_cell(summary(each)):>18}" for each in values)
            lines.append(f"{shots:>5} {len(values[0]):>5}  {metric:<10}{cells}")
    return "\n".join([*lines, *_notes(scores)])


def _cell(found: dict[str, Any]) -> str:
    if found["mean"] is None:
        return "none"
    return f"{found['mean']:.4f}" + (f" +- {found['deviation']:.4f}" if found["deviation"] is not None else "")


def _notes(scores: InContextScores) -> list[str]:
    """Says, for each number of shots, of how many prompts something is to know."""
    meanings = {
        "fewer shots": "had fewer shots, since they did not fit",
        "cut": "had the end of a text cut off",
        "crossed": "had a piece across the border of prompt and answer",
        "tie": "had two answers that are equally likely: the first label was taken",
    }
    lines = []
    for shots in scores.shots():
        chosen = [each for each in scores.conditions if each.shots == shots]
        for name, meaning in meanings.items():
            if count := sum(each.notes[name] for each in chosen):
                lines.append(f"{shots} shots: {count:,} of {len(chosen) * scores.rows:,} prompts {meaning}")
    return lines
