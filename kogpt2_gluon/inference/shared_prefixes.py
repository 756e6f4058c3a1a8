"""Finds the beginnings that many prompts share, so that a network reads each of them once.

Prompts with the same examples in front share hundreds of tokens, and those of one task the words of its template. A
shared beginning pays if what it saves exceeds its own cost: a pass over it, and batches that hold fewer prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GROUP_COST = 64  # tokens that a group of its own costs, in addition to its prefix
MOST_LEVELS = 8  # how often a group is split: a task's words, a draw's examples, and a few to spare

Ids = NDArray[np.int32]


class Group(NamedTuple):
    """Prompts that share their first tokens.

    Attributes
    ----------
    prefix_length : int
        How many tokens they share: fewer than the shortest of them has.
    members : list of int
        Their places in the list that was given.
    """

    prefix_length: int
    members: list[int]


def group_by_prefix(prompts: Sequence[Ids]) -> list[Group]:
    """Groups prompts (each of one token or more) so that few tokens are read: every prompt is in one group.

    Two prompts can be the same.
    """
    if not prompts:
        return []
    keys = [prompt.astype(">u4").tobytes() for prompt in prompts]  # bytes sort as their numbers do
    order = sorted(range(len(prompts)), key=keys.__getitem__)
    return _Planner(prompts, order).best(0, len(order), MOST_LEVELS)[1]


class _Planner:
    """Chooses groups among prompts in the order of a dictionary, in which those that share a prefix are neighbours."""

    def __init__(self, prompts: Sequence[Ids], order: list[int]) -> None:
        self._prompts, self._order = prompts, order
        self._lengths = [len(prompts[place]) for place in order]

    def best(self, begin: int, end: int, levels: int) -> tuple[int, list[Group]]:
        """Returns the tokens that prompts `begin` to `end` cost in the cheapest groups found, and these groups."""
        shared = self._shared(begin, end)
        cost, groups, together = 0, [], []
        for first, last in self._branches(begin, end, shared) if levels else [(begin, end)]:
            rest = sum(self._lengths[first:last]) - shared * (last - first)
            # One prompt, or all of them again, gain nothing by a group of their own.
            if 1 < last - first < end - begin:
                apart, inner = self.best(first, last, levels - 1)
                if apart < rest:
                    cost += apart
                    groups += inner
                    continue
            cost += rest
            together += self._order[first:last]
        if together:
            cost += GROUP_COST + shared
            groups.append(Group(shared, together))
        return cost, groups

    def _shared(self, begin: int, end: int) -> int:
        """Returns how many tokens all of the prompts begin with, but for the last one of the shortest."""
        first, last = self._prompts[self._order[begin]], self._prompts[self._order[end - 1]]
        length = min(len(first), len(last))
        differ = np.flatnonzero(first[:length] != last[:length])
        return min(int(differ[0]) if differ.size else length, len(first) - 1)

    def _branches(self, begin: int, end: int, shared: int) -> list[tuple[int, int]]:
        """Cuts the range where the first token after the shared ones changes."""
        tokens = np.array([self._prompts[place][shared] for place in self._order[begin:end]])
        cuts = [begin, *(begin + 1 + np.flatnonzero(tokens[1:] != tokens[:-1])).tolist(), end]
        return list(zip(cuts, cuts[1:]))
