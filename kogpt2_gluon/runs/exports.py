"""The figures and plots of runs as files of their own: CSV, SVG, PNG."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.pages.standalone import standalone
from kogpt2_gluon.runs.logbook import read_logbook
from kogpt2_gluon.runs.report_plots import plots_of
from kogpt2_gluon.runs.run_folder import RunFolder
from kogpt2_gluon.storage.files import write_file

FOLDER = "report"  # in the run folder
SCALE = 2  # pixels of a PNG for each unit of its SVG


def write_csv(runs: Sequence[RunFolder], names: Sequence[str], path: Path) -> Path:
    """Writes every record of training and evaluation, one row each with the run's name first; returns the path."""
    lines = [(name, line) for name, run in zip(names, runs) for line in run.lines if line["kind"] != "change"]
    keys = list(dict.fromkeys(key for _, line in lines for key in line))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", *keys])
    writer.writerows([name, *(_cell(line, key) for key in keys)] for name, line in lines)
    write_file(path, file.getvalue().encode("utf-8", "replace"))
    return path


def _cell(line: Mapping[str, Any], key: str) -> Any:
    value = line.get(key)
    return value if isinstance(value, (int, float, str)) else ""


def write_pictures(run: RunFolder, kind: str) -> list[Path]:
    """Writes each plot of a run's report as RUN/report/TITLE.svg or .png; returns the paths.

    RecipeError for PNG if the package that draws it is not installed.
    """
    train = [line for line in run.lines if line["kind"] == "train"]
    plots = plots_of(train, run.evaluations, run.recipe.to_dict(), read_logbook(run.path))
    folder, paths = run.path / FOLDER, []
    folder.mkdir(exist_ok=True)
    for plot in plots:
        if plot.svg:
            path = folder / f"{re.sub(r'[^a-z0-9]+', '-', plot.title.lower()).strip('-')}.{kind}"
            svg = standalone(plot.svg)
            write_file(path, svg.encode() if kind == "svg" else to_png(svg))
            paths.append(path)
    return paths


def to_png(svg: str) -> bytes:
    """Returns an SVG as the bytes of a PNG. RecipeError if resvg is not installed."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise RecipeError(
            f"PNG needs resvg ({error}): pip install 'kogpt2-gluon[pictures]'; SVG needs nothing"
        ) from None
    return bytes(svg_to_bytes(svg_string=svg, zoom=SCALE))
