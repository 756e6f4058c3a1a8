"""Writes many texts at once: a text that is finished makes room for the next one (continuous batching).

The engine is a queue of requests and a fixed number of slots. A step gives free slots to the requests that wait the
longest, sends one pass through the network, and chooses the next token of each text whose prompt is read. In a pass
each text that is being written reads its last token, and new texts read their prompts, a part of each at a time, so
that a long prompt does not hold up the others. A prompt that several texts share is read once.

What a text becomes depends on its own request alone, never on what is written next to it: its prompt is cut at the
same places whatever else there is to read, and its draws are its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_gluon.inference.continuation import END, LENGTH
from kogpt2_gluon.inference.sampling import Choice, Chooser, Sampling
from kogpt2_gluon.inference.text_stream import StopStrings, TextStream
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Run, slots_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer

CANCELLED, FAILED = "cancelled", "error"  # why a text ended, besides END and LENGTH
PROMPT_PART = 256  # tokens of a prompt that are read in a pass
PARTS_A_PASS = 2  # of that size, of all prompts together


@dataclass(frozen=True)
class TextRequest:
    """A text to continue.

    Attributes
    ----------
    prompt : sequence of int
        Ids, ``<s>`` included.
    sampling : Sampling
    sample : int
        Of several continuations of one prompt, which.
    tuned : str
        The name of the tuned prompt that the text begins after; "": the network's own one, or none.
    """

    prompt: Sequence[int]
    sampling: Sampling
    sample: int = 0
    tuned: str = ""


class Written(NamedTuple):
    """A step's addition to a text.

    Attributes
    ----------
    number : int
        That of the request, from :meth:`TextEngine.add`.
    choice : Choice or None
        The token; None where the text ended without one.
    text : str
        The text that is certain now: whole characters, nothing of a stop string; often none.
    finish_reason : str or None
        None while the text goes on; ``stop`` at ``</s>`` or a stop string, ``length`` at max_new_tokens or the end of
        the positions, ``cancelled``, ``error``.
    error : str
        What went wrong, in one line, where the reason is ``error``.
    """

    number: int
    choice: Choice | None
    text: str
    finish_reason: str | None
    error: str = ""


@dataclass(eq=False)
class _Text:
    """A text, waiting or in a slot."""

    number: int
    prompt: tuple[int, ...]
    tuned: str
    sampling: Sampling
    chooser: Chooser
    stream: TextStream
    stops: StopStrings
    slot: int = -1
    read: int = 0  # tokens of the prompt
    written: int = 0
    last: list[int] = field(default_factory=list)  # the token that is read next
    leader: _Text | None = None  # reads the same prompt, for both
    prompt_logits: NDArray[np.float32] | None = None  # what followed the prompt, for those that share it

    @property
    def is_reading(self) -> bool:
        return self.read < len(self.prompt)

    def begins_like(self, other: _Text) -> bool:
        return self.prompt == other.prompt and self.tuned == other.tuned


class TextEngine:
    """Continues many texts with one network. Not for several threads at once.

    Parameters
    ----------
    net : GPT2Model
        Not hybridized, as :func:`~kogpt2_gluon.inference.loading.load_checkpoint` returns it.
    tokenizer : Tokenizer
    ctx : mx.Context or None
        None: the CPU.
    num_slots : int
        The most texts at once; more wait.
    prompt_part : int
        The most tokens of one prompt that are read in a step.
    weights : str
        In which form the network's matrices are kept for this: float32, bfloat16, int8, 1bit to 4bit, or codes, as in
        :class:`~kogpt2_gluon.model.decoding.FusedWeights`; empty: as its precision is.
    tuned : mapping of str to NDArray, optional
        Tuned prompts of this network that requests may name, vectors (P, C) each.
    """

    def __init__(
        self,
        net: GPT2Model,
        tokenizer: Tokenizer,
        ctx: Any = None,
        num_slots: int = 8,
        prompt_part: int = PROMPT_PART,
        weights: str = "",
        tuned: Mapping[str, Any] | None = None,
    ) -> None:
        assert num_slots >= 1 and prompt_part >= 1
        self.tokenizer, self.max_length, self.num_slots = tokenizer, net.max_length, num_slots
        self._vocab_size = min(tokenizer.vocab_size, net._embed.weight.shape[0])
        self._prompt_part = prompt_part
        self._left_out = {allow: tokenizer.never_written(allow) for allow in (False, True)}
        self._slots = slots_for(net, num_slots, net.max_length, ctx, weights, tuned)
        self._tuned = {"", *(tuned or {})}
        self._free = list(reversed(range(num_slots)))
        self._waiting: deque[_Text] = deque()
        self._running: dict[int, _Text] = {}  # by number, so in the order of arrival
        self._cancelled: set[int] = set()
        self._added = 0

    @property
    def is_idle(self) -> bool:
        """True if no text is waiting or being written."""
        return not self._waiting and not self._running

    @property
    def waiting(self) -> int:
        """The requests that have no slot yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The texts that are being written."""
        return len(self._running)

    def add(self, request: TextRequest) -> int:
        """Puts a request into the queue; returns its number.

        RecipeError for a prompt without tokens, with ids that the network does not have, or one that leaves no
        position free, and for a tuned prompt that the engine does not have.
        """
        prompt = tuple(map(int, request.prompt))
        if request.tuned not in self._tuned:
            raise RecipeError(f"there is no tuned prompt {request.tuned!r}")
        most = self._slots.room(request.tuned)
        if not 0 < len(prompt) < most:
            raise RecipeError(
                f"the prompt has {len(prompt):,} tokens with <s>; the network's {most:,} positions "
                f"leave room for {most - 1:,} and a new one"
            )
        if not 0 <= min(prompt) <= max(prompt) < self._vocab_size:  # MXNet would take the nearest id, in silence
            raise RecipeError(f"the prompt has ids outside 0 to {self._vocab_size - 1}, those of this tokenizer")
        sampling = request.sampling
        left_out = self._left_out[sampling.allow_unknown]
        chooser = Chooser(sampling, prompt, self.tokenizer.eos_id, self._vocab_size, left_out, request.sample)
        stream, stops = TextStream(self.tokenizer, prompt[1:]), StopStrings(sampling.stop)
        self._waiting.append(_Text(self._added, prompt, request.tuned, sampling, chooser, stream, stops))
        self._added += 1
        return self._added - 1

    def cancel(self, number: int) -> None:
        """Ends a text at the next step, waiting or not; a number that is finished already is no fault."""
        if number in self._running or any(text.number == number for text in self._waiting):
            self._cancelled.add(number)

    def step(self) -> list[Written]:
        """Adds a token to each text whose prompt is read; texts that wait the longest get the free slots before."""
        ended = self._drop_cancelled()
        self._fill_slots()
        ready = [(text, text.prompt_logits) for text in self._running.values() if text.prompt_logits is not None]
        ready = [(text, row) for text, row in ready if not text.last]  # their prompt was read for another text
        runs = self._next_runs()
        if runs:
            try:
                rows = self._slots.next_logits([Run(text.slot, tokens) for text, tokens in runs])
            except (mx.MXNetError, MemoryError) as error:
                return ended + self._fail_all(" ".join(f"the network failed: {error}".split()))
            for (text, tokens), row in zip(runs, rows):
                ready += self._take_in(text, len(tokens), row)
        ready.sort(key=lambda each: each[0].number)
        return ended + [self._advance(text, row) for text, row in ready]

    def run(self) -> Iterator[Written]:
        """Steps until nothing is left to write."""
        while not self.is_idle:
            yield from self.step()

    def _fill_slots(self) -> None:
        """Gives free slots to waiting texts; one whose prompt another text has read or reads need not read it."""
        while self._free and self._waiting:
            text = self._waiting.popleft()
            same = (each for each in self._running.values() if each.leader is None and each.begins_like(text))
            leader = next(same, None)
            text.slot, self._running[text.number] = self._free.pop(), text
            if leader and leader.prompt_logits is not None:
                self._share_prompt(leader, text)
            else:
                text.leader = leader
                self._slots.begin(text.slot, text.tuned)

    def _share_prompt(self, source: _Text, text: _Text) -> None:
        self._slots.copy(source.slot, text.slot, self._slots.tuned_length(text.tuned) + len(text.prompt))
        text.leader, text.read, text.prompt_logits = None, len(text.prompt), source.prompt_logits

    def _next_runs(self) -> list[tuple[_Text, Sequence[int]]]:
        """Returns what each text reads in this pass: its last token, or a part of its prompt while there is room."""
        runs: list[tuple[_Text, Sequence[int]]] = []
        room = self._prompt_part * PARTS_A_PASS
        for text in self._running.values():
            if text.last:
                runs.append((text, text.last))
            elif text.is_reading and text.leader is None:
                part = text.prompt[text.read : text.read + self._prompt_part]
                if len(part) <= room:  # that of the first one always is
                    room -= len(part)
                    runs.append((text, part))
        return runs

    def _take_in(self, text: _Text, count: int, row: NDArray[np.float32]) -> list[tuple[_Text, NDArray[np.float32]]]:
        """Notes what a text has read; returns the texts whose next token follows from these logits."""
        if not text.is_reading:
            return [(text, row)]
        text.read += count
        if text.is_reading:
            return []
        text.prompt_logits = row = row.copy()  # the others of its pass are not kept
        followers = self._followers(text)
        for each in followers:
            self._share_prompt(text, each)
        return [(each, row) for each in (text, *followers)]

    def _followers(self, text: _Text) -> list[_Text]:
        return [each for each in self._running.values() if each.leader is text]

    def _advance(self, text: _Text, logits: NDArray[np.float32]) -> Written:
        try:
            choice = text.chooser.choose(logits)
        except KoGPT2Error as error:  # logits that are not finite, or settings that leave no token to choose
            return self._end(text, None, FAILED, error=str(error))
        if choice.token == self.tokenizer.eos_id:
            return self._end(text, choice, END)
        text.written += 1
        text.last = [choice.token]
        new = text.stream.push(choice.token)
        if text.written >= text.sampling.min_new_tokens:
            new = text.stops.push(new)
        if text.stops.found:
            return self._end(text, choice, END, new)
        is_full = len(text.prompt) + text.written >= self._slots.room(text.tuned)
        if is_full or text.written >= text.sampling.max_new_tokens:
            return self._end(text, choice, LENGTH, new)
        return Written(text.number, choice, new, None)

    def _end(self, text: _Text, choice: Choice | None, reason: str, new: str = "", error: str = "") -> Written:
        new += text.stops.push(text.stream.finish())
        if text.stops.found:
            reason = END if reason == LENGTH else reason
        new += text.stops.finish()
        if text.slot >= 0:
            self._release(text)
        return Written(text.number, choice, new, reason, error)

    def _fail_all(self, reason: str) -> list[Written]:
        """Ends all texts that have a slot, since nobody knows what is in the slots now."""
        texts = list(self._running.values())
        for text in texts:
            text.prompt_logits = None  # nobody takes its slot over
        return [self._end(text, None, FAILED, error=reason) for text in texts]

    def _release(self, text: _Text) -> None:
        """Frees the slot of a text; if others wait for it to read their prompt, the first of them goes on reading.

        If the next text that waits has the same prompt, it takes the slot over, with what was read.
        """
        del self._running[text.number]
        if text.prompt_logits is not None and self._waiting and self._waiting[0].begins_like(text):
            successor = self._waiting.popleft()
            successor.slot, self._running[successor.number] = text.slot, successor
            self._share_prompt(text, successor)
            return
        followers = self._followers(text)
        if followers:
            first, *others = followers
            self._slots.copy(text.slot, first.slot)
            first.leader, first.read = None, text.read
            for each in others:
                each.leader = first
        self._slots.clear(text.slot)
        self._free.append(text.slot)

    def _drop_cancelled(self) -> list[Written]:
        if not self._cancelled:
            return []
        texts = [*self._running.values(), *self._waiting]
        self._waiting = deque(text for text in self._waiting if text.number not in self._cancelled)
        ended = [self._end(text, None, CANCELLED) for text in texts if text.number in self._cancelled]
        self._cancelled.clear()
        return ended
