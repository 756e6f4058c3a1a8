"""Caches for several texts that grow at the same time, each with a length of its own: what continuous batching needs.

A slot holds the keys and values of one text. A pass reads the next tokens of any of them, a whole prompt or one token,
and returns the hidden states or the logits that follow. R is the number of runs, C `units`, V `vocab_size`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.decoding import FusedWeights, weights_for
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.prompt import own_prompt

FEW_ROWS = 32  # that kogpt2_decode_linear multiplies independently of each other

Floats = NDArray[np.float32]


class Run(NamedTuple):
    """The next tokens of a text.

    Attributes
    ----------
    slot : int
        Where its cache is.
    tokens : sequence of int
        One or more; they follow the `lengths[slot]` tokens that the slot has already.
    """

    slot: int
    tokens: Sequence[int]


class _Past(NamedTuple):
    """Where the states of a slot are: in row `row` of arrays that it may share with other slots."""

    arrays: list[Any]
    row: int

    def alone(self) -> list[Any]:
        if self.arrays[0].shape[0] == 1:
            return self.arrays
        return [each.slice_axis(axis=0, begin=self.row, end=self.row + 1) for each in self.arrays]


class Slots:
    """Slots for any network, over its own `states`.

    Runs of as many tokens after as many tokens are read together. Logits are those of the text alone, but for rounding.

    Parameters
    ----------
    net : GPT2Model
        Initialized and not hybridized.
    num_slots : int
        The most texts at once.
    capacity : int
        The most tokens of a text, prompt included; at most `net.max_length`.
    ctx : mx.Context or None
        None: the CPU.
    tuned : mapping of str to NDArray, optional
        Tuned prompts by their names, vectors (P, C) each (model/prompt.py). Their keys and values are computed here, in
        slots of their own, and are the past of every text that begins after them. Texts begin after the one whose name
        is "", if there is one, unless :meth:`begin` names another.

    Attributes
    ----------
    lengths : list of int
        The vectors and tokens that each slot has read; the last ones are those of `tuned`.
    """

    def __init__(
        self,
        net: GPT2Model,
        num_slots: int,
        capacity: int,
        ctx: Any = None,
        tuned: Mapping[str, Any] | None = None,
    ) -> None:
        self._net, self._ctx = net, ctx or mx.cpu()
        self._vocab_size = net._embed.weight.shape[0]
        count = self._lay_out(num_slots, capacity, net._pos_embed.weight.shape[0], tuned or {})
        self._states: list[_Past | None] = [None] * count
        self._read_tuned(tuned or {})

    def _lay_out(self, num_slots: int, capacity: int, positions: int, tuned: Mapping[str, Any]) -> int:
        """Says what each slot is for; returns how many there are, those of tuned prompts included."""
        self._tuned_lengths = {"": 0, **{name: len(vectors) for name, vectors in tuned.items()}}
        assert capacity <= positions - self._tuned_lengths[""]
        self.num_slots, self.capacity = num_slots, capacity
        self._places = min(positions, capacity + max(self._tuned_lengths.values()))
        self._tuned_slots = {name: num_slots + number for number, name in enumerate(tuned)}
        self.lengths = [0] * (num_slots + len(tuned))
        return len(self.lengths)

    def _read_tuned(self, tuned: Mapping[str, Any]) -> None:
        """Reads the vectors of each tuned prompt into its slot, and makes all others ready."""
        for name, vectors in tuned.items():
            self._read_vectors(self._tuned_slots[name], vectors)
            self.lengths[self._tuned_slots[name]] = len(vectors)
        for slot in range(self.num_slots if tuned else 0):
            self.clear(slot)

    def _read_vectors(self, slot: int, vectors: Any) -> None:
        """Reads vectors (P, C) into an empty slot, in the place of tokens' embeddings."""
        net, dtype = self._net, self._net._embed.weight.dtype
        data = vectors.as_in_context(self._ctx).astype(dtype).expand_dims(0)
        embedded = net.ops.vectors_embedding(mx.nd, data, net._pos_embed)
        self._states[slot] = _Past(net.layers(mx.nd, embedded, net.ops.dropout_seed(mx.nd))[1], 0)

    @property
    def are_ready(self) -> bool:
        """True if no slot has read a token."""
        return all(length == self._tuned_lengths[""] for length in self.lengths[: self.num_slots])

    def room(self, tuned: str = "") -> int:
        """Returns the most tokens of a text that begins after a tuned prompt."""
        return min(self.capacity, self._places - self._tuned_lengths[tuned])

    def tuned_length(self, tuned: str = "") -> int:
        """Returns how many vectors a tuned prompt has; 0 for "" if there is none of this name."""
        return self._tuned_lengths[tuned]

    def begin(self, slot: int, tuned: str = "") -> None:
        """Makes a slot ready for a text after the tuned prompt of this name: its keys and values are the text's past.

        "": after none, if there is no prompt of this name.
        """
        self._empty(slot)
        if self._tuned_lengths[tuned]:
            self.copy(self._tuned_slots[tuned], slot)

    def clear(self, slot: int) -> None:
        """Makes a slot ready for another text."""
        self.begin(slot)

    def next_logits(self, runs: Sequence[Run]) -> Floats:
        """Reads each run into its slot, each slot at most once; returns the logits (R, V) that follow."""
        return self.logits(self.next_hidden(runs))

    def next_hidden(self, runs: Sequence[Run]) -> Floats:
        """Reads each run; returns the last layer's hidden state (R, C) of each run's last token.

        Hidden states are what the output projection takes: the final LayerNorm comes before.
        """
        return np.stack([run[-1] for run in self.hidden(runs)])

    def hidden(self, runs: Sequence[Run]) -> list[Floats]:
        """Reads each run; returns for each the last layer's hidden states (len(tokens), C) of all its tokens.

        ValueError, and nothing is read, for a run that has no tokens, unknown tokens or more than its slot has room
        for, and for two runs of one slot.
        """
        self._check(runs)
        found: dict[int, Floats] = {}
        for (length, _), group in self._groups(runs).items():
            data = mx.nd.array([list(tokens) for _, tokens in group], ctx=self._ctx, dtype="int32")
            states = self._joined([slot for slot, _ in group]) if length else None
            hidden, new = self._net.hidden_states(mx.nd, data, states)
            for row, (each, (slot, tokens)) in enumerate(zip(hidden.astype("float32").asnumpy(), group)):
                self._states[slot], found[slot] = _Past(new, row), each
                self.lengths[slot] += len(tokens)
        return [found[slot] for slot, _ in runs]

    def logits(self, hidden: Floats) -> Floats:
        """The logits (R, V) that hidden states (R, C) give."""
        data = mx.nd.array(hidden, ctx=self._ctx, dtype=self._net._embed.weight.dtype)
        logits = self._net.ops.logits(mx.nd, data, self._net._logits_proj)
        values: Floats = logits.astype("float32").asnumpy()
        return values

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Makes the text of a slot that of another, too, for samples and beams that begin alike.

        `length`: only its first tokens, at most as many as it has; None: all of it.
        """
        self.rearrange({target: source})
        if length is not None:
            self.truncate(target, length)

    def rearrange(self, sources: Mapping[int, int]) -> None:
        """Gives each slot of `sources` the text that another has now, all at once: {target: source}, as beams need."""
        taken = {target: (self._states[source], self.lengths[source]) for target, source in sources.items()}
        for target, (states, length) in taken.items():
            self._states[target], self.lengths[target] = states, length

    def truncate(self, slot: int, length: int) -> None:
        """Keeps only the first `length` tokens of a text; it has as many or more."""
        assert 0 <= length <= self.lengths[slot], (length, self.lengths[slot])
        past = self._states[slot]
        if past is not None and length < self.lengths[slot]:
            arrays = [each.slice_axis(axis=2, begin=0, end=length) for each in past.alone()] if length else None
            self._states[slot] = _Past(arrays, 0) if arrays else None
        self.lengths[slot] = length

    def _empty(self, slot: int) -> None:
        self._states[slot], self.lengths[slot] = None, 0

    def _check(self, runs: Sequence[Run]) -> None:
        """ValueError unless all runs can be read."""
        if len({slot for slot, _ in runs}) < len(runs):
            raise ValueError("two runs of one slot")
        for slot, tokens in runs:
            if not 0 <= slot < self.num_slots:
                raise ValueError(f"there is no slot {slot}")
            if not len(tokens):
                raise ValueError(f"a run of slot {slot} without tokens")
            if self.lengths[slot] + len(tokens) > self._places:
                raise ValueError(
                    f"slot {slot} has {self.lengths[slot]:,} tokens and room for {self._places:,}: "
                    f"{len(tokens):,} more do not fit"
                )
            if min(tokens) < 0 or max(tokens) >= self._vocab_size:
                raise ValueError(f"a token for slot {slot} is outside of 0 .. {self._vocab_size - 1:,}")

    def _groups(self, runs: Sequence[Run]) -> dict[tuple[int, int], list[Run]]:
        """The runs by how many tokens their slots have and how many they add."""
        groups: dict[tuple[int, int], list[Run]] = {}
        for run in runs:
            groups.setdefault((self.lengths[run.slot], len(run.tokens)), []).append(run)
        return groups

    def _joined(self, slots: Sequence[int]) -> list[Any]:
        """The states of slots of one length, as one batch: without copies if the slots have just been one."""
        pasts = [past for slot in slots if (past := self._states[slot]) is not None]
        first = pasts[0].arrays
        in_order = all(past.arrays is first and past.row == row for row, past in enumerate(pasts))
        if in_order and first[0].shape[0] == len(pasts):
            return first
        return [mx.nd.concat(*parts, dim=0) for parts in zip(*(past.alone() for past in pasts))]


class FusedSlots(Slots):
    """Slots over the fused CPU operators: all runs go through a layer at once, and caches are written in place.

    What a run gives is the same to the last bit whatever else is in the pass, and whatever number its slot has: greedy
    texts are the same ids as if they were written alone. Short runs are multiplied together, by a kernel whose sums do
    not depend on the number of rows (ops/src/cpu/few_rows.h); it is the fastest up to 32 rows, on AMD in bfloat16 128.
    Each longer run is a product of its own, by oneDNN. So a text that is read in other pieces differs by rounding.

    Caches are bfloat16 if the operators' precision is that, and else float32. They take memory as texts grow: 32 slots
    of 1,024 tokens in KoGPT-2 base, 2.4 GB in float32, take next to nothing at first. What a slot has once filled stays
    in memory.

    Parameters
    ----------
    weights : FusedWeights
    num_slots, capacity, tuned
        As in :class:`Slots`.
    """

    def __init__(
        self, weights: FusedWeights, num_slots: int, capacity: int, tuned: Mapping[str, Any] | None = None
    ) -> None:
        self._weights, self._matrices = weights, weights.matrices()
        self._vocab_size = weights.embed.shape[0]
        count = self._lay_out(num_slots, capacity, weights.pos_embed.shape[0], tuned or {})
        self._caches = weights.caches(count, self._places)
        # Each token that is read has a number of its own, and its copies in other slots have the same one.
        self._origins: NDArray[np.int64] = np.zeros((count, self._places), np.int64)
        self._num_read = 0
        self._read_tuned(tuned or {})

    def _read_vectors(self, slot: int, vectors: Any) -> None:
        """Reads vectors (P, C) into an empty slot, as a run of tokens whose embedding they are."""
        count = len(vectors)
        tokens, vectors = mx.nd.arange(count, dtype="int32"), vectors.as_in_context(mx.cpu()).astype("float32")
        runs = self._numbered([(slot, 0, count)])
        self._weights.read(self._matrices, self._caches, tokens, runs, True, vectors).wait_to_read()

    def next_logits(self, runs: Sequence[Run]) -> Floats:
        """Reads each run into its slot, each slot at most once; returns the logits (R, V) that follow."""
        self._check(runs)
        order, hidden = self._read(runs, last_only=True)
        logits: Floats = self._project(hidden)
        return logits if order == sorted(order) else logits[np.argsort(order)]

    def next_hidden(self, runs: Sequence[Run]) -> Floats:
        """Reads each run; returns the last layer's hidden state (R, C) of each run's last token."""
        self._check(runs)
        order, hidden = self._read(runs, last_only=True)
        states: Floats = hidden.asnumpy()
        return states[np.argsort(order)]

    def hidden(self, runs: Sequence[Run]) -> list[Floats]:
        """Reads each run; returns for each the last layer's hidden states (len(tokens), C) of all its tokens.

        Those of the last token differ from `next_hidden`'s by rounding if the run is long.
        """
        self._check(runs)
        order, hidden = self._read(runs, last_only=False)
        ends = np.cumsum([len(runs[place].tokens) for place in order])
        parts = np.split(hidden.asnumpy(), ends[:-1])
        return [parts[place] for place in np.argsort(order)]

    def logits(self, hidden: Floats) -> Floats:
        """The logits (R, V) that hidden states (R, C) give."""
        return self._project(mx.nd.array(hidden))

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Makes the text of a slot that of another, too, for samples and beams that begin alike.

        `length`: only its first tokens, at most as many as it has; None: all of it.
        """
        self._copy([(source, target, self.lengths[source] if length is None else length)])

    def rearrange(self, sources: Mapping[int, int]) -> None:
        """Gives each slot of `sources` the text that another has now, all at once: {target: source}, as beams need.

        Only tokens that the two texts do not share are copied: the beginning that beams have in common stays.
        """
        self._copy([(source, target, self.lengths[source]) for target, source in sources.items()])

    def truncate(self, slot: int, length: int) -> None:
        """Keeps only the first `length` tokens of a text; it has as many or more."""
        assert 0 <= length <= self.lengths[slot], (length, self.lengths[slot])
        self.lengths[slot] = length

    def _empty(self, slot: int) -> None:
        self.lengths[slot] = 0

    def _numbered(self, runs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """Gives the tokens of runs (slot, position, count) numbers; returns the runs.

        Call it before the pass: if that fails, these places have lost what they had.
        """
        for slot, begin, count in runs:
            self._origins[slot, begin : begin + count] = np.arange(self._num_read, self._num_read + count) + 1
            self._num_read += count
        return runs

    def _read(self, runs: Sequence[Run], last_only: bool) -> tuple[list[int], Any]:
        """Sends runs through the network, short ones first, so that they are one product.

        Returns their order, and hidden states (M, C) of all M tokens or (R, C) of the last ones, on the CPU.
        """
        order = sorted(range(len(runs)), key=lambda place: len(runs[place].tokens))
        asked = [(runs[place].slot, self.lengths[runs[place].slot], len(runs[place].tokens)) for place in order]
        listed = self._numbered(asked)
        tokens = mx.nd.array(np.concatenate([runs[place].tokens for place in order]), dtype="int32")
        hidden = self._weights.read(self._matrices, self._caches, tokens, listed, last_only)
        hidden.wait_to_read()  # an error of the operators shows here, before a slot's text counts as longer
        for slot, begin, count in listed:
            self.lengths[slot] = begin + count
        return order, hidden

    def _project(self, hidden: Any) -> Floats:
        """Logits (R, V) of hidden states (R, C), by parts of few rows, so that no row depends on the others."""
        parts = [hidden[begin : begin + FEW_ROWS] for begin in range(0, hidden.shape[0], FEW_ROWS)]
        logits = [mx.nd.kogpt2_decode_linear(part, *self._matrices.logits_proj) for part in parts]
        values: Floats = np.concatenate([part.asnumpy() for part in logits]) if len(logits) > 1 else logits[0].asnumpy()
        return values

    def _copy(self, texts: Sequence[tuple[int, int, int]]) -> None:
        """Copies the first `length` tokens of each (source, target, length), all at once."""
        origins = [self._origins[source, :length].copy() for source, _, length in texts]
        moves = []
        for (source, target, length), origin in zip(texts, origins):
            differ = np.flatnonzero(self._origins[target, :length] != origin)
            if differ.size:
                moves.append((source, target, int(differ[0]), length))
        if moves:
            arrays = [each for cache in self._caches for each in cache]
            moved = mx.nd.array(np.array(moves), dtype="int32")
            mx.nd.kogpt2_copy_slots(moved, *arrays, num_caches=len(arrays)).wait_to_read()
        for (_, target, length), origin in zip(texts, origins):
            self._origins[target, :length] = origin
            self.lengths[target] = length


def slots_for(
    net: GPT2Model,
    num_slots: int,
    capacity: int,
    ctx: Any = None,
    weights: str | FusedWeights = "",
    tuned: Mapping[str, Any] | None = None,
) -> Slots:
    """The fastest slots for the operators of a network.

    `weights`: those that several decoders share, or the name of a form (:class:`~.decoding.FusedWeights`). RecipeError
    for a form that the operators do not have. `tuned` are prompts besides the network's own one, if it has one.
    """
    made = weights_for(net, weights) if isinstance(weights, str) else weights
    own = own_prompt(net)
    every = {**({} if own is None else {"": own}), **(tuned or {})}
    return FusedSlots(made, num_slots, capacity, every) if made else Slots(net, num_slots, capacity, ctx, every)
