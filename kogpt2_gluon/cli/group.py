"""The group of verbs that both commands are, and what all verbs print."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

import click


class Group(click.Group):
    """Lists its verbs in the order in which a user needs them, which is that of their definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names in the order of definition, not in that of the alphabet."""
        return list(self.commands)

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Runs the command. A character that the console's encoding lacks is printed as ?."""
        _print_anything()
        return super().main(*arguments, **options)


def echo(text: str) -> None:
    """Prints results, as click does; an OSError says that it is about standard output."""
    with stdout_named():
        click.echo(text)


@contextlib.contextmanager
def stdout_named() -> Iterator[None]:
    """Puts a name into the OSError of a write to standard output, for one_line: the disk of its file may be full."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or "standard output"
        raise


def echo_json(data: Any, indent: int | None = None) -> None:
    """Prints data as JSON, or a text that is JSON already.

    Programs read it, so a character that the encoding of stdout lacks is escaped, not replaced, and a number that is
    not finite is null: JSON has no other word for it.
    """
    text = data.rstrip("\n") if isinstance(data, str) else to_json(data, indent)
    echo(text if _is_utf(sys.stdout.encoding) else re.sub(r"[^\0-\x7f]", _escape, text))


def to_json(data: Any, indent: int | None = None) -> str:
    """Writes data as JSON; a number that is not finite becomes null, and what JSON cannot have its text."""
    return json.dumps(_finite(data), ensure_ascii=False, indent=indent, default=str, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(each) for key, each in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(each) for each in data]
    if getattr(data, "ndim", None) == 0:  # a number of NumPy's
        data = data.item()
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _is_utf(encoding: str | None) -> bool:
    return (encoding or "utf-8").lower().replace("_", "-").startswith("utf-8")


def _print_anything() -> None:
    stream = sys.stdout
    if getattr(stream, "errors", None) == "strict" or not _is_utf(getattr(stream, "encoding", None)):
        with contextlib.suppress(AttributeError, ValueError):  # not a text stream of Python's own, or a closed one
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
