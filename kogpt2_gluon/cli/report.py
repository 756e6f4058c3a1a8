"""The verb `kogpt2 report`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.paths import ANY_PATH, FOLDER
from kogpt2_gluon.machine.interrupts import interruptible
from kogpt2_gluon.storage.s3_url import is_s3_url


@click.command(no_args_is_help=True)
@click.argument("paths", nargs=-1, required=True, metavar="RUN...", type=FOLDER)
@click.option(
    "--out",
    type=ANY_PATH,
    help="File of the page, or of the CSV; without it RUN/report.html, comparison.html or figures.csv.",
)
@click.option(
    "--format",
    "kind",
    default="html",
    show_default=True,
    type=click.Choice(["html", "svg", "png", "csv"]),
    help="A page; each plot as a file in RUN/report/; or all figures as rows.",
)
@click.option(
    "--dollars-per-hour",
    type=click.FloatRange(min=0),
    help="Of a run's machines together, for the axis of cost; without it by a price list, where the GPU is on it.",
)
@interruptible()
def report(paths: tuple[Path, ...], out: Path | None, kind: str, dollars_per_hour: float | None) -> None:
    """A run's folder -> RUN/report.html: its curves, recipe, samples and logbook on one page.

    Several runs -> one page with their curves over each other, by tokens, time, operations and cost, the settings and
    data in which they differ, and a note if not all of them compare. A folder of runs counts as the runs in it.

    \b
    Example: kogpt2 report runs/demo
             kogpt2 report runs/a runs/b --out comparison.html
             kogpt2 report runs/a runs/b --format csv --out figures.csv
    """
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.storage.disk import full_disk_named

    if kind in ("svg", "png") and (out or any(map(is_s3_url, paths))):
        raise RecipeError(
            f"--format {kind} writes RUN/report/, a folder of the run on this machine, and takes no --out"
        )
    if dollars_per_hour is not None and (kind != "html" or len(paths) == 1):
        raise RecipeError("--dollars-per-hour is for the axis of cost on a page of several runs; leave it out here")
    place = out.parent if out else paths[0] if paths[0].is_dir() else Path()
    with full_disk_named(place, lambda: "the page is not written; make room"):
        for path in _write(paths, out, kind, dollars_per_hour):
            click.echo(path)


def _write(paths: tuple[Path, ...], out: Path | None, kind: str, dollars_per_hour: float | None) -> list[Path]:
    from kogpt2_gluon.runs.comparison import write_comparison
    from kogpt2_gluon.runs.exports import write_csv, write_pictures
    from kogpt2_gluon.runs.metrics import read_metrics
    from kogpt2_gluon.runs.names import names_of
    from kogpt2_gluon.runs.remote import opened
    from kogpt2_gluon.runs.report import write_report

    if kind == "html" and len(paths) == 1 and _is_one_run(paths[0]):
        return [write_report(paths[0], out)]
    with opened(paths, lambda line: click.echo(f"kogpt2: {line}", err=True)) as runs:
        for run in runs:
            read_metrics(run.path)  # a damaged record is named, not left out
        if kind == "html" and len(runs) == 1:
            return [write_report(runs[0].path, out or Path("report.html") if is_s3_url(paths[0]) else out)]
        if kind == "html":
            prices = None if dollars_per_hour is None else [dollars_per_hour] * len(runs)
            return [write_comparison(runs, out or Path("comparison.html"), prices)]
        if kind == "csv":
            return [write_csv(runs, names_of(runs), out or Path("figures.csv"))]
        return [path for run in runs for path in write_pictures(run, kind)]


def _is_one_run(path: Path) -> bool:
    """Returns False for what must be opened first: an address in S3, or a folder that is not a run but holds runs."""
    from kogpt2_gluon.runs.run_folder import find_runs

    if is_s3_url(path):
        return False
    return any((path / name).exists() for name in ("metrics.jsonl", "recipe.yaml")) or not any(find_runs(path))
