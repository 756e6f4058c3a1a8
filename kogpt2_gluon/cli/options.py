"""The options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from kogpt2_gluon.corpus.encodings import AUTO, ENCODINGS

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
weights = click.option(
    "--weights",
    type=click.Choice(["float32", "bfloat16", "int8", "4bit", "3bit", "2bit", "1bit", "codes"]),
    help="How the network's matrices are kept; smaller ones are read faster. codes: the checkpoint's own, see convert "
    "--to codes. Default: as --precision says.",
)
encoding = click.option(
    "--encoding",
    default=AUTO,
    show_default=True,
    type=click.Choice([AUTO, *ENCODINGS]),
    help="Encoding of text; auto decides it for each file by its bytes.",
)
json_output = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def patterns(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --include and --exclude."""
    for name, words in (
        ("exclude", "Leave out files that fit"),
        ("include", "Read only files that fit, such as '*.txt'"),
    ):
        add = click.option(f"--{name}", multiple=True, metavar="PATTERN", help=f"{words}; repeatable.")
        command = add(command)
    return command
