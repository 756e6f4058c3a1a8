"""Errors meant for a person: one clear line each, with the exit code that scripts can rely on.

The command line prints ``str(error)`` and leaves with ``error.exit_code``; anything else that escapes is a bug
and shows its traceback (exit code 1). Internal assumptions are checked with ``assert``, never with these.
"""


class KoGPT2Error(Exception):
    """Base of every error a user can cause and mend. The message names the thing, the place and the way out."""

    exit_code = 1


class RecipeError(KoGPT2Error):
    """A bad recipe, option or argument."""

    exit_code = 2


class DataError(KoGPT2Error):
    """Missing, empty, damaged or mismatched data: text, tokenizer, shards or checkpoint."""

    exit_code = 3


class DivergedError(KoGPT2Error):
    """Training produced a loss or gradient that is not finite; nothing bad was saved."""

    exit_code = 4


class PreemptedError(KoGPT2Error):
    """The run was asked to stop early, its state is saved, and the same command goes on from there."""

    exit_code = 75
