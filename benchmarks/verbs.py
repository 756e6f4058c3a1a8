"""Runs the verbs of `kogpt2` as processes, for benchmarks that chain several."""

from __future__ import annotations

import subprocess
import sys

from kogpt2_gluon.errors import RecipeError


def kogpt2(*arguments: object, is_shown: bool = False) -> str:
    """Runs a verb; returns what it prints. RecipeError, with its own words, if it fails.

    `is_shown`: what it prints goes to standard error while it runs, for one that takes long, and "" is returned.
    """
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", *map(str, arguments)]
    output = sys.stderr if is_shown else subprocess.PIPE
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RecipeError(f"kogpt2 {arguments[0]} ended with exit code {done.returncode}: {words[0]}")
    return done.stdout or ""
