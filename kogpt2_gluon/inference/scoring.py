"""The likelihood of texts that follow other texts, such as the answers to a question.

Prompts that begin alike are read once up to where they differ: the keys and values of their common beginning are
computed at batch size 1 and used by all of them. What is left of each prompt is padded on the right, next to others of
about its length; the network looks back only, so the padding changes nothing. Answers to one prompt share the prompt's
own keys and values. B is the batch size, T its length, L that of the common beginning, V `vocab_size`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.shared_prefixes import Group, Ids, group_by_prefix
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model

BATCH_TOKENS = 2048  # of one pass, padding included
# Keys and values of one pass, about: the operators hold them twice for a moment. More than FAST_BYTES are no faster (of
# 16 to 256 MiB, at 256 units), but a pass of fewer than FEW_TOKENS spends its time on reading the weights.
FAST_BYTES, STATE_BYTES = 32 << 20, 256 << 20
FEW_TOKENS = 256
LOGITS = 256  # rows of V at a time


class Request(NamedTuple):
    """Token ids of which the second follow the first.

    Attributes
    ----------
    context : (at least 1,) int32
        Begins with ``<s>``, unless it is a later part of a long text.
    continuation : (at least 1,) int32
    """

    context: Ids
    continuation: Ids


class Likelihood(NamedTuple):
    """How likely a continuation is.

    Attributes
    ----------
    log_likelihood : float
        Natural logarithm, summed over the tokens.
    is_greedy : bool
        True if each token is the likeliest one at its place.
    tokens : int
        Of the continuation.
    """

    log_likelihood: float
    is_greedy: bool
    tokens: int


@dataclass
class _Answer:
    """A continuation of a prompt, its places in the list of requests, and what has been found so far."""

    ids: Ids
    places: list[int]
    log_likelihood: float = 0.0
    is_greedy: bool = True

    def likelihood(self) -> Likelihood:
        return Likelihood(self.log_likelihood, self.is_greedy, len(self.ids))


@dataclass
class _Prompt:
    """A context and its different continuations."""

    context: Ids
    _answers: dict[bytes, _Answer] = field(default_factory=dict)

    def add(self, ids: Ids, place: int) -> None:
        """Adds a request for this context."""
        self._answers.setdefault(ids.tobytes(), _Answer(ids, [])).places.append(place)

    @cached_property
    def answers(self) -> list[_Answer]:
        """The continuations, the longest one first; no more are added."""
        return sorted(self._answers.values(), key=lambda answer: -len(answer.ids))

    def inputs(self) -> Ids:
        """Returns what is read first: the context and its longest answer, without the last token, only predicted."""
        return np.concatenate([self.context, self.answers[0].ids[:-1]])

    def is_read(self, answer: _Answer) -> bool:
        """Returns True for an answer whose tokens but the last are among the inputs."""
        return np.array_equal(self.answers[0].ids[: len(answer.ids) - 1], answer.ids[:-1])


class Scorer:
    """Scores continuations with a network.

    Parameters
    ----------
    net : GPT2Model
        Not hybridized, as :func:`~kogpt2_gluon.inference.loading.load_checkpoint` returns it.
    ctx : mx.Context
        None: the CPU.
    share : bool
        False: every request is read whole, which is slower and gives the same likelihoods but for rounding.
    """

    def __init__(self, net: GPT2Model, ctx: Any = None, share: bool = True) -> None:
        self._net, self._ctx, self._share = net, ctx or mx.cpu(), share
        self.max_length: int = net.max_length
        self.tokens_read = 0  # by the network so far, padding included

    def log_likelihoods(
        self, requests: Sequence[Request], progress: Callable[[int], None] = lambda count: None
    ) -> list[Likelihood]:
        """Returns the likelihood of each request, in their order.

        `progress` is called with the number of requests that were scored since the last call. DataError if a request
        does not fit the network, which needs a position for each token but the last, or if the network computes
        something that is not a number.
        """
        for request in requests:
            _check(request, self.max_length)
        prompts = _prompts(requests, self._share)
        found: dict[int, Likelihood] = {}
        for shared, members in self._groups(prompts):
            for batch in self._score_group([prompts[member] for member in members], shared):
                answers = [answer for prompt in batch for answer in prompt.answers]
                found.update((place, answer.likelihood()) for answer in answers for place in answer.places)
                progress(sum(len(answer.places) for answer in answers))
        return [found[place] for place in range(len(requests))]

    def _groups(self, prompts: Sequence[_Prompt]) -> list[Group]:
        if self._share:
            return group_by_prefix([prompt.context for prompt in prompts])
        return [Group(0, list(range(len(prompts))))]

    # ---- batches ---------------------------------------------------------------------------------------------------

    def _score_group(self, prompts: Sequence[_Prompt], shared: int) -> Iterator[list[_Prompt]]:
        """Scores prompts that share their first tokens; yields them batch by batch, all of their answers scored."""
        prefix = _Repeated(self._read(prompts[0].context[None, :shared])[1] if shared else [])
        texts = [prompt.inputs()[shared:] for prompt in prompts]
        for batch in self._batches([len(text) for text in texts], shared):
            chosen = [prompts[member] for member in batch]
            tokens = _padded([texts[member] for member in batch])
            hidden, states = self._read(tokens, prefix.times(len(batch)))
            picks = _Picks()
            for row, prompt in enumerate(chosen):
                begin = row * tokens.shape[1] + len(prompt.context) - shared - 1  # the context's last token
                for answer in prompt.answers:
                    picks.add(begin, answer.ids if prompt.is_read(answer) else answer.ids[:1], answer)
            self._pick(hidden, picks)
            del hidden
            self._score_others(chosen, states)
            yield chosen

    def _score_others(self, prompts: Sequence[_Prompt], states: list[Any]) -> None:
        """Reads the answers that are left, each after the keys and values of its own context.

        Their positions begin where a context ends, so those of equally long contexts are read together. `states` are
        those of the prompts' batch.
        """
        by_length: dict[int, list[tuple[int, _Answer]]] = {}
        for row, prompt in enumerate(prompts):
            left = [(row, answer) for answer in prompt.answers if not prompt.is_read(answer)]
            by_length.setdefault(len(prompt.context), []).extend(left)
        for length, left in by_length.items():
            for batch in self._batches([len(answer.ids) - 1 for _, answer in left], length):
                rows = mx.nd.array([left[member][0] for member in batch], ctx=self._ctx, dtype="int32")
                end = self._net.prompt_length + length
                past = [mx.nd.take(each, rows)[:, :, :end] for each in states]  # (B, H, end, D)
                answers = [left[member][1] for member in batch]
                tokens = _padded([answer.ids[:-1] for answer in answers])
                hidden, _ = self._read(tokens, past)
                picks = _Picks()
                for row, answer in enumerate(answers):
                    picks.add(row * tokens.shape[1], answer.ids[1:], answer)
                self._pick(hidden, picks)

    def _batches(self, lengths: Sequence[int], past: int) -> Iterator[list[int]]:
        """Yields the members of each batch, the shortest first; a batch fits in the memory of one pass."""
        batch: list[int] = []
        for member in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and len(batch) >= self._room(lengths[member], past):
                yield batch
                batch = []
            batch.append(member)
        if batch:
            yield batch

    def _room(self, length: int, past: int) -> int:
        """Returns how many sequences of `length` tokens after `past` ones fit in one pass."""
        layers, units = len(self._net._ffn_layers), self._net._embed.weight.shape[1]
        states = 2 * layers * units * 4 * (past + length)
        # The stock operators make an array of all scores, and two more of its size.
        scores = 3 * self._net.num_heads * length * (past + length) * 4
        needed = max(states, scores)
        fitting = max(FAST_BYTES // needed, min(FEW_TOKENS // length, STATE_BYTES // needed))
        return max(1, min(BATCH_TOKENS // length, fitting))

    # ---- the network -----------------------------------------------------------------------------------------------

    def _read(self, tokens: NDArray[Any], states: list[Any] | None = None) -> tuple[Any, list[Any]]:
        """Returns the last hidden states (B, T, units) of tokens (B, T), and the keys and values with those before."""
        self.tokens_read += tokens.size
        ids = mx.nd.array(tokens, ctx=self._ctx, dtype="int32")
        hidden, new_states = self._net.hidden_states(mx.nd, ids, states or None)
        return hidden, new_states

    def _pick(self, hidden: Any, picks: _Picks) -> None:
        """Adds the log-probability of each picked token to its answer. Only the logits needed for that are made."""
        flat = hidden.reshape((-1, hidden.shape[2]))
        places, row_of = np.unique(picks.places, return_inverse=True)
        tokens = np.array(picks.tokens)
        for begin in range(0, len(places), LOGITS):
            inside = np.flatnonzero((row_of >= begin) & (row_of < begin + LOGITS))
            chosen = mx.nd.take(flat, mx.nd.array(places[begin : begin + LOGITS], ctx=self._ctx, dtype="int32"))
            projected = self._net.ops.logits(mx.nd, chosen.expand_dims(0), self._net._logits_proj)  # (1, rows, V)
            logs, greedy = _log_probabilities(
                projected.astype("float32").asnumpy()[0], row_of[inside] - begin, tokens[inside]
            )
            for pick, log, is_greedy in zip(inside, logs, greedy):
                answer = picks.answers[pick]
                answer.log_likelihood += float(log)
                answer.is_greedy &= bool(is_greedy)


class _Picks:
    """Tokens whose probability is wanted: where in a batch, counted through, the token before is, and the answer."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.tokens: list[int] = []
        self.answers: list[_Answer] = []

    def add(self, begin: int, ids: Ids, answer: _Answer) -> None:
        """Adds tokens of an answer, one after another; the first one follows the token at `begin`."""
        self.places += range(begin, begin + len(ids))
        self.tokens += ids.tolist()
        self.answers += [answer] * len(ids)


class _Repeated:
    """The keys and values of a common beginning, as often as a batch has rows; made once for the largest batch."""

    def __init__(self, states: list[Any]) -> None:
        self._states, self._repeated = states, states

    def times(self, count: int) -> list[Any]:
        """Returns the arrays, each (count, H, L, D)."""
        if not self._states:
            return []
        if len(self._repeated[0]) < count:
            self._repeated = [mx.nd.broadcast_axis(each, axis=0, size=count) for each in self._states]
        return [each[:count] for each in self._repeated]


def _log_probabilities(
    logits: NDArray[np.float32], rows: NDArray[Any], tokens: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns the log-probability of a token of each of these rows of logits (n, V), and if it is the likeliest one.

    Sums are float64: of 50,000 terms float32 loses two digits.
    """
    largest = logits.max(axis=1)
    sums = np.exp(logits - largest[:, None]).sum(axis=1, dtype=np.float64)
    logs = (logits[rows, tokens] - largest[rows]).astype(np.float64) - np.log(sums[rows])
    if not np.isfinite(logs).all():
        raise DataError("the network computes numbers that are not finite: its parameters are damaged")
    return logs, logits.argmax(axis=1)[rows] == tokens


def _prompts(requests: Sequence[Request], share: bool) -> list[_Prompt]:
    """Brings together the requests that have the same context."""
    prompts: dict[Any, _Prompt] = {}
    for place, (context, continuation) in enumerate(requests):
        key: Any = context.tobytes() if share else place
        prompts.setdefault(key, _Prompt(context)).add(continuation, place)
    return list(prompts.values())


def _padded(texts: Sequence[Ids]) -> NDArray[np.int32]:
    """Returns texts as rows, (B, T), padded on the right with id 0, which every network has."""
    tokens = np.zeros((len(texts), max(map(len, texts))), np.int32)
    for row, text in zip(tokens, texts):
        row[: len(text)] = text
    return tokens


def _check(request: Request, max_length: int) -> None:
    assert len(request.context), "a context has at least <s>"
    if not len(request.continuation):
        raise DataError("a text to score that has no token: an empty text, or one that its prompt ends with already")
    length = len(request.context) + len(request.continuation) - 1
    if length > max_length:
        raise DataError(
            f"a prompt of {len(request.context):,} tokens and an answer of {len(request.continuation):,} need "
            f"{length:,} positions, and the network has {max_length:,}: take fewer examples or shorter texts"
        )


def rolling_requests(ids: Ids, bos_id: int, max_length: int) -> list[Request]:
    """Cuts a long text into requests that score each of its tokens once, the first one after ``<s>``.

    Every part is as long as the network allows. The last one takes in some of the tokens before it, so that it has as
    much to look back at as the others: these are the parts that lm-evaluation-harness makes.
    """
    whole = np.concatenate([[bos_id], ids]).astype(np.int32)
    requests = []
    for begin in range(1, len(whole), max_length):
        end = min(begin + max_length, len(whole))
        requests.append(Request(whole[max(0, end - max_length - 1) : begin], whole[begin:end]))
    return requests
