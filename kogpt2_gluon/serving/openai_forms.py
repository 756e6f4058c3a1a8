"""The forms of /v1, as clients of OpenAI's API send and read them.

What the service does not do is refused where it would change the text, never left out in silence.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, field_validator

from kogpt2_gluon.serving.forms import LONGEST_STOP, MOST_ALTERNATIVES, MOST_STOPS, Form

MOST_PROMPTS, MOST_CHOICES = 256, 128
Id = Annotated[int, Field(ge=0)]
Ids = Annotated[list[Id], Field(min_length=1, fail_fast=True)]  # not an error for each of a million ids
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]


def _of_four_kinds(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Says in one line what a prompt can be, in the place of what is wrong by each of its four kinds."""
    try:
        return handler(value)
    except ValueError:
        raise ValueError(
            f"a string, ids, a list of up to {MOST_PROMPTS} strings, or a list of up to {MOST_PROMPTS} lists of ids; "
            "no list may be empty"
        ) from None


def _of_two_kinds(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValueError:
        raise ValueError(f"a string, or up to {MOST_STOPS}, each of 1 to {LONGEST_STOP} characters") from None


Prompt = Annotated[
    Union[
        str,
        Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)],
        Ids,
        Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)],
    ],
    WrapValidator(_of_four_kinds),
]
Stops = Annotated[
    Union[Stop, Annotated[list[Stop], Field(max_length=MOST_STOPS)]],
    WrapValidator(_of_two_kinds),
]


class StreamOptions(Form):
    """Additions to a stream."""

    include_usage: bool | None = Field(None, description="True: a last chunk with the counts.")


class CompletionRequest(Form):
    """A request for completions.

    A prompt of ids is read after `<s>`, whether it begins with it or not, as a prompt of text is: the network has never
    met a text without it. With `echo` and `logprobs` the first token of the prompt has a log-probability, therefore,
    and only `<s>` itself, if it is sent, has null.

    `model` is a name of GET /v1/models, that of a tuned prompt too, or "a" or "b". `seed`: sample i of a prompt is what
    `kogpt2 generate` writes for it. `top_k`, `min_p` and `repetition_penalty` are additions of this service, and as in
    POST /generate.
    """

    model: str = Field(max_length=4096)
    prompt: Prompt
    max_tokens: int | None = Field(16, ge=0)
    temperature: float | None = Field(1.0, ge=0, le=100)
    top_p: float | None = Field(1.0, ge=0, le=1, description="0 is greedy.")
    n: int | None = Field(1, ge=1, le=MOST_CHOICES)
    best_of: int | None = Field(
        None, ge=1, le=MOST_CHOICES, description="The n likeliest of so many, by log-probability per token."
    )
    stop: Stops | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logprobs: int | None = Field(
        None, ge=0, le=MOST_ALTERNATIVES, description="Lists so many of the likeliest tokens; 0: the chosen ones alone."
    )
    echo: bool | None = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="Is accepted, and without effect on the text.")
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    presence_penalty: float | None = Field(0.0, ge=0, le=0, description="repetition_penalty is what this service has.")
    frequency_penalty: float | None = Field(0.0, ge=0, le=0, description="repetition_penalty is what this service has.")
    logit_bias: dict[str, float] | None = Field(None, max_length=0, description="The service does not have it.")
    suffix: str | None = Field(None, max_length=0, description="The network does not look ahead.")

    @field_validator("presence_penalty", "frequency_penalty", mode="before")
    @classmethod
    def _has_no_penalties(cls, value: Any) -> Any:
        if value and isinstance(value, (int, float)):
            raise ValueError("this service has repetition_penalty in the place of it; only 0 is admitted")
        return value

    @field_validator("logit_bias", "suffix", mode="before")
    @classmethod
    def _has_not(cls, value: Any) -> Any:
        if value:
            raise ValueError("this service does not have it; leave it out")
        return value


class LogProbs(Form):
    """The tokens of a choice. A part of a character is spelled as in ``bytes:\\xed\\x95``."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = Field(
        description="If two tokens are spelled alike, the likelier one."
    )
    text_offset: list[int] = Field(description="In characters of prompt and completion together.")


class CompletionChoice(Form):
    """A completion.

    `stop_reason` says more where `finish_reason` has no word for it: "time" or "shutdown".
    """

    index: int
    text: str
    logprobs: LogProbs | None = None
    finish_reason: Literal["stop", "length"] | None
    stop_reason: Literal["time", "shutdown"] | None = None


class Usage(Form):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Form):
    """The answer, and each chunk of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class Model(Form):
    """A model of the service."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "kogpt2"


class ModelList(Form):
    """All models of the service."""

    object: Literal["list"] = "list"
    data: list[Model]


class OpenAIErrorBody(Form):
    """The fault of a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(Form):
    """The answer to a request that was refused."""

    error: OpenAIErrorBody
