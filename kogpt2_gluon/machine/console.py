"""Lines for a console that may have gone: a closed pipe (`| head`), a dropped ssh session."""

from __future__ import annotations

import contextlib
import os
from typing import IO


def write_line(stream: IO[str], line: str) -> None:
    """Writes a line. A letter that the stream's encoding lacks becomes ?, and it is not an error if nobody reads."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(line.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError):
        forget(stream)


def forget(stream: IO[str]) -> None:
    """Points a stream that nobody reads to nowhere; what is still buffered would make Python fail again at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
