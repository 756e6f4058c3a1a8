"""Beam search: the ids and scores of transformers' generate on the converted folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.beam_search import _Beam, _Finished, beam_search
from kogpt2_gluon.inference.continuation import END, LENGTH, Continuation
from kogpt2_gluon.inference.sampling import Choice, Sampling
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import slots_for
from tests.inference.search_helpers import Pair, draw_prompts, log_probabilities
from tests.lazy_modules import needed

torch = needed("torch", reason="a peer of the test")

NEW = 10
PLAIN = Sampling(NEW)


@pytest.fixture(scope="module")
def prompts(pair) -> list[list[int]]:
    return draw_prompts(pair.tokenizer, 3)


def theirs(pair: Pair, prompt: list[int], **how: Any) -> list[tuple[list[int], float]]:
    """New ids without padding and </s>, and scores."""
    with torch.no_grad():
        out = pair.torch_net.generate(
            torch.tensor([prompt]),
            do_sample=False,
            suppress_tokens=pair.left_out,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=3,
            **{"max_new_tokens": NEW, **how},
        )
    new = [[token for token in ids if token != 3] for ids in out.sequences[:, len(prompt) :].tolist()]
    return [(ids[: ids.index(2)] if 2 in ids else ids, score) for ids, score in zip(new, out.sequences_scores.tolist())]


def ours(pair: Pair, prompt: list[int], sampling: Sampling = PLAIN, **how: Any) -> list[Continuation]:
    how = {"num_beams": 4, "vocab_size": pair.tokenizer.vocab_size, "left_out": pair.left_out, **how}
    slots = pair.slots(how["num_beams"])
    found = beam_search(slots, prompt, 2, sampling, **how)
    assert not any(slots.lengths)
    return found


def assert_equal(found: list[Continuation], expected: list[tuple[list[int], float]]) -> None:
    assert [each.ids for each in found] == [ids for ids, _ in expected]
    assert [each.score for each in found] == pytest.approx([score for _, score in expected], abs=1e-4)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.0, 2.0])
def test_equal_transformers(pair, prompts, length_penalty, early_stopping):
    for number, prompt in enumerate(prompts):
        beams = 2 + number % 4
        how = {"num_beams": beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
        found = ours(pair, prompt, num_return=beams, **how)
        assert_equal(found, theirs(pair, prompt, num_return_sequences=beams, **how))


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.floats(-10, -0.01), min_size=2, max_size=3),
    st.floats(-10, -0.01),
    st.integers(1, 20),
    st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0]),
    st.sampled_from([True, False, "never"]),
)
def test_a_search_stops_where_transformers_does(finished, total, step, length_penalty, early_stopping):
    """Its own rule for one text, on scores of finished texts and of the best that goes on."""
    from transformers import GenerationMixin

    ours = _Finished(3, length_penalty, early_stopping, 20)
    for score in finished:
        ours.add(_Beam(score, (Choice(5, score, []),), 0), END)  # of one token, so that this is the score
    padded = torch.tensor([finished + [-1e9] * (3 - len(finished))], dtype=torch.float64)
    is_finished = padded > -1e9
    goes_on = GenerationMixin._check_early_stop_heuristic(
        torch.ones(1, 1, dtype=torch.bool),
        torch.tensor([[total]], dtype=torch.float64),
        padded,
        is_finished,
        cur_len=7 + step,
        max_length=7 + 20,
        decoder_prompt_len=7,
        early_stopping=early_stopping,
        length_penalty=length_penalty,
    )
    goes_on = bool(goes_on) and not (bool(is_finished.all()) and early_stopping is True)
    assert ours.are_best(_Beam(total, (), 0), step) == (not goes_on)


def test_texts_end_in_both_ways_and_at_many_lengths(pair, prompts):
    found = [each for prompt in prompts for each in ours(pair, prompt, num_return=4)]
    assert {each.finish_reason for each in found} == {END, LENGTH} and len({len(each.ids) for each in found}) > 4
    for each in found:
        assert (each.choices[-1].token == 2) == (each.finish_reason == END)
        assert [choice.token for choice in each.choices if choice.token != 2] == each.ids


@pytest.mark.parametrize(
    "how",
    [
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.4},
        {"repetition_penalty": 0.7},
        {"min_new_tokens": 7},
        {"min_new_tokens": NEW},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2, "min_new_tokens": 4},
    ],
)
def test_settings_equal_transformers(pair, prompts, how):
    changed = 0
    for prompt in prompts:
        found = ours(pair, prompt, Sampling(NEW, **how), num_return=4)
        assert_equal(found, theirs(pair, prompt, num_beams=4, num_return_sequences=4, **how))
        changed += [each.ids for each in found] != [each.ids for each in ours(pair, prompt, num_return=4)]
    assert changed


def test_bad_words_equal_transformers(pair, prompts):
    for prompt in prompts:
        free = ours(pair, prompt, Sampling(NEW, min_new_tokens=4))[0].ids
        words = ((free[0], free[1]), (free[2],), (prompt[-1], free[3]), (399, 398, 397))
        (found,) = ours(pair, prompt, Sampling(NEW, bad_words=words))
        assert_equal([found], theirs(pair, prompt, num_beams=4, bad_words_ids=[list(word) for word in words]))
        assert found.ids != free


def test_ends_of_ones_own_equal_transformers(pair, prompts):
    """Another end than </s>, such as a stop string, is a stopping criterion of transformers."""

    def is_end(new):
        return new[-1] % 3 == 0

    ends = []
    for prompt in prompts:
        criterion = [lambda ids, scores: ids[:, -1] % 3 == 0]
        found = ours(pair, prompt, is_end=is_end, num_return=4)
        assert_equal(found, theirs(pair, prompt, num_beams=4, num_return_sequences=4, stopping_criteria=criterion))
        ends += [each.choices[-1].token for each in found if each.finish_reason == END]
        later = ours(pair, prompt, Sampling(NEW, min_new_tokens=5), is_end=is_end, num_return=4)
        assert min(len(each.ids) for each in found) < 5 <= min(len(each.ids) for each in later)
    assert 2 in ends and len(set(ends)) > 1


def test_the_end_of_the_positions_ends_texts(pair):
    prompt = draw_prompts(pair.tokenizer, 1, longest=2)[0] * 31  # of 64 positions
    assert len(prompt) == 62
    found = ours(pair, prompt, Sampling(NEW, min_new_tokens=2), num_return=4)
    assert_equal(found, theirs(pair, prompt, num_beams=4, num_return_sequences=4, max_new_tokens=2, min_new_tokens=2))
    assert {each.finish_reason for each in found} == {LENGTH}
    with pytest.raises(RecipeError, match="64 tokens with <s>; the network's 64 positions leave room for 63 and a new"):
        ours(pair, prompt + prompt[:2])


def test_log_probabilities_are_the_networks_own(pair, prompts):
    sampling = Sampling(NEW, repetition_penalty=1.3, no_repeat_ngram_size=2, alternatives=3)
    for each in ours(pair, prompts[0], sampling, num_return=4, length_penalty=0.5):
        tokens = [choice.token for choice in each.choices]
        rows = log_probabilities(pair, prompts[0], tokens)
        own = rows[np.arange(len(tokens)), tokens]
        np.testing.assert_allclose([choice.log_probability for choice in each.choices], own, atol=1e-4)
        assert each.log_probability == pytest.approx(own.sum(), abs=1e-4)
        for row, choice in zip(rows, each.choices):
            assert [token for token, _ in choice.alternatives] == np.argsort(-row)[:3].tolist()
            np.testing.assert_allclose([log for _, log in choice.alternatives], np.sort(row)[::-1][:3], atol=1e-4)
    plain = ours(pair, prompts[0], num_return=4, length_penalty=0.5)
    for each in plain:  # nothing is penalized
        assert each.score == pytest.approx(each.log_probability / len(each.choices) ** 0.5)


def test_fewer_tokens_than_beams(pair):
    """Where only a few tokens may follow, there are fewer beams, and fewer texts: none is written twice."""
    few = [token for token in range(pair.tokenizer.vocab_size) if token not in (20, 21)]
    found = ours(pair, [1, 30], Sampling(2), num_beams=8, num_return=8, left_out=few)
    assert sorted(each.ids for each in found) == [[20, 20], [20, 21], [21, 20], [21, 21]]
    found = ours(pair, [1, 30], Sampling(3, no_repeat_ngram_size=1), num_return=4, left_out=few[:2] + few[3:])
    texts = [tuple(each.ids) for each in found]
    assert len(set(texts)) == 4 and set(texts) <= {(), (20,), (20, 21), (21,), (21, 20)}
    with pytest.raises(RecipeError, match="none of 400 tokens may follow here by no_repeat_ngram_size: exclude less"):
        ours(pair, [1, 30], Sampling(3, no_repeat_ngram_size=1), left_out=few)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"num_beams": 1}, "num_beams=1: it must be 2 or more; temperature 0 is a search with one"),
        ({"num_return": 5}, "num_return=5: it must be from 1 to num_beams=4"),
        ({"num_return": 0}, "num_return=0"),
        ({"length_penalty": float("nan")}, "length_penalty=nan: it must be from -100 to 100"),
        ({"length_penalty": 1000.0}, "length_penalty=1000.0"),
        ({"early_stopping": "always"}, "early_stopping='always': it must be true, false or \"never\""),
        ({"sampling": Sampling(top_k=40)}, "top_k=40: beam search draws nothing, so it would be without effect"),
        ({"sampling": Sampling(temperature=0.8)}, "temperature=0.8: beam search draws nothing"),
        ({"sampling": Sampling(bad_words=((400,),))}, "bad_words: 400 is not one of the 400 ids"),
    ],
)
def test_bad_settings_are_named(pair, how, told):
    with pytest.raises(RecipeError) as error:
        ours(pair, [1, 20], **how)
    assert told in str(error.value)


def test_a_search_can_be_ended_from_outside(pair):
    slots, passes = pair.slots(4), []

    def stop() -> None:
        passes.append(1)
        if len(passes) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        beam_search(slots, [1, 20], 2, Sampling(NEW), vocab_size=400, before_step=stop)
    assert len(passes) == 3 and not any(slots.lengths)


def test_logits_that_are_not_finite_are_told():
    net = GPT2Model(units=16, vocab_size=50, max_length=24, num_layers=1, num_heads=2)
    net.initialize()
    net._final_ln.beta.set_data(mx.nd.full(16, float("nan")))
    with pytest.raises(DataError, match="50 of its 50 logits are not finite"):
        beam_search(slots_for(net, 2, 24), [1], 2, Sampling(4), 2, vocab_size=50)
