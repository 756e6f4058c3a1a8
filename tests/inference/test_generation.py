"""Sampling: greedy against full forward passes, the filters against their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.generation import generate, generate_from_checkpoint, generate_ids, prompt_notes
from kogpt2_gluon.inference.sampling import Chooser, Sampling, draw
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.tokenizer import Tokenizer

VOCAB, EOS = 50, 2
GREEDY = Sampling(max_new_tokens=12, temperature=0)


@pytest.fixture(scope="module")
def net():
    mx.random.seed(5)
    net = GPT2Model(units=32, vocab_size=VOCAB, max_length=24, num_layers=2, num_heads=4)
    net.initialize(mx.init.Normal(0.6))  # wide enough that the network has opinions
    return net


def full_forward_greedy(net, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        logits, _ = net(mx.nd.array([ids], dtype="int32"))
        token = int(logits[0, -1].asnumpy().argmax())
        if token == EOS:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("prompt", [[1], [1, 5, 9, 30], list(range(3, 15))])
def test_greedy_is_the_argmax_of_full_passes(net, prompt):
    expected = full_forward_greedy(net, prompt, 12)
    assert expected
    assert generate_ids(net, prompt, EOS, GREEDY) == [expected]
    assert generate_ids(net, prompt, EOS, GREEDY, num_samples=3) == [expected] * 3


def test_seeds_repeat_and_samples_differ(net):
    sampling = Sampling(max_new_tokens=15, temperature=1.5, seed=3)
    first = generate_ids(net, [1, 7], EOS, sampling, num_samples=4)
    assert first == generate_ids(net, [1, 7], EOS, sampling, num_samples=4)
    assert len({tuple(sample) for sample in first}) > 1
    # A sample does not depend on how many are drawn with it.
    assert generate_ids(net, [1, 7], EOS, sampling, num_samples=1) == first[:1]
    assert first != generate_ids(net, [1, 7], EOS, Sampling(15, 1.5, seed=4), num_samples=4)


def test_stop_strings_are_not_for_ids(net):
    with pytest.raises(RecipeError, match="stop strings"):
        generate_ids(net, [5], EOS, Sampling(stop=("끝",)))


def test_the_end_of_the_positions_ends_a_text(net):
    endless = -1  # no such id, so nothing ends early
    for length in (1, 23, 24, 60):
        prompt = [1 + i % 40 for i in range(length)]
        (new,) = generate_ids(net, prompt, endless, Sampling(max_new_tokens=100, temperature=0))
        assert len(new) == 24 - min(length, 23)


def test_a_sample_stops_at_its_end_and_the_others_go_on(net):
    sampling = Sampling(max_new_tokens=20, temperature=3.0, seed=0)
    free = generate_ids(net, [1], -1, sampling, num_samples=6)
    end = free[0][3]
    stopped = generate_ids(net, [1], end, sampling, num_samples=6)
    for with_end, without in zip(stopped, free):
        assert with_end == (without[: without.index(end)] if end in without else without)


LOGITS = st.lists(st.floats(-8, 8), min_size=4, max_size=12).map(np.array)


def drawn(logits, sampling, draws=300):
    rng = np.random.default_rng(0)
    return {draw(logits, sampling, rng) for _ in range(draws)}


@settings(max_examples=40, deadline=None)
@given(LOGITS, st.integers(1, 4))
def test_top_k_draws_only_the_k_likeliest(logits, k):
    kth = np.sort(logits)[-k]
    assert all(logits[token] >= kth for token in drawn(logits, Sampling(top_k=k), draws=60))


@settings(max_examples=40, deadline=None)
@given(LOGITS, st.floats(0.05, 1.0))
def test_top_p_draws_only_the_nucleus(logits, p):
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    for token in drawn(logits, Sampling(top_p=p), draws=60):
        # what is likelier than a drawn token does not reach p without it
        assert probabilities[probabilities > probabilities[token]].sum() <= p + 1e-9


def test_draws_follow_the_probabilities():
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    rng = np.random.default_rng(1)
    counts = np.bincount([draw(logits, Sampling(), rng) for _ in range(20000)]) / 20000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.2], atol=0.015)
    cold = np.bincount([draw(logits, Sampling(temperature=0.5), rng) for _ in range(20000)]) / 20000
    np.testing.assert_allclose(cold, np.array([25, 9, 4]) / 38, atol=0.015)


def test_repetition_penalty_pushes_seen_tokens_down_whatever_their_sign():
    greedy = Sampling(temperature=0, repetition_penalty=2.0)
    for logits, seen, expected in (([3.0, 2.0], 0, 1), ([-1.0, -1.5], 0, 1), ([3.0, 2.0], 7, 0)):
        assert Chooser(greedy, [seen], EOS, 2).next_id(np.array(logits, np.float32)) == expected


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer):
    return SentencePieceTokenizer(small_tokenizer, Path("small.model"))


@pytest.fixture(scope="module")
def stammerer(tokenizer):
    """A network whose logits are the same at every place: <unk> far above <pad>, that far above 가, the rest at 0."""
    net = GPT2Model(units=16, vocab_size=tokenizer.vocab_size, max_length=32, num_layers=1, num_heads=2)
    net.initialize()
    weight = np.zeros((tokenizer.vocab_size, 16), np.float32)
    weight[tokenizer.unk_id], weight[tokenizer.pad_id], weight[tokenizer.encode("가")[-1]] = 4, 3, 2
    net._embed.weight.set_data(mx.nd.array(weight))
    net._final_ln.gamma.set_data(mx.nd.zeros(16))
    net._final_ln.beta.set_data(mx.nd.ones(16))
    return net


@pytest.mark.parametrize("how", [{"temperature": 0}, {}, {"top_k": 3}, {"top_p": 0.9}, {"repetition_penalty": 1.01}])
def test_unk_and_pad_are_left_out_unless_asked_for(stammerer, tokenizer, how):
    placeholder = tokenizer.decode([tokenizer.unk_id]).strip()
    assert placeholder == "⁇"
    for text in generate(stammerer, tokenizer, "가", Sampling(12, **how), num_samples=3):
        assert placeholder not in text and text.count("가") >= 12
    for text in generate(stammerer, tokenizer, "가", Sampling(12, **how, allow_unknown=True), num_samples=3):
        assert text.count(placeholder) == 12


def test_pad_is_never_chosen(stammerer, tokenizer, monkeypatch):
    chosen, decode = [], Tokenizer.decode
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: chosen.extend(ids) or decode(self, ids))
    for allow in (False, True):
        generate(stammerer, tokenizer, "가", Sampling(12, temperature=10.0, allow_unknown=allow), num_samples=4)
    assert tokenizer.unk_id in chosen and tokenizer.pad_id not in chosen
    free = generate_ids(stammerer, [1], EOS, Sampling(12, temperature=10.0), num_samples=4)
    assert any(tokenizer.pad_id in ids for ids in free)  # it is the likeliest token after <unk>


# What the network does not read as it is written


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("오늘 龘 날씨", ["'龘': the network reads <unk> there"]),
        ("😀 가 😀 鱻", ["'😀', '鱻': the network reads <unk>"]),
        ("ⵣ ⵥ ⵔ ⵕ ⵖ ⵚ", ["'ⵣ', 'ⵥ', 'ⵔ', 'ⵕ', 'ⵖ' and 1 more"]),
        ("오늘은 날씨가 맑아서", []),
        ("", []),
    ],
)
def test_what_the_tokenizer_cannot_spell_is_told(tokenizer, prompt, told):
    notes = prompt_notes(tokenizer, prompt, 1024, 60)
    assert len(notes) == len(told) and all(part in note for part, note in zip(told, notes))
    assert bool(told) == ("⁇" in tokenizer.decode(tokenizer.encode(prompt)))


@pytest.mark.parametrize(
    ("length", "positions", "new", "told"),
    [
        (160, 128, 60, "the prompt has 160 tokens and the network 128 positions: it does not read the first 33, and"),
        (128, 128, 60, "does not read the first 1, and writes one new token"),
        (5000, 24, 1, "has 5,000 tokens and the network 24 positions: it does not read the first 4,977"),
        (127, 128, 60, "128 positions, so at most 1 new tokens follow the 127 of the prompt, not 60"),
        (120, 128, 60, "at most 8 new tokens follow the 120"),
        (68, 128, 60, None),
    ],
)
def test_a_prompt_that_does_not_fit_is_told(tokenizer, monkeypatch, length, positions, new, told):
    monkeypatch.setattr(tokenizer, "encode", lambda text: [9] * (length - 1))
    monkeypatch.setattr(tokenizer, "unknown_in", lambda text: [])
    notes = prompt_notes(tokenizer, "x", positions, new)
    assert told in notes[0] if told else notes == []


def test_notes_come_before_the_texts(checkpoint):
    said = []
    prompt = "오늘 龘 " + "가 나 다 라 " * 40
    texts = generate_from_checkpoint(checkpoint.path, prompt, Sampling(3), 2, say=said.append)
    assert len(texts) == 2 and len(said) == 2 and "'龘'" in said[0] and "64 positions: it does not read" in said[1]
