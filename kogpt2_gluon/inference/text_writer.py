"""Writes the texts of prompts, in whichever way their settings say: drawn, several at once, or searched for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.inference.beam_search import beam_search
from kogpt2_gluon.inference.continuation import Continuation
from kogpt2_gluon.inference.contrastive_search import contrastive_search
from kogpt2_gluon.inference.sampling import Choice
from kogpt2_gluon.inference.text_engine import CANCELLED, FAILED, TextEngine, TextRequest
from kogpt2_gluon.inference.text_settings import TextSettings
from kogpt2_gluon.inference.text_stream import StopStrings, TextStream
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Slots, slots_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer


@dataclass
class Text:
    """A text that continues a prompt, while it is written and afterwards.

    Attributes
    ----------
    prompt : str
        The text of the prompt's ids.
    new : str
        What follows it.
    choices : list of Choice
        The tokens, `</s>` and those of a stop string included.
    num_tokens : int
        How many of them are there, without `</s>`.
    finish_reason : str
        ``stop``, ``length``, ``cancelled`` or ``error``; "" while it is written.
    error : str
        What went wrong, where the reason is ``error``.
    score : float or None
        What a search compares texts by.
    """

    prompt: str
    new: str = ""
    choices: list[Choice] = field(default_factory=list)
    num_tokens: int = 0
    finish_reason: str = ""
    error: str = ""
    score: float | None = None

    @property
    def whole(self) -> str:
        """The text with its prompt."""
        return self.prompt + self.new


@dataclass(eq=False)
class Job:
    """The texts of one prompt.

    Attributes
    ----------
    texts : list of Text
    numbers : list of int
        Those of the engine.
    """

    texts: list[Text]
    numbers: list[int] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """True once all of them are written."""
        return all(text.finish_reason for text in self.texts)


class Piece(NamedTuple):
    """Adds to a text what a step has written."""

    job: Job
    place: int
    text: str


class Cancelled(Exception):  # noqa: N818 - ends a search
    """The one who waits for a search wants no more of it."""


class TextWriter:
    """Writes texts with one network.

    Parameters
    ----------
    net, tokenizer, ctx, num_slots, weights
        As for :class:`~kogpt2_gluon.inference.text_engine.TextEngine`.
    """

    def __init__(
        self, net: GPT2Model, tokenizer: Tokenizer, ctx: Any = None, num_slots: int = 8, weights: str = ""
    ) -> None:
        self.engine = TextEngine(net, tokenizer, ctx, num_slots, weights=weights)
        self.tokenizer, self.max_length, self.num_slots = tokenizer, net.max_length, num_slots
        self._net, self._ctx, self._weights = net, ctx, weights
        self._places: dict[int, tuple[Job, int]] = {}  # by the engine's numbers
        self._search_slots: Slots | None = None

    @property
    def is_idle(self) -> bool:
        """True if nothing is left to write."""
        return self.engine.is_idle

    def prompt_text(self, prompt: Sequence[int]) -> str:
        """Returns the text of a prompt (ids, ``<s>`` included), which comes in front of what is new."""
        return TextStream(self.tokenizer, prompt[1:]).prompt

    def add(self, prompt: Sequence[int], settings: TextSettings, stops: Callable[[], bool] | None = None) -> Job:
        """Adds a prompt (ids, ``<s>`` included). A search is over when this returns, unless `stops` returned True.

        RecipeError for a prompt that leaves no position free, or settings that do not fit the tokenizer.
        """
        if settings.is_search:
            return self._search(prompt, settings, stops)
        begin = self.prompt_text(prompt)
        job = Job([Text(begin) for _ in range(settings.num_samples)])
        for place in range(settings.num_samples):
            number = self.engine.add(TextRequest(prompt, settings.sampling, place))
            job.numbers.append(number)
            self._places[number] = job, place
        return job

    def step(self) -> list[Piece]:
        """Adds a token to the texts that are being written."""
        pieces = []
        for number, choice, new, reason, error in self.engine.step():
            job, place = self._places[number]
            text = job.texts[place]
            text.new += new
            if choice:
                text.choices.append(choice)
                text.num_tokens += choice.token != self.tokenizer.eos_id
            if reason:
                text.finish_reason, text.error = reason, error
                del self._places[number]
            if new:
                pieces.append(Piece(job, place, new))
        return pieces

    def cancel(self, job: Job) -> None:
        """Ends the texts of a prompt at the next step."""
        for number in job.numbers:
            self.engine.cancel(number)

    def write(
        self,
        prompt: Sequence[int],
        settings: TextSettings,
        show: Callable[[int, str], None] = lambda place, new: None,
        stops: Callable[[], bool] = lambda: False,
    ) -> list[Text]:
        """Writes the texts of one prompt.

        `show` is called with a text's place and what is new of it. Once `stops` returns True, the texts end.
        """
        job = self.add(prompt, settings, stops)
        if settings.is_search:
            for place, text in enumerate(job.texts):
                show(place, text.new)
        while not job.is_done:
            if stops():
                self.cancel(job)
            for piece in self.step():
                if piece.job is job:
                    show(piece.place, piece.text)
        return job.texts

    def _search(self, prompt: Sequence[int], settings: TextSettings, stops: Callable[[], bool] | None) -> Job:
        sampling, tokenizer = settings.sampling, self.tokenizer

        def before_step() -> None:
            if stops and stops():
                raise Cancelled

        common: dict[str, Any] = {
            "vocab_size": min(tokenizer.vocab_size, self._net._embed.weight.shape[0]),
            "left_out": tokenizer.never_written(sampling.allow_unknown),
            "is_end": (lambda new: self._cut(prompt, settings, new)[1]) if sampling.stop else None,
            "before_step": before_step,
        }
        begin = self.prompt_text(prompt)
        count = settings.num_beams if settings.num_beams > 1 else settings.num_candidates
        slots, eos_id = self._slots(count), tokenizer.eos_id
        try:
            if settings.num_beams > 1:
                beams, best, penalty = settings.num_beams, settings.num_samples, settings.length_penalty
                found = beam_search(slots, prompt, eos_id, sampling, beams, best, penalty, **common)
            else:
                alpha = settings.penalty_alpha
                found = contrastive_search(slots, prompt, eos_id, sampling, alpha, count, **common)
        except Cancelled:
            return Job([Text(begin, finish_reason=CANCELLED)])
        except KoGPT2Error as error:
            if not 0 < len(prompt) < self.max_length:
                raise
            return Job([Text(begin, finish_reason=FAILED, error=str(error))])
        return Job([self._text(begin, prompt, settings, each) for each in found])

    def _text(self, begin: str, prompt: Sequence[int], settings: TextSettings, found: Continuation) -> Text:
        new, _ = self._cut(prompt, settings, found.ids)
        return Text(begin, new, found.choices, len(found.ids), found.finish_reason, "", found.score)

    def _cut(self, prompt: Sequence[int], settings: TextSettings, ids: Sequence[int]) -> tuple[str, bool]:
        """Returns the text of new ids up to a stop string, and True if it has one."""
        stream, stops = TextStream(self.tokenizer, prompt[1:]), StopStrings(settings.sampling.stop)
        text = ""
        for count, token in enumerate(ids, start=1):
            part = stream.push(token)
            text += stops.push(part) if count >= settings.sampling.min_new_tokens else part
            if stops.found:
                return text, True
        text += stops.push(stream.finish())
        return text + stops.finish(), stops.found

    def _slots(self, count: int) -> Slots:
        if self._search_slots is None or self._search_slots.num_slots < count:
            self._search_slots = None  # its memory is free before the next ones take theirs
            self._search_slots = slots_for(self._net, count, self.max_length, self._ctx, self._weights)
        return self._search_slots
