"""The log-probability of each token of a text, and the tokens that would have been likelier. V is `vocab_size`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.sampling import Choice
from kogpt2_gluon.inference.scoring import Likelihood
from kogpt2_gluon.inference.shared_prefixes import Ids
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Run, slots_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer

ROWS = 128  # of V logits at a time


class TokenScorer:
    """Scores the tokens of one text after another, with the weights that texts are written by.

    Parameters
    ----------
    net : GPT2Model
        Not hybridized, as :func:`~kogpt2_gluon.inference.loading.load_checkpoint` returns it.
    tokenizer : Tokenizer
        Probabilities are those among its tokens, of which a network may have more rows.
    ctx : mx.Context
        None: the CPU.
    weights, tuned
        As :func:`~kogpt2_gluon.model.slots.slots_for` takes them.
    """

    def __init__(
        self,
        net: GPT2Model,
        tokenizer: Tokenizer,
        ctx: Any = None,
        weights: str = "",
        tuned: Mapping[str, Any] | None = None,
    ) -> None:
        self._slots = slots_for(net, 1, net.max_length, ctx, weights, tuned)
        self._vocab_size = tokenizer.vocab_size

    def score(self, ids: Sequence[int], alternatives: int = 0, tuned: str = "") -> list[Choice]:
        """Returns one Choice for each id but the first, which nothing precedes but the tuned prompt of this name.

        DataError if there are more ids than positions, the last id not counted, or if the network computes something
        that is not a number.
        """
        self._check_room(len(ids), tuned)
        if len(ids) < 2:
            return []
        try:
            self._slots.begin(0, tuned)
            hidden = self._slots.hidden([Run(0, ids[:-1])])[0]
        finally:
            self._slots.clear(0)
        return self._choices(hidden, ids[1:], alternatives)

    def likelihoods(self, context: Ids, continuations: Sequence[Ids], tuned: str = "") -> list[Likelihood]:
        """Returns how likely each continuation is after a context, which is read once.

        The other arguments and errors are those of a scoring Request and of :meth:`score`.
        """
        self._check_room(len(context) + max(map(len, continuations), default=0), tuned)
        found = []
        try:
            self._slots.begin(0, tuned)
            last = self._slots.hidden([Run(0, context.tolist())])[0][-1:]
            read = self._slots.lengths[0]
            for continuation in continuations:
                tokens = continuation.tolist()
                hidden = last
                if len(tokens) > 1:
                    hidden = np.concatenate([last, self._slots.hidden([Run(0, tokens[:-1])])[0]])
                    self._slots.truncate(0, read)
                choices = self._choices(hidden, tokens, 1)
                is_greedy = all(choice.alternatives[0][0] == choice.token for choice in choices)
                found.append(Likelihood(sum(each.log_probability for each in choices), is_greedy, len(choices)))
        finally:
            self._slots.clear(0)
        return found

    def _check_room(self, tokens: int, tuned: str) -> None:
        if tokens - 1 > self._slots.room(tuned):
            raise DataError(f"{tokens:,} tokens: the network has {self._slots.room(tuned):,} positions")

    def _choices(self, hidden: NDArray[np.float32], tokens: Sequence[int], alternatives: int) -> list[Choice]:
        """Returns a Choice for each token, given the hidden states (R, C) before them."""
        choices: list[Choice] = []
        for begin in range(0, len(hidden), ROWS):
            logits = self._slots.logits(hidden[begin : begin + ROWS])[:, : self._vocab_size]
            choices += _choices(logits, tokens[begin : begin + len(logits)], alternatives)
        return choices


def _choices(logits: NDArray[np.float32], tokens: Sequence[int], alternatives: int) -> list[Choice]:
    own = logits.astype(np.float64)
    own -= own.max(axis=1, keepdims=True)
    own -= np.log(np.exp(own).sum(axis=1, keepdims=True))
    if not np.isfinite(own).all():
        raise DataError("the network computes numbers that are not finite: its parameters are damaged")
    choices = []
    for row, token in zip(own, tokens):
        listed = np.argsort(-row, kind="stable")[:alternatives].tolist() if alternatives else []
        choices.append(Choice(token, float(row[token]), [(each, float(row[each])) for each in listed]))
    return choices
