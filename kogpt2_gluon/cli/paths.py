"""Paths on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class HomePath(click.Path):
    """A path in which a leading ~ is a home: a shell expands it in `--out ~/x`, but not in `--out=~/x`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.startswith("~"):
            from kogpt2_gluon.options import expand_home  # --help does not read YAML

            try:
                value = expand_home(value)
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


FOLDER = HomePath(file_okay=False, path_type=Path)
ANY_PATH = HomePath(path_type=Path)
