"""The options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)

device = click.option(
    "--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]), help="Where to compute."
)
precision = click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Format of the factors in matrix products.",
)
operators = click.option(
    "--ops",
    "operators",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fused", "stock"]),
    help="The project's fused operators, or MXNet's own.",
)
json_output = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
