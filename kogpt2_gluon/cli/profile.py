"""The verb `kogpt2 profile`: where a training step of a recipe spends its time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kogpt2_gluon.cli.options import json_output
from kogpt2_gluon.cli.paths import FOLDER


@click.command(no_args_is_help=True)
@click.argument("recipe")
@click.argument("overrides", nargs=-1)
@click.option("--steps", default=5, show_default=True, type=click.IntRange(min=1), help="Steps of each pass.")
@click.option("--warmup", default=3, show_default=True, type=click.IntRange(min=1), help="Steps before the passes.")
@click.option(
    "--out",
    type=FOLDER,
    help="Folder for trace.json.  [default: RUN_DIR/profile]",
)
@click.option("--synthetic", is_flag=True, help="Read random tokens in place of the recipe's data.")
@json_output
def profile(
    recipe: str, overrides: tuple[str, ...], steps: int, warmup: int, out: Path | None, synthetic: bool, as_json: bool
) -> None:
    """Show where a training step spends its time: phases and operators as a table, and a trace file.

    It runs real steps on new weights: as in training, then with their phases apart, then under MXNet's profiler with
    the operators one by one. Checkpoints and the record of a run are not touched. trace.json goes to the folder profile
    in the recipe's run folder, or to --out; it opens in https://ui.perfetto.dev or chrome://tracing. Under
    `horovodrun --gloo -np N` the figures are those of rank 0.

    \b
    Example: kogpt2 profile small_cpu --steps 10
             kogpt2 profile kogpt2_base --synthetic training.batch_size=2 training.total_batch_size=2
    """
    from kogpt2_gluon.machine import runtime
    from kogpt2_gluon.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    runtime.prepare(loaded.training.threads)
    from kogpt2_gluon.training.profile.passes import profile as run

    with _progress_line() as progress:
        found = run(loaded, steps, out or loaded.run_dir / "profile", synthetic, warmup, progress)
    if found is not None:
        click.echo(json.dumps(found.to_dict()) if as_json else "\n".join(found.lines()))


@contextmanager
def _progress_line() -> Iterator[Callable[[str, int, int], None]]:
    """Shows progress on stderr: on a terminal one line that changes, elsewhere one line for each finished pass."""
    live = sys.stderr.isatty()

    def progress(what: str, done: int, total: int) -> None:
        if live:
            click.echo(f"\r\x1b[K{what}: step {min(done + 1, total)} of {total}", nl=False, err=True)
        elif done == total:
            click.echo(f"{what}: {total} steps done", err=True)

    try:
        yield progress
    finally:
        if live:
            click.echo("\r\x1b[K", nl=False, err=True)
