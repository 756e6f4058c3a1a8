"""A target: a format that comes from outside, with harmless files of it, and what this package does with such files."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.mutate import mutate_bytes

Mutator = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """A format and its reader.

    Attributes
    ----------
    name : str
    file : str
        The name that an input has in the folder of the target.
    seeds : callable
        Makes harmless inputs, small and always the same. It gets a folder for its own use.
    read : callable
        Reads the file at a path as the package does, down to its content. It may raise errors for users, no others.
    mutate : callable
        Makes a new input of one, with knowledge of the format.
    place : callable, optional
        Writes what else must lie next to an input, such as a manifest that fits it. It gets path and input.
    share : int
        How many of the executions of a long run this target gets, in relation to the others: slow ones get fewer.
    """

    name: str
    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    mutate: Mutator = mutate_bytes
    place: Callable[[Path, bytes], None] | None = None
    share: int = 10
