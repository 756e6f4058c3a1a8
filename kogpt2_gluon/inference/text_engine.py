"""Writes many texts at once: a text that is finished makes room for the next one (continuous batching).

The engine is a queue of requests and a fixed number of slots. A step gives free slots to waiting requests, sends one
pass through the network, in which a new text reads its prompt and each other text its last token, and chooses the next
token of all of them. What a text becomes depends on its own request alone, never on what is written next to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.sampling import Choice, Chooser, Sampling
from kogpt2_gluon.inference.text_stream import TextStream
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Run, slots_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer

END, LENGTH, CANCELLED = "stop", "length", "cancelled"  # why a text ended


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
    """

    prompt: Sequence[int]
    sampling: Sampling
    sample: int = 0


class Written(NamedTuple):
    """A step's addition to a text.

    Attributes
    ----------
    number : int
        That of the request, from :meth:`TextEngine.add`.
    choice : Choice or None
        The token; None where the text ended without one.
    text : str
        The text that is certain now: whole characters; often none.
    finish_reason : str or None
        None while the text goes on; ``stop`` at ``</s>`` or a stop string, ``length`` at max_new_tokens or the end of
        the positions, ``cancelled``.
    """

    number: int
    choice: Choice | None
    text: str
    finish_reason: str | None


@dataclass
class _Text:
    """A text in a slot."""

    number: int
    request: TextRequest
    chooser: Chooser
    stream: TextStream
    unread: Sequence[int]
    written: int = 0


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
    """

    def __init__(self, net: GPT2Model, tokenizer: Tokenizer, ctx: Any = None, num_slots: int = 8) -> None:
        self.tokenizer, self.max_length, self.num_slots = tokenizer, net.max_length, num_slots
        self._slots = slots_for(net, num_slots, net.max_length, ctx)
        self._waiting: deque[_Text] = deque()
        self._running: dict[int, _Text] = {}  # by slot
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
        """Puts a request into the queue; returns its number. RecipeError for a prompt that leaves no position free."""
        if not 0 < len(request.prompt) < self.max_length:
            raise RecipeError(
                f"the prompt has {len(request.prompt):,} tokens with <s>; the network's {self.max_length:,} positions "
                f"leave room for {self.max_length - 1:,} and a new one"
            )
        tokenizer, sampling = self.tokenizer, request.sampling
        left_out = tokenizer.never_written(sampling.allow_unknown)
        chooser = Chooser(sampling, request.prompt, tokenizer.eos_id, tokenizer.vocab_size, left_out, request.sample)
        stream = TextStream(tokenizer, request.prompt[1:])
        self._waiting.append(_Text(self._added, request, chooser, stream, request.prompt))
        self._added += 1
        return self._added - 1

    def cancel(self, number: int) -> None:
        """Ends a text at the next step, waiting or not; a number that is finished already is no fault."""
        self._cancelled.add(number)

    def step(self) -> list[Written]:
        """Adds a token to each running text, after free slots went to those that wait the longest."""
        ended = self._drop_cancelled()
        free = [slot for slot in range(self.num_slots) if slot not in self._running]
        for slot in free[: len(self._waiting)]:
            self._running[slot] = self._waiting.popleft()
        if not self._running:
            return ended
        places = sorted(self._running)
        logits = self._slots.next_logits([Run(slot, self._running[slot].unread) for slot in places])
        return ended + [self._advance(slot, row) for slot, row in zip(places, logits)]

    def run(self) -> Iterator[Written]:
        """Steps until nothing is left to write."""
        while not self.is_idle:
            yield from self.step()

    def _advance(self, slot: int, logits: Any) -> Written:
        text = self._running[slot]
        choice = text.chooser.choose(logits)
        if choice.token == self.tokenizer.eos_id:
            return self._end(slot, choice, END)
        text.written += 1
        text.unread = [choice.token]
        new = text.stream.push(choice.token)
        is_full = len(text.request.prompt) + text.written >= self.max_length
        if is_full or text.written >= text.request.sampling.max_new_tokens:
            return self._end(slot, choice, LENGTH, new)
        return Written(text.number, choice, new, None)

    def _end(self, slot: int, choice: Choice | None, reason: str, new: str = "") -> Written:
        text = self._running.pop(slot)
        self._slots.clear(slot)
        return Written(text.number, choice, new + text.stream.finish(), reason)

    def _drop_cancelled(self) -> list[Written]:
        if not self._cancelled:
            return []
        ended = [
            self._end(slot, None, CANCELLED)
            for slot, text in list(self._running.items())
            if text.number in self._cancelled
        ]
        ended += [Written(text.number, None, "", CANCELLED) for text in self._waiting if text.number in self._cancelled]
        self._waiting = deque(text for text in self._waiting if text.number not in self._cancelled)
        self._cancelled.clear()
        return ended
