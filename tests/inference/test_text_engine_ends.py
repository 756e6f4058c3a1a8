"""How texts of the engine end: stop strings, log-probabilities, and failures that end no other text."""

from __future__ import annotations

import gc

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.text_engine import TextEngine, TextRequest
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Slots
from tests.inference.text_engine_helpers import GREEDY, POSITIONS, alone, gather, make_net, tokenizer

__all__ = ["tokenizer"]


# Stop strings


@pytest.fixture(scope="module")
def stock(tokenizer) -> GPT2Model:
    return make_net(tokenizer)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 50), begin=st.integers(0, 12), length=st.integers(1, 6), num_samples=st.integers(1, 2))
def test_a_text_ends_before_a_stop_string(stock, tokenizer, seed, begin, length, num_samples):
    """One that is taken from the middle of a text, wherever the borders of its tokens are."""
    prompt = [1, *tokenizer.encode("오늘은")]
    sampling = Sampling(14, temperature=1.5, top_k=50, seed=seed)
    engine = TextEngine(stock, tokenizer)
    free = gather([*_texts(engine, prompt, sampling, 1)], tokenizer)[0][1]
    stop = free[begin : begin + length]
    if not stop:
        return
    stopping = Sampling(14, temperature=1.5, top_k=50, seed=seed, stop=(stop, "never there"))
    _, text, reason = gather([*_texts(TextEngine(stock, tokenizer), prompt, stopping, num_samples)], tokenizer)[0]
    assert text == free[: free.index(stop)] and reason == "stop" and stop not in text


def _texts(engine: TextEngine, prompt, sampling, num_samples):
    for sample in range(num_samples):
        engine.add(TextRequest(prompt, sampling, sample))
    return engine.run()


def test_the_prompt_is_not_searched_for_stop_strings(stock, tokenizer):
    prompt = [1, *tokenizer.encode("오늘은 날씨가")]
    found = gather([*_texts(TextEngine(stock, tokenizer), prompt, Sampling(6, seed=1, stop=("날씨가",)), 1)], tokenizer)
    assert found[0][2] == "length" and len(found[0][0]) == 6


def test_a_stop_string_waits_for_the_least_tokens(stock, tokenizer):
    prompt, free = [1, *tokenizer.encode("오늘은")], Sampling(12, seed=4, top_k=50, min_new_tokens=12)
    text = gather([*_texts(TextEngine(stock, tokenizer), prompt, free, 1)], tokenizer)[0][1]
    for least in (0, 1, 4, 12):
        sampling = Sampling(12, seed=4, top_k=50, min_new_tokens=least, stop=tuple(set(text)))
        ids, shown, reason = gather([*_texts(TextEngine(stock, tokenizer), prompt, sampling, 1)], tokenizer)[0]
        assert least <= len(ids) <= least + 4 and reason == "stop" and text.startswith(shown)


def test_what_was_held_back_is_shown_at_the_end(stock, tokenizer):
    engine = TextEngine(stock, tokenizer)
    prompt, sampling = [1, *tokenizer.encode("오늘은")], Sampling(5, seed=4, top_k=50)
    free = gather([*_texts(engine, prompt, sampling, 1)], tokenizer)[0][1]
    held = Sampling(5, seed=4, top_k=50, stop=(free[-2:] + "~",))
    assert gather([*_texts(TextEngine(stock, tokenizer), prompt, held, 1)], tokenizer)[0] == (
        *gather([*_texts(TextEngine(stock, tokenizer), prompt, sampling, 1)], tokenizer)[0],
    )


# Log-probabilities


def test_log_probabilities_and_alternatives_are_the_networks_own(stock, tokenizer):
    prompt = [1, *tokenizer.encode("오늘은")]
    sampling = Sampling(6, temperature=0.7, top_k=3, repetition_penalty=1.3, seed=2, alternatives=4)
    choices = [each.choice for each in _texts(TextEngine(stock, tokenizer), prompt, sampling, 1)]
    ids = [*prompt, *(choice.token for choice in choices)]
    logits = stock(mx.nd.array([ids], dtype="int32"))[0][0].asnumpy()[:, : tokenizer.vocab_size].astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    expected -= logits.max(1, keepdims=True)
    for place, choice in enumerate(choices, start=len(prompt) - 1):
        assert choice.log_probability == pytest.approx(expected[place, choice.token], abs=1e-4)
        assert [token for token, _ in choice.alternatives] == list(np.argsort(-expected[place], kind="stable")[:4])


# Faults


class Broken(Slots):
    """Slots whose logits after a certain token are no numbers."""

    def next_logits(self, runs):
        rows = super().next_logits(runs)
        for row, (_, tokens) in zip(rows, runs):
            if list(tokens)[-1] == 77:
                row[3] = np.nan
            if list(tokens)[-1] == 78:
                raise mx.MXNetError("Check failed:\n  out of something")
        return rows


def test_logits_that_are_no_numbers_end_that_text_alone(stock, tokenizer):
    engine = TextEngine(stock, tokenizer, num_slots=3)
    engine._slots = Broken(stock, 3, POSITIONS)
    good = TextRequest([1, 30, 31], Sampling(5, seed=1))
    engine.add(TextRequest([1, 77], GREEDY))
    number = engine.add(good)
    written = list(engine.run())
    assert written[0].finish_reason == "error" and "not finite" in written[0].error
    assert gather(written, tokenizer)[number][0] == alone(stock, tokenizer, good)


def test_settings_that_exclude_every_token_end_that_text_alone(stock, tokenizer):
    engine = TextEngine(stock, tokenizer)
    none = tuple((token,) for token in range(tokenizer.vocab_size) if token != tokenizer.eos_id)
    engine.add(TextRequest([1, 30], Sampling(5, bad_words=none, min_new_tokens=1)))
    number = engine.add(TextRequest([1, 30, 31], Sampling(5, seed=1)))
    written = list(engine.run())
    assert written[0].finish_reason == "error" and "exclude less" in written[0].error
    assert gather(written, tokenizer)[number][2] == "length"


def test_a_pass_that_fails_ends_its_texts_and_not_those_that_wait(stock, tokenizer):
    engine = TextEngine(stock, tokenizer, num_slots=2)
    engine._slots = Broken(stock, 2, POSITIONS)
    good = TextRequest([1, 30, 31], Sampling(5, seed=1))
    numbers = [engine.add(each) for each in (TextRequest([1, 78], GREEDY), good, good)]
    written = list(engine.run())
    found = gather(written, tokenizer)
    assert [found[number][2] for number in numbers] == ["error", "error", "length"]
    assert written[0].error == "the network failed: Check failed: out of something"
    assert found[numbers[2]][0] == alone(stock, tokenizer, good)


@pytest.mark.filterwarnings("ignore")  # pytest keeps those that MXNet gives
def test_memory_stays_flat(stock, tokenizer):
    """Texts that are written, some of them cancelled, leave nothing behind."""
    engine = TextEngine(stock, tokenizer, num_slots=8)

    def many(count: int) -> int:
        for place in range(count):
            number = engine.add(TextRequest([1, 20 + place % 300], Sampling(1 + place % 3, seed=place, stop=("가나",))))
            if place % 5 == 0:
                engine.cancel(number)
            if place % 8 == 0:
                engine.step()
        list(engine.run())
        gc.collect()
        return len(gc.get_objects())

    many(60)
    memory = psutil.Process().memory_info().rss
    _, before, after = (many(400) for _ in range(3))  # whatever is made once, by other threads too, is there by then
    assert after <= before + 50
    assert psutil.Process().memory_info().rss - memory < 8 << 20
