"""POST /generate and /score, GET /about: the forms are in :mod:`kogpt2_gluon.serving.forms`."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from kogpt2_gluon import __version__
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.inference.bad_words import bad_word_ids
from kogpt2_gluon.inference.generation import prompt_notes
from kogpt2_gluon.inference.prompt_encoding import EncodedPrompt
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.scoring import Likelihood
from kogpt2_gluon.inference.shared_prefixes import Ids
from kogpt2_gluon.inference.text_engine import TextRequest
from kogpt2_gluon.inference.text_stream import TextStream
from kogpt2_gluon.serving import forms
from kogpt2_gluon.serving.forms import About, GenerateAnswer, GenerateRequest, ScoreAnswer, ScoreRequest, Start
from kogpt2_gluon.serving.networks import Network
from kogpt2_gluon.serving.refusals import bad_request
from kogpt2_gluon.serving.routes import (
    EventStream,
    StrictRoute,
    as_refusal,
    gone,
    in_thread,
    in_thread_if_long,
    refusals,
    stream_item,
)
from kogpt2_gluon.serving.service import Service, Texts, unless_gone
from kogpt2_gluon.serving.worker import Event

DRAWN_SEEDS = 2**31
SCORED_TOKENS = 512  # of a part of a /score request, or those of its prompt if there are more
STREAM = "text/event-stream"


def native_api(service: Service) -> APIRouter:
    """Returns the routes."""
    router = APIRouter(route_class=StrictRoute, responses=refusals(forms.Refusal))

    @router.post(
        "/generate",
        response_model=GenerateAnswer,
        responses={200: {"content": {STREAM: {"itemSchema": stream_item(str(forms.__doc__))}}}},
    )
    async def generate(wanted: GenerateRequest, request: Request) -> Response:
        """Continues a prompt: one answer, or with `stream` server-sent events, a token each."""
        size = len(wanted.prompt) + len(wanted.written)
        generation = await in_thread_if_long(size, Generation.read, service, wanted)
        texts = service.write(generation.network, generation.requests, wanted.stream)
        if wanted.stream:
            return await EventStream.begin(texts, generation.stream(texts), request)
        with texts:
            answer = await unless_gone(generation.answer(texts), request.receive)
        return gone() if answer is None else JSONResponse(answer)

    @router.post("/score", response_model=ScoreAnswer)
    async def score(wanted: ScoreRequest, request: Request) -> Response:
        """Says how likely each of some choices is after a prompt."""
        network = service.network(wanted.model)
        encoded = await in_thread(_encode_choices, network, wanted)
        work = service.do(_score_parts(service, network, encoded, wanted.prompt_tuning))
        found = await unless_gone(work, request.receive)
        return gone() if found is None else JSONResponse(_score_answer(wanted, encoded, found).model_dump())

    @router.get("/about")
    async def about() -> About:
        """Says what networks there are, and what a request may ask for."""
        return _about(service)

    return router


class Generation:
    """A request to /generate, ready to be written.

    Parameters
    ----------
    network : Network
    start : Start
        The first event of its stream.
    requests : list of TextRequest
    """

    def __init__(self, network: Network, start: Start, requests: list[TextRequest]) -> None:
        self.network, self.start, self.requests = network, start, requests

    @classmethod
    def read(cls, service: Service, wanted: GenerateRequest) -> Generation:
        """Checks a request and encodes its prompt."""
        network, limits = service.network(wanted.model), service.settings
        if wanted.max_new_tokens > limits.max_new_tokens:
            raise bad_request(
                f"max_new_tokens: {wanted.max_new_tokens:,} is more than the {limits.max_new_tokens:,} of this service",
                "max_new_tokens",
            )
        seed = secrets.randbelow(DRAWN_SEEDS) if wanted.seed is None else wanted.seed
        try:
            sampling = Sampling(
                **{name: getattr(wanted, name) for name in COPIED},
                seed=seed,
                stop=tuple(wanted.stop),
                bad_words=bad_word_ids(network.tokenizer, wanted.bad_words),
            )
        except KoGPT2Error as error:
            raise bad_request(str(error)) from None
        prompt = network.encode(wanted.prompt)
        network.check_ids(wanted.written, "written")
        ids = [*prompt, *wanted.written]
        network.check_room(ids, tuned=wanted.prompt_tuning)
        text = ""
        if wanted.written:
            before, now = (TextStream(network.tokenizer, each[1:]).prompt for each in (prompt, ids))
            text = now[len(before) :]
        start = Start(
            model=network.key,
            seed=seed,
            tokens_read=len(ids),
            text=text,
            notes=prompt_notes(
                network.tokenizer, wanted.prompt, network.room(wanted.prompt_tuning), wanted.max_new_tokens
            ),
        )
        samples = range(wanted.num_samples)
        return cls(network, start, [TextRequest(ids, sampling, each, wanted.prompt_tuning) for each in samples])

    async def stream(self, texts: Texts) -> AsyncIterator[str]:
        """Yields the events of a stream; the first one once there is a token."""
        written = [0] * len(self.requests)
        has_begun = False
        try:
            async for event in texts.events():
                if not has_begun:
                    has_begun = True
                    yield _event("start", self.start.model_dump())
                for name, data in self._events(event, written):
                    yield _event(name, data)
        except Exception as error:
            if not has_begun:
                raise
            yield _event("error", as_refusal(error).content(""))

    async def answer(self, texts: Texts) -> dict[str, Any]:
        """Returns the answer, once all texts have ended."""
        written = [0] * len(self.requests)
        tokens: list[list[dict[str, Any]]] = [[] for _ in self.requests]
        ends: dict[int, dict[str, Any]] = {}
        async for event in texts.events():
            for name, data in self._events(event, written):
                if name == "token":
                    tokens[event.ticket.place].append(data)
                else:
                    ends[event.ticket.place] = data
        return {**self.start.model_dump(), "texts": [_text(some, ends[place]) for place, some in enumerate(tokens)]}

    def _events(self, event: Event, written: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields what a step of the engine is to a client: a token, an end, or both."""
        sample, step = event.ticket.place, event.written
        assert step is not None
        rest = step.text
        if step.choice is not None:
            token = step.choice.token
            written[sample] += token != self.network.tokenizer.eos_id
            yield (
                "token",
                {
                    "sample": sample,
                    "text": step.text,
                    "id": token,
                    "spelling": self.network.spelling(token),
                    "log_probability": step.choice.log_probability,
                    "alternatives": [
                        [self.network.spelling(each), log_probability, each]
                        for each, log_probability in step.choice.alternatives
                    ],
                },
            )
            rest = ""
        if step.finish_reason:
            yield (
                "end",
                {
                    "sample": sample,
                    "text": rest,
                    "finish_reason": step.finish_reason,
                    "tokens_read": len(event.ticket.request.prompt),
                    "tokens_written": written[sample],
                },
            )


# Settings that have one name in a request and in Sampling.
COPIED = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "allow_unknown",
    "alternatives",
    "min_p",
    "typical_p",
    "no_repeat_ngram_size",
    "min_new_tokens",
)


def _text(tokens: Sequence[dict[str, Any]], end: dict[str, Any]) -> dict[str, Any]:
    counts = {name: end[name] for name in ("finish_reason", "tokens_read", "tokens_written")}
    return {"text": "".join(token["text"] for token in tokens) + end["text"], "tokens": tokens, **counts}


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n"


# ---- /score ----------------------------------------------------------------------------------------------------------


def _encode_choices(network: Network, wanted: ScoreRequest) -> EncodedPrompt:
    try:
        (encoded,) = network.encoder.encode([(wanted.prompt, wanted.choices)])
    except KoGPT2Error as error:
        raise bad_request(str(error)) from None
    for number, answer in enumerate(encoded.answers):
        if not len(answer):
            raise bad_request(f"choices[{number}]: a choice of no token", "choices")
        network.check_room([*encoded.context, *answer], 0, wanted.prompt_tuning)
    return encoded


def _score_parts(
    service: Service, network: Network, encoded: EncodedPrompt, tuned: str
) -> Iterator[list[Likelihood] | None]:
    """Scores some choices at a time: the prompt is read again for each part, so a part reads no less than that."""
    found: list[Likelihood] = []
    most = max(SCORED_TOKENS, len(encoded.context))
    part: list[Ids] = []
    for place, answer in enumerate(encoded.answers):
        part.append(answer)
        tokens = sum(map(len, part))
        if place + 1 == len(encoded.answers) or tokens >= most:
            found += network.likelihoods(encoded.context, part, tuned)
            service.metrics.scored(len(encoded.context) + tokens)
            part = []
            yield found if place + 1 == len(encoded.answers) else None


def _score_answer(wanted: ScoreRequest, encoded: EncodedPrompt, found: Sequence[Likelihood]) -> ScoreAnswer:
    notes = []
    if encoded.is_crossed:
        notes.append("a token crosses from the prompt into a choice: all are scored with the end of the prompt")
    return ScoreAnswer(
        model=wanted.model,
        choices=[
            forms.ChoiceScore(
                choice=choice, log_likelihood=each.log_likelihood, is_greedy=each.is_greedy, tokens=each.tokens
            )
            for choice, each in zip(wanted.choices, found)
        ],
        best=int(np.argmax([each.log_likelihood for each in found])),
        notes=notes,
    )


def _about(service: Service) -> About:
    settings = service.settings
    most_at_once = min(network.num_slots for network in service.networks.values()) + settings.queue
    return About(
        version=__version__,
        models=[network.about() for network in service.networks.values()],
        defaults=GenerateRequest.model_validate({"prompt": ""}).model_dump(exclude={"prompt", "written"}),
        limits=forms.Limits(
            max_new_tokens=settings.max_new_tokens,
            num_samples=min(forms.MOST_SAMPLES, most_at_once),
            alternatives=forms.MOST_ALTERNATIVES,
            stop=forms.MOST_STOPS,
            seconds=settings.request_seconds,
            waiting=settings.queue,
            body_bytes=settings.max_body_bytes,
        ),
    )
