"""The texts of a prompt as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kogpt2_gluon.inference.sampling import Choice
    from kogpt2_gluon.inference.text_writer import Text
    from kogpt2_gluon.tokens.tokenizer import Tokenizer


def texts_to_dict(
    texts: Sequence[Text], prompt: Sequence[int], has_logprobs: bool, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Returns lists with a value for each text, and the number of tokens of the prompt, ``<s>`` included."""
    found: dict[str, Any] = {
        "texts": [text.whole for text in texts],
        "continuations": [text.new for text in texts],
        "finish_reasons": [text.finish_reason for text in texts],
        "prompt_tokens": len(prompt),
        "new_tokens": [text.num_tokens for text in texts],
    }
    if any(text.score is not None for text in texts):
        found["scores"] = [text.score for text in texts]
    if has_logprobs:
        found["logprobs"] = [[_choice_to_dict(choice, tokenizer) for choice in text.choices] for text in texts]
    if any(text.error for text in texts):
        found["errors"] = [text.error or None for text in texts]
    return found


def _choice_to_dict(choice: Choice, tokenizer: Tokenizer) -> dict[str, Any]:
    likeliest = [_token_to_dict(*each, tokenizer) for each in choice.alternatives]
    return {**_token_to_dict(choice.token, choice.log_probability, tokenizer), "likeliest": likeliest}


def _token_to_dict(token: int, log_probability: float, tokenizer: Tokenizer) -> dict[str, Any]:
    piece = tokenizer.pieces[token] if token < tokenizer.vocab_size else ""  # a network can have more rows than pieces
    return {"id": token, "piece": piece, "logprob": log_probability}
