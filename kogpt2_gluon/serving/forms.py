"""The forms of requests and answers of /generate, /score and /about; openapi.json is made of them.

A form takes no field that it does not have, and a number only where a number is meant: what a client misspells is
refused, never left out in silence. Log-probabilities are natural logarithms, by the network itself, before any setting
of sampling. A stream of /generate has server-sent events, each a line ``event: NAME`` and a line ``data: JSON``:

- ``start``: one :class:`Start`, first;
- ``token``: a :class:`Token` for each token of each text, in their order; the texts of a request take turns;
- ``end``: an :class:`End` for each text;
- ``error``: an :class:`Refusal`, in the place of all that would follow.

The stream is complete when each text has had its ``end``; a stream that closes before that was cut off.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGEST_SEED = 2**53 - 1  # the largest integer that JavaScript has
MOST_ALTERNATIVES, MOST_SAMPLES = 20, 128
MOST_STOPS, LONGEST_STOP, MOST_BAD_WORDS = 16, 200, 64
ModelName = Literal["a", "b"]
# (text, log-probability, id); a token that is a part of a character is spelled as in "bytes:\xed\x95".
Alternative = tuple[str, float, int]


class Form(BaseModel):
    """The base of all forms."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, data: Any) -> Any:
        """Refuses a field that the form lacks, and names the nearest one that it has."""
        unknown = [name for name in data if name not in cls.model_fields] if isinstance(data, dict) else []
        if unknown:
            near = difflib.get_close_matches(str(unknown[0])[:80], cls.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(cls.model_fields)}"
            raise ValueError(f"there is no field {str(unknown[0])[:80]!r}; {hint}")
        return data


class GenerateRequest(Form):
    """A prompt to continue.

    The settings are those of `kogpt2 generate`, with the same names, meanings and defaults, and the same texts come of
    them: sample number i of a seed is the same text here and there, whatever else is being written. Without `seed` one
    is drawn; the answer has it. Numbers may be lower than what the service's limits allow, never higher.
    """

    prompt: str = Field(description="The beginning of a document; '' continues nothing.")
    written: list[Annotated[int, Field(ge=0)]] = Field(
        [],
        fail_fast=True,  # not an error for each of a million ids
        description="Ids of new tokens that the text has already, such as an earlier answer's up to an alternative.",
    )
    model: ModelName = Field("a", description="'b' is the checkpoint of --compare.")
    prompt_tuning: str = Field("", description="Name of a tuned prompt of the service (--prompt), which comes first.")
    num_samples: int = Field(1, ge=1, le=MOST_SAMPLES, description="How many texts.")
    max_new_tokens: int = Field(60, ge=1, description="A text ends after so many new tokens.")
    temperature: float = Field(1.0, ge=0, le=100, description="Logits are divided by it; 0 is greedy.")
    top_k: int = Field(0, ge=0, le=2**31 - 1, description="Keep the k likeliest tokens; 0: all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Keep the likeliest tokens that have this probability together.")
    repetition_penalty: float = Field(
        1.0, ge=0.01, le=100, description="Above 1: avoid tokens that the text has already."
    )
    min_p: float = Field(0.0, ge=0, le=1, description="Keep tokens with this share of the likeliest one's probability.")
    typical_p: float = Field(
        1.0, gt=0, le=1, description="Keep the most typical tokens that have this probability together."
    )
    no_repeat_ngram_size: int = Field(
        0, ge=0, le=2**31 - 1, description="No sequence of so many tokens comes twice; 0: any may."
    )
    min_new_tokens: int = Field(0, ge=0, description="A text does not end before it has so many new tokens.")
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED, description="Of the draws; null: one is drawn.")
    allow_unknown: bool = Field(False, description="Allow <unk>, the token of text that the tokenizer cannot spell.")
    stop: list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]] = Field(
        [], max_length=MOST_STOPS, description="A text ends before the first of these that it has."
    )
    bad_words: list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]] = Field(
        [],
        max_length=MOST_BAD_WORDS,
        description="Words that are not written; one with a space in front may still be a part of another word.",
    )
    alternatives: int = Field(
        0, ge=0, le=MOST_ALTERNATIVES, description="How many of the likeliest tokens each token lists."
    )
    stream: bool = Field(False, description="True: server-sent events, a token each, in the place of one answer.")


class Token(Form):
    """A new token: an element of :class:`Text`, and the data of the event ``token``.

    `text` is what is certain now and was not before: whole characters. It is '' while a character is not finished, and
    for `</s>`; all of them joined are the text. `spelling` is the token alone, as the alternatives are spelled.
    """

    sample: int = Field(description="The number of the text, from 0.")
    text: str
    id: int
    spelling: str
    log_probability: float
    alternatives: list[Alternative] = Field(description="The likeliest tokens, the likeliest one first.")


class End(Form):
    """Why a text ended, and its counts: a part of :class:`Text`, and the data of the event ``end``.

    `finish_reason` is ``stop`` at `</s>` or a text of `stop`; ``length`` at `max_new_tokens` or at the end of the
    network's positions; ``time`` after the service's seconds for a request; ``shutdown`` if the service had to stop.
    `text` is what of the text no token had: a character that never became whole.
    """

    sample: int
    text: str = Field("", description="To add to the tokens' texts.")
    finish_reason: Literal["stop", "length", "time", "shutdown"]
    tokens_read: int = Field(description="Of the prompt, <s> included.")
    tokens_written: int = Field(description="New tokens, </s> not counted.")


class Start(Form):
    """The data of the event ``start``."""

    model: ModelName
    seed: int
    tokens_read: int = Field(description="Of the prompt, <s> included.")
    text: str = Field("", description="What the ids of `written` add to the prompt; the tokens' texts follow it.")
    notes: list[str] = Field(description="What of the prompt the network does not read as it is written.")


class Text(Form):
    """A continuation."""

    text: str = Field(description="What follows the prompt; it begins with the space between, if there is one.")
    tokens: list[Token]
    finish_reason: Literal["stop", "length", "time", "shutdown"] = Field(description="See End.")
    tokens_read: int
    tokens_written: int


class GenerateAnswer(Start):
    """The answer of /generate without `stream`."""

    texts: list[Text] = Field(description="In the order of their sample numbers.")


class ScoreRequest(Form):
    """A prompt, and the choices of which one follows."""

    prompt: str
    choices: list[str] = Field(min_length=1, max_length=256)
    model: ModelName = "a"
    prompt_tuning: str = Field("", description="As in GenerateRequest.")


class ChoiceScore(Form):
    """How likely a choice is after the prompt."""

    choice: str
    log_likelihood: float = Field(description="Summed over its tokens.")
    is_greedy: bool = Field(description="True if each of its tokens is the likeliest one at its place.")
    tokens: int


class ScoreAnswer(Form):
    """The answer of /score."""

    model: ModelName
    choices: list[ChoiceScore] = Field(description="In the order of the request.")
    best: int = Field(description="Which of them is the likeliest, from 0.")
    notes: list[str]


class TunedAbout(Form):
    """A tuned prompt that requests may name."""

    name: str = Field(description="For `prompt_tuning`.")
    positions: int = Field(description="How many of the network's positions it takes.")
    folder: str = Field(description="The path as `kogpt2 generate --tuned-prompt` takes it.")


class ModelAbout(Form):
    """A network that the service has.

    `defaults` are those of :class:`GenerateRequest`.
    """

    model: ModelName
    name: str = Field(description="The run's name and the step of the checkpoint, such as demo/step-00000300.")
    parameters: int
    units: int
    num_layers: int
    num_heads: int
    vocab_size: int
    end_id: int = Field(description="Of </s>, which ends a text.")
    max_length: int = Field(description="Positions: the most tokens of a text, prompt and <s> included.")
    weights: str = Field(description="float32, bfloat16, int8, 1bit to 4bit, or codes.")
    checkpoint: str = Field(description="The path as `kogpt2 generate` takes it.")
    options: dict[str, str] = Field(description="Options with which `kogpt2 generate` loads it as the service did.")
    tuned: list[TunedAbout]


class Limits(Form):
    """The limits of the service."""

    max_new_tokens: int
    num_samples: int
    alternatives: int
    stop: int = Field(description="Texts to stop at.")
    seconds: float = Field(description="Of a request; what is written by then is answered.")
    waiting: int = Field(description="Texts that may wait for a place.")
    body_bytes: int


class About(Form):
    """The answer of GET /about."""

    version: str
    models: list[ModelAbout] = Field(description="One, or with --compare two: 'a' and 'b'.")
    defaults: dict[str, Any] = Field(description="The defaults of a request to /generate.")
    limits: Limits


class RefusalReason(Form):
    """Why a request was refused."""

    reason: str = Field(description="A word for programs, such as bad_request or queue_full.")
    message: str = Field(description="One line for people.")


class Refusal(Form):
    """The answer to a request that was refused, with a status of 400 or more; the data of the event ``error``."""

    error: RefusalReason


Event = Union[Start, Token, End, Refusal]
