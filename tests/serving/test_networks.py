"""Networks as a service has them: whichever weights they keep, texts are scored with those they are written by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the service needs it: the extra serve")

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.text_engine import TextRequest
from kogpt2_gluon.serving.networks import Loading, Network
from kogpt2_gluon.serving.refusals import Refused

PROMPT = "오늘은 날씨가 맑아서"


# Products of many rows in bfloat16 round their factors too, and those of one row do not: 8 bits of a log-probability.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.02, "int8": 1e-4, "4bit": 1e-4}


@pytest.mark.parametrize("weights", TOLERANCES)
def test_what_is_scored_is_what_is_written(checkpoint: Path, weights: str):
    network = Network("a", checkpoint, Loading(weights=weights), 2)
    assert (network.about().weights, network.about().options) == (weights, {"--weights": weights})
    engine = network.make_engine()
    prompt = network.encode(PROMPT)
    engine.add(TextRequest(prompt, Sampling(20, seed=1, alternatives=3, allow_unknown=True)))
    choices = [step.choice for step in engine.run() if step.choice]
    ids = [choice.token for choice in choices]
    assert len(ids) > 3
    scored = network.token_scorer.score([*prompt, *ids], 3)[len(prompt) - 1 :]
    assert [each.token for each in scored] == ids
    written = [choice.log_probability for choice in choices]
    assert [each.log_probability for each in scored] == pytest.approx(written, abs=TOLERANCES[weights])
    (whole,) = network.likelihoods(np.array(prompt, np.int32), [np.array(ids, np.int32)])
    assert whole.log_likelihood == pytest.approx(sum(written), abs=len(ids) * TOLERANCES[weights])
    assert whole.tokens == len(ids)
    parts = network.likelihoods(np.array(prompt, np.int32), [np.array(ids[:end], np.int32) for end in (1, 4, 2)])
    sums = [sum(each.log_probability for each in scored[:end]) for end in (1, 4, 2)]
    assert [each.log_likelihood for each in parts] == pytest.approx(sums, abs=4 * TOLERANCES[weights])
    assert [each.tokens for each in parts] == [1, 4, 2], "the context is read once, for all of them"
    if weights != "bfloat16":  # in which two nearly equal tokens can change places
        listed = [[token for token, _ in each.alternatives] for each in choices]
        assert [[token for token, _ in each.alternatives] for each in scored] == listed
        assert whole.is_greedy == all(each.alternatives[0][0] == each.token for each in choices)


def test_spellings(checkpoint: Path):
    """Each token has one, and only parts of characters are spelled in bytes."""
    network = Network("a", checkpoint, Loading(), 1)
    tokenizer = network.tokenizer
    for token in range(tokenizer.vocab_size):
        spelled = network.spelling(token)
        if tokenizer.is_special(token):
            assert spelled == tokenizer.pieces[token]
        elif spelled.startswith("bytes:"):
            assert bytes.fromhex(spelled.removeprefix("bytes:").replace("\\x", "")) == tokenizer.spellings[token]
        else:
            assert spelled.encode() == tokenizer.spellings[token]


def test_what_does_not_fit_is_refused(checkpoint: Path):
    network = Network("a", checkpoint, Loading(), 1)
    with pytest.raises(Refused, match="id 450 is not one of 0 to 449"):
        network.check_ids([1, 450], "prompt")
    network.check_room([1] * (network.max_length - 1))
    with pytest.raises(Refused, match="leave room for"):
        network.check_room([1] * network.max_length)
    with pytest.raises(RecipeError, match="weights=int8"):
        Network("a", checkpoint, Loading(ops="stock", weights="int8"), 1).make_engine()
