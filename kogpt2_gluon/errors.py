"""Errors meant for a person: one clear line each, with the exit code that scripts can rely on.

The commands print ``COMMAND: ERROR`` and leave with ``error.exit_code`` (:func:`one_line`). Any other exception that
escapes is a bug and shows its traceback (exit code 1). Internal assumptions are checked with ``assert``, never with
these classes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

INTERRUPTED = 130  # the exit code after Ctrl-C, as a shell has it: 128 + SIGINT


class KoGPT2Error(Exception):
    """Base of every error that a user can cause and fix. The message names the thing, the place and the way out."""

    exit_code = 1


class RecipeError(KoGPT2Error):
    """A bad recipe, option or argument."""

    exit_code = 2


class DataError(KoGPT2Error):
    """Missing, empty, damaged or mismatched data: text, tokenizer, shards or checkpoint."""

    exit_code = 3


class DivergedError(KoGPT2Error):
    """Training produced a loss or gradient that is not finite. Nothing bad was saved."""

    exit_code = 4


class DiskFullError(KoGPT2Error):
    """A disk is full, or a quota is used up. What was finished before is kept."""


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
