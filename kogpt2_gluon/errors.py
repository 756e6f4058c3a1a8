"""Errors meant for a person: one clear line each, with the exit code that scripts can rely on.

The commands print ``COMMAND: ERROR`` and leave with ``error.exit_code`` (:func:`one_line`). Any other exception that
escapes is a bug and shows its traceback (exit code 1). Internal assumptions are checked with ``assert``, never with
these classes.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

INTERRUPTED = 130  # the exit code after Ctrl-C, as a shell has it: 128 + SIGINT
LONGEST_MESSAGE = 4000  # characters
# What a terminal obeys or hides, and half of a surrogate pair: names and values in a message come from files. Nor may
# they begin lines of their own; the lines of a list are indented.
_UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_END = re.compile(r"\n(?!  \S)")


class KoGPT2Error(Exception):
    """Base of every error that a user can cause and fix. The message names the thing, the place and the way out.

    As a text it is safe to show: control characters are written as escapes, and the middle of a very long one is left
    out, since a hostile file can put anything into it.
    """

    exit_code = 1

    def __str__(self) -> str:
        text = _LINE_END.sub(" ", super().__str__())
        text = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
        half = LONGEST_MESSAGE // 2
        return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]} ... {text[-half:]}"


class RecipeError(KoGPT2Error):
    """A bad recipe, option or argument."""

    exit_code = 2


class DataError(KoGPT2Error):
    """Missing, empty, damaged or mismatched data: text, tokenizer, shards or checkpoint."""

    exit_code = 3


class DamagedError(DataError):
    """A checkpoint is not what was written: a file of it is missing, cut or changed. An older one may be whole."""


class DivergedError(KoGPT2Error):
    """Training produced a loss or gradient that is not finite. Nothing bad was saved."""

    exit_code = 4


class CorruptionError(KoGPT2Error):
    """The workers of a run hold different parameters or moments. Nothing was saved since they last agreed."""

    exit_code = 5


class DiskFullError(KoGPT2Error):
    """A disk is full, or a quota is used up. What was finished before is kept."""


class OutOfMemoryError(KoGPT2Error):
    """Memory ran out, of the host or of a GPU. What was saved before is kept."""


class PreemptedError(KoGPT2Error):
    """The run was asked to stop early. Its state is saved, and the same command resumes it."""

    exit_code = 75


@contextlib.contextmanager
def one_line(command: str) -> Iterator[None]:
    """Turns an error that a user can fix into one line on stderr and an exit code; both commands run in it.

    That is a KoGPT2Error, Ctrl-C, and an OSError such as a full disk or a missing permission. A closed pipe passes,
    since click ends quietly at it.
    """
    try:
        yield
    except KoGPT2Error as error:
        text, code = str(error), error.exit_code
    except KeyboardInterrupt:
        text, code = "interrupted", INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        text, code = f"{error.filename or 'system'}: {error.strerror or error}", 1
    else:
        return
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more; the exit code must still arrive
        print(f"{command}: {text}", file=sys.stderr)
    sys.exit(code)
