"""POST /v1/completions and GET /v1/models, as clients of OpenAI's API expect them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.inference.sampling import Choice, Sampling
from kogpt2_gluon.inference.text_engine import TextRequest, Written
from kogpt2_gluon.serving.networks import Network
from kogpt2_gluon.serving.openai_forms import Completion, CompletionRequest, Model, ModelList, OpenAIError
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
from kogpt2_gluon.serving.service import Service, Texts, check_answer, unless_gone

DONE = "data: [DONE]\n\n"
DEFAULT_MAX_TOKENS = 16


def openai_api(service: Service) -> APIRouter:
    """Returns the routes."""
    router = APIRouter(prefix="/v1", route_class=StrictRoute, responses=refusals(OpenAIError))
    began = int(time.time())

    @router.post(
        "/completions",
        response_model=Completion,
        responses={200: {"content": {"text/event-stream": {"itemSchema": stream_item("A Completion, or [DONE].")}}}},
    )
    async def completions(wanted: CompletionRequest, request: Request) -> Response:
        """Continues prompts; with `stream`, in chunks."""
        size = sum(map(len, _listed(wanted.prompt)))
        answer = await in_thread_if_long(size, Answer.read, service, wanted)
        if wanted.echo and wanted.logprobs is not None:
            scored = await unless_gone(answer.score_prompts(), request.receive)
            if scored is None:
                return gone()
        texts = service.write(answer.network, answer.requests, bool(wanted.stream))
        if wanted.stream:
            return await EventStream.begin(texts, answer.stream(texts), request)
        with texts:
            found = await unless_gone(answer.whole(texts), request.receive)
        return gone() if found is None else JSONResponse(found)

    @router.get("/models")
    async def models() -> ModelList:
        """Lists the models."""
        names = [name for network in service.networks.values() for name in (network.name, *network.tuned)]
        return ModelList(data=[Model(id=name, created=began) for name in names])

    @router.get("/models/{name:path}")
    async def model(name: str) -> Model:
        """Says that there is a model of this name."""
        network, tuned = service.model(name)
        return Model(id=tuned or network.name, created=began)

    return router


@dataclass
class Prompt:
    """A prompt of a request.

    Attributes
    ----------
    ids : list of int
        `<s>` first.
    text : str
        As the client sent it; that of its ids, if it sent those.
    shown : int
        How many of the first ids are not among those that `echo` lists: 1 for a `<s>` that the client did not send.
    seed : int
    scores : list of Choice
        For each id but the first, if they are wanted.
    offsets : list of int
        Of each id, if scores are wanted: its first character in `text`.
    """

    ids: list[int]
    text: str
    shown: int
    seed: int
    scores: list[Choice] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


@dataclass
class Draft:
    """A completion as far as it is written."""

    text: str = ""
    tokens: list[tuple[Choice, int]] = field(default_factory=list)  # with their offsets
    new: int = 0  # </s> not counted
    reason: str = ""

    def mean_log_probability(self) -> float:
        """Returns the log-probability per token; that of no token is the lowest."""
        values = [choice.log_probability for choice, _ in self.tokens]
        return sum(values) / len(values) if values else -float("inf")


class Answer:
    """A request for completions, and what is answered.

    Choices are numbered as in OpenAI's API: those of the first prompt, then those of the second.

    Parameters
    ----------
    service : Service
    network : Network
    wanted : CompletionRequest
    prompts : sequence of Prompt
    sampling : Sampling
        With any seed.
    tuned : str
        The name of the tuned prompt in front of the texts; "": none.
    """

    def __init__(
        self,
        service: Service,
        network: Network,
        wanted: CompletionRequest,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        tuned: str = "",
    ) -> None:
        self.network, self._tuned = network, tuned
        self._service, self._wanted, self._prompts = service, wanted, list(prompts)
        self._max_tokens = DEFAULT_MAX_TOKENS if wanted.max_tokens is None else wanted.max_tokens
        self._n, self._best_of = wanted.n or 1, wanted.best_of or wanted.n or 1
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": tuned or network.name,
        }
        self.requests = [
            TextRequest(prompt.ids, _with_seed(sampling, prompt.seed), sample, tuned)
            for prompt in self._prompts
            for sample in range(self._best_of)
            if self._max_tokens
        ]

    @classmethod
    def read(cls, service: Service, wanted: CompletionRequest) -> Answer:
        """Checks a request and encodes its prompts."""
        (network, tuned), most = service.model(wanted.model), service.settings.max_new_tokens
        if (wanted.max_tokens or 0) > most:
            raise bad_request(
                f"max_tokens: {wanted.max_tokens:,} is more than the {most:,} of this service", "max_tokens"
            )
        if (wanted.best_of or wanted.n or 1) < (wanted.n or 1):
            raise bad_request(f"best_of: {wanted.best_of} is less than n={wanted.n}", "best_of")
        if wanted.stream and (wanted.best_of or 1) > (wanted.n or 1):
            raise bad_request("best_of: the best are known only at the end, so they cannot be streamed", "best_of")
        if wanted.stream_options and not wanted.stream:
            raise bad_request("stream_options: only with stream", "stream_options")
        prompts = [_prompt(network, each, wanted.seed) for each in _listed(wanted.prompt)]
        for prompt in prompts:
            network.check_room(prompt.ids, 0 if wanted.max_tokens == 0 else 1, tuned)
        return cls(service, network, wanted, prompts, _sampling(wanted), tuned)

    async def score_prompts(self) -> bool:
        """Finds the log-probabilities of the prompts' own tokens."""
        check_answer(sum(len(prompt.ids) for prompt in self._prompts) * (1 + (self._wanted.logprobs or 0)) * self._n)
        for prompt in self._prompts:
            prompt.offsets = await in_thread(_offsets, self.network, prompt)
            prompt.scores = await self._service.do(self._score(prompt))
        return True

    def _score(self, prompt: Prompt) -> Iterator[list[Choice]]:
        found = self.network.token_scorer.score(prompt.ids, self._wanted.logprobs or 0, self._tuned)
        self._service.metrics.scored(len(prompt.ids))
        yield found

    # ---- the answer as a whole ---------------------------------------------------------------------------------------

    async def whole(self, texts: Texts) -> dict[str, Any]:
        """Returns the answer, once all texts have ended."""
        drafts = [Draft() for _ in range(len(self._prompts) * self._best_of)]
        async for event in texts.events():
            assert event.written is not None
            self._add(drafts[event.ticket.place], event.ticket.place, event.written)
        choices: list[dict[str, Any]] = []
        for number, prompt in enumerate(self._prompts):
            own = drafts[number * self._best_of : (number + 1) * self._best_of]
            if self._best_of > self._n:
                own = sorted(own, key=Draft.mean_log_probability, reverse=True)[: self._n]
            for draft in own:
                choices.append(self._choice(len(choices), prompt, draft))
        usage = _usage(self._prompts, sum(draft.new for draft in drafts))
        return {**self._head, "choices": choices, "usage": usage}

    def _add(self, draft: Draft, place: int, written: Written) -> None:
        """Takes over what a step has added to a text."""
        if written.choice is not None:
            offset = len(self._prompts[place // self._best_of].text) + len(draft.text)
            draft.tokens.append((written.choice, offset))
            draft.new += written.choice.token != self.network.tokenizer.eos_id
        draft.text += written.text
        draft.reason = written.finish_reason or ""

    def _choice(self, index: int, prompt: Prompt, draft: Draft) -> dict[str, Any]:
        echo = self._wanted.echo
        reason = draft.reason or "length"  # max_tokens=0
        return {
            "index": index,
            "text": (prompt.text if echo else "") + draft.text,
            "logprobs": self._logprobs((self._echoed(prompt) if echo else []) + draft.tokens),
            **_reasons(reason),
        }

    # ---- a stream ----------------------------------------------------------------------------------------------------

    async def stream(self, texts: Texts) -> AsyncIterator[str]:
        """Yields the chunks of a stream; the first one once there is a token."""
        drafts = [Draft() for _ in self.requests]
        has_begun = False
        try:
            async for event in texts.events():
                if not has_begun:
                    has_begun = True
                    for chunk in self._first_chunks():
                        yield chunk
                assert event.written is not None
                place, draft = event.ticket.place, drafts[event.ticket.place]
                draft.tokens.clear()
                self._add(draft, place, event.written)
                if event.written.text or event.written.finish_reason or self._wanted.logprobs is not None:
                    yield self._chunk(place, event.written.text, draft.tokens, draft.reason)
            if not self.requests:
                for chunk in self._first_chunks():
                    yield chunk
        except Exception as error:
            if not has_begun:
                raise
            yield _data(as_refusal(error).content("/v1/"))
            return
        if self._wanted.stream_options and self._wanted.stream_options.include_usage:
            usage = _usage(self._prompts, sum(draft.new for draft in drafts))
            yield _data({**self._head, "choices": [], "usage": usage})
        yield DONE

    def _first_chunks(self) -> Iterator[str]:
        """Yields the echoed prompts; without any new token they are all, and the end."""
        for index in range(len(self._prompts) * self._n):
            prompt = self._prompts[index // self._n]
            if self._wanted.echo:
                yield self._chunk(index, prompt.text, self._echoed(prompt), "" if self.requests else "length")
            elif not self.requests:
                yield self._chunk(index, "", [], "length")

    def _chunk(self, index: int, text: str, tokens: Sequence[tuple[Choice, int]], reason: str) -> str:
        choice = {"index": index, "text": text, "logprobs": self._logprobs(tokens), **_reasons(reason)}
        return _data({**self._head, "choices": [choice]})

    # ---- log-probabilities -------------------------------------------------------------------------------------------

    def _echoed(self, prompt: Prompt) -> list[tuple[Choice, int]]:
        """Returns the tokens of a prompt with their offsets; `<s>`, which nothing precedes, has NaN."""
        if self._wanted.logprobs is None:
            return []
        first = Choice(prompt.ids[0], float("nan"), [])
        return list(zip([first, *prompt.scores], prompt.offsets))[prompt.shown :]

    def _logprobs(self, tokens: Sequence[tuple[Choice, int]]) -> dict[str, Any] | None:
        if self._wanted.logprobs is None:
            return None
        spelling = self.network.spelling
        values, tops = [], []
        for choice, _ in tokens:
            has_value = choice.log_probability == choice.log_probability
            values.append(choice.log_probability if has_value else None)
            top: dict[str, float] = {}
            for token, log_probability in [*choice.alternatives, (choice.token, choice.log_probability)]:
                top.setdefault(spelling(token), log_probability)
            tops.append(top if has_value else None)
        return {
            "tokens": [spelling(choice.token) for choice, _ in tokens],
            "token_logprobs": values,
            "top_logprobs": tops if self._wanted.logprobs else None,
            "text_offset": [offset for _, offset in tokens],
        }


def _listed(prompt: Any) -> list[Any]:
    """Returns the prompts of a request: a string, ids, strings or lists of ids."""
    return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt


def _prompt(network: Network, prompt: Any, seed: int | None) -> Prompt:
    own = secrets.randbits(63) if seed is None else seed % 2**64
    if isinstance(prompt, str):
        return Prompt(network.encode(prompt), prompt, 1, own)
    network.check_ids(prompt, "prompt")
    bos = network.tokenizer.bos_id
    ids, shown = (list(prompt), 0) if prompt[0] == bos else ([bos, *prompt], 1)
    return Prompt(ids, network.tokenizer.decode(ids[1:]), shown, own)


def _sampling(wanted: CompletionRequest) -> Sampling:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    given: dict[str, Any] = {name: getattr(wanted, name) for name in names}
    if wanted.top_p == 0:
        given.update(top_p=None, temperature=0.0)
    stop = [wanted.stop] if isinstance(wanted.stop, str) else wanted.stop or []
    try:
        return Sampling(
            max_new_tokens=wanted.max_tokens or DEFAULT_MAX_TOKENS,
            stop=tuple(stop),
            alternatives=wanted.logprobs or 0,
            **{name: value for name, value in given.items() if value is not None},
        )
    except KoGPT2Error as error:
        raise bad_request(str(error)) from None


def _with_seed(sampling: Sampling, seed: int) -> Sampling:
    return Sampling(**{**sampling.__dict__, "seed": seed})


def _offsets(network: Network, prompt: Prompt) -> list[int]:
    """Returns the first character of each id of a prompt in its text."""
    ((ids, places),) = network.tokenizer.encode_with_places([prompt.text])
    if ids == prompt.ids[1:]:
        return [0, *(begin for begin, _ in places)]
    offsets, decoder = [0], network.tokenizer.incremental_decoder()  # ids that encoding would not give
    length = 0
    for token in prompt.ids[1:]:
        offsets.append(length)
        length += len(decoder.push(token))
    return offsets


def _usage(prompts: Sequence[Prompt], new: int) -> dict[str, int]:
    read = sum(len(prompt.ids) - prompt.shown for prompt in prompts)
    return {"prompt_tokens": read, "completion_tokens": new, "total_tokens": read + new}


def _reasons(reason: str) -> dict[str, str | None]:
    """Returns the end of a text in the words that clients know, and the service's own where they have none."""
    if reason in ("time", "shutdown"):
        return {"finish_reason": "length", "stop_reason": reason}
    return {"finish_reason": reason or None, "stop_reason": None}


def _data(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, allow_nan=False)}\n\n"
