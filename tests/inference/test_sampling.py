"""Sampling: the probabilities that transformers' generate draws by, with its logits processors, in its order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.sampling import Choice, Chooser, Restrictions, Sampling, draw
from kogpt2_gluon.model.slots import Run
from tests.inference.search_helpers import Pair, draw_prompts, make_pair
from tests.lazy_modules import needed

torch = needed("torch", reason="a peer of the test")


@pytest.fixture(scope="module")
def pair(tmp_path_factory, small_tokenizer, transformers) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"), small_tokenizer)


EOS = 2
BORDER = 1e-9  # how near to a threshold rounding decides


def theirs(logits: np.ndarray, ids: list[int], prompt_length: int, sampling: Sampling, left_out=()) -> np.ndarray:
    """The probabilities after the processors that generate makes of the same settings, in double precision."""
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    how: dict[str, Any] = {
        "do_sample": sampling.temperature > 0,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repetition_penalty": float(sampling.repetition_penalty),
        "no_repeat_ngram_size": sampling.no_repeat_ngram_size,
        "bad_words_ids": [list(word) for word in sampling.bad_words] or None,
        "min_new_tokens": sampling.min_new_tokens,
        "suppress_tokens": list(left_out) or None,
    }
    if sampling.temperature:
        how["temperature"] = float(sampling.temperature)
    config = GenerationConfig(eos_token_id=EOS, pad_token_id=3, max_new_tokens=10, **how)
    config._eos_token_tensor = torch.tensor([EOS])
    if not hasattr(theirs, "net"):
        theirs.net = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=8, n_embd=4, n_layer=1, n_head=1))
    processors = theirs.net._get_logits_processor(config, input_ids_seq_length=prompt_length, device="cpu")
    scores = processors(torch.tensor([ids]), torch.tensor(logits, dtype=torch.float64)[None])[0]
    if not sampling.temperature:
        return np.eye(len(logits))[int(scores.argmax())]
    return torch.softmax(scores, -1).numpy()


def ours(logits: np.ndarray, ids: list[int], prompt_length: int, sampling: Sampling, left_out=()) -> np.ndarray:
    chooser = Chooser(sampling, ids[:prompt_length], EOS, len(logits), left_out)
    chooser._ids = list(ids)
    return chooser.distribution(logits)


def assert_equal(logits, ids, prompt_length, sampling, left_out=()):
    found, expected = (each(logits, ids, prompt_length, sampling, left_out) for each in (ours, theirs))
    if sampling.top_p < 1:  # of equal ones at its border, torch.sort keeps any: so many tokens of each score
        scores = Restrictions(sampling, prompt_length, EOS, len(logits), left_out).apply(logits, ids)
        order = np.argsort(scores, kind="stable")
        firsts = np.unique(scores[order], return_index=True)[1]
        found, expected = (np.add.reduceat(each[order], firsts) for each in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9, err_msg=f"{logits} {ids} {sampling}")


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 1e-3},
    {"temperature": 1e-30},
    {"temperature": 1e30},
    {"temperature": 0},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 100_000},
    {"top_p": 0.9},
    {"top_p": 1e-9},
    {"top_p": 0.9999999},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"typical_p": 0.2},
    {"typical_p": 0.95},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"repetition_penalty": 1e9},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"bad_words": ((7,), (9, 11), (5, 6, 7))},
    {"min_new_tokens": 5},
    {"temperature": 1.7, "top_k": 50, "top_p": 0.8},
    {"temperature": 0.5, "top_k": 30, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.9},
    {"top_p": 0.7, "typical_p": 0.5},
    {"min_p": 0.02, "typical_p": 0.5},
    {"temperature": 0, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    {"temperature": 0.9, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_new_tokens": 4, "top_p": 0.9},
]


@pytest.mark.parametrize("how", SETTINGS, ids=lambda how: ",".join(how) or "plain")
def test_equal_transformers(transformers, how):
    """On logits of a few tokens and of 50,000, few and many of them likely, with ties."""
    draw = np.random.default_rng(7)
    for size, spread, digits in ((400, 3, 1), (400, 3, 6), (50_000, 3, 6), (50_000, 0.3, 1)):
        logits = (spread * draw.gumbel(size=size)).round(digits).astype(np.float32)
        logits[[7, 11, EOS]] = logits.max() + 1  # what the settings exclude would be likely
        assert_equal(logits, [1, 9, 5, 6, 9, 11, 20, 9], 5, Sampling(10, **how), left_out=[0, 3])


@pytest.mark.parametrize("how", SETTINGS, ids=lambda how: ",".join(how) or "plain")
def test_equal_transformers_on_real_logits(pair, how):
    prompt = [1, 9, 5, 6, 9, 11, 20, 9, 5, 6]
    logits = pair.slots(1).next_logits([Run(0, prompt)])[0]
    assert_equal(logits, prompt, 8, Sampling(10, **how), pair.left_out)


@st.composite
def situations(draw: st.DrawFn) -> tuple[np.ndarray, list[int], int, Sampling, list[int]]:
    size = draw(st.integers(4, 12))
    values = st.integers(-1920, 1920).map(lambda sixtyfourths: sixtyfourths / 64) | st.sampled_from([-np.inf, 0.0, 1.0])
    logits = np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    tokens = st.integers(0, size - 1)
    ids = draw(st.lists(tokens, min_size=1, max_size=8))
    sequences = st.lists(tokens, min_size=1, max_size=3).map(tuple).filter(lambda word: word != (EOS,))
    off_or = lambda off, values: st.just(off) | values  # noqa: E731
    sampling = Sampling(
        max_new_tokens=10,
        temperature=draw(st.sampled_from([0, 1e-4, 0.5, 1.0, 3.0, 1e6])),
        top_k=draw(off_or(0, st.integers(1, 15))),
        top_p=draw(off_or(1.0, st.floats(1e-6, 1.0))),
        min_p=draw(off_or(0.0, st.floats(0, 1))),
        typical_p=draw(off_or(1.0, st.floats(1e-6, 1.0))),
        repetition_penalty=draw(st.sampled_from([1.0, 0.5, 4.0])),  # exact in single precision too
        no_repeat_ngram_size=draw(st.integers(0, 4)),
        bad_words=tuple(draw(st.lists(sequences, max_size=3))),
        min_new_tokens=draw(st.integers(0, 4)),
    )
    return logits, ids, draw(st.integers(1, len(ids))), sampling, draw(st.lists(tokens, max_size=2))


def is_at_a_border(logits, ids, prompt_length, sampling, left_out) -> bool:
    """True if a threshold moved by less than rounding would keep other tokens."""
    changed = {"top_p": sampling.top_p, "min_p": sampling.min_p, "typical_p": sampling.typical_p}
    results = []
    for move in (-BORDER, BORDER):
        moved = {name: min(max(value + move, 1e-12), 1.0) for name, value in changed.items() if value not in (0, 1)}
        results.append(ours(logits, ids, prompt_length, Sampling(**{**vars(sampling), **moved}), left_out) > 0)
    return bool((results[0] != results[1]).any())


@settings(max_examples=300, deadline=None)
@given(situations())
def test_any_situation_equals_transformers(transformers, situation):
    logits, ids, prompt_length, sampling, left_out = situation
    if logits.max() == -np.inf:
        with pytest.raises(DataError, match="logits are not finite"):
            ours(*situation)
        return
    restrictions = Restrictions(sampling, prompt_length, EOS, len(logits), left_out)
    if (restrictions.apply(logits, ids) == -np.inf).all():
        with pytest.raises(RecipeError, match="may follow here by"):
            ours(*situation)
        return
    assume(not is_at_a_border(*situation))
    assert_equal(*situation)


# A text at a time, and several


def written(pair: Pair, prompt: list[int], sampling: Sampling, steps: int, sample: int = 0) -> list[Choice]:
    """So many choices, or fewer up to </s>."""
    slots, unread = pair.slots(1), prompt
    chooser = Chooser(sampling, prompt, EOS, pair.tokenizer.vocab_size, pair.left_out, sample)
    choices: list[Choice] = []
    while len(choices) < steps and (not choices or choices[-1].token != EOS):
        choices.append(chooser.choose(slots.next_logits([Run(0, unread)])[0]))
        unread = [choices[-1].token]
    return choices


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 6},
        {"repetition_penalty": 0.7, "no_repeat_ngram_size": 3, "min_new_tokens": 8},
    ],
    ids=lambda how: ",".join(how) or "plain",
)
def test_greedy_texts_and_their_log_probabilities_equal_transformers(pair, how):
    """Log-probabilities of `output_logits`, which are the network's own, and texts by the processed scores."""
    for prompt in draw_prompts(pair.tokenizer, 4):
        found = written(pair, prompt, Sampling(10, temperature=0, alternatives=4, **how), 10)
        with torch.no_grad():
            out = pair.torch_net.generate(
                torch.tensor([prompt]),
                do_sample=False,
                max_new_tokens=10,
                suppress_tokens=pair.left_out,
                output_logits=True,
                return_dict_in_generate=True,
                **how,
            )
        assert [choice.token for choice in found] == out.sequences[0, len(prompt) :].tolist()
        for choice, logits in zip(found, out.logits):
            row = torch.log_softmax(logits[0].double(), -1)
            assert choice.log_probability == pytest.approx(row[choice.token].item(), abs=1e-4)
            values, tokens = row.topk(4)
            assert [token for token, _ in choice.alternatives] == tokens.tolist()
            np.testing.assert_allclose([log for _, log in choice.alternatives], values.numpy(), atol=1e-4)


def test_log_probabilities_count_rows_without_a_piece():
    """The network's own probabilities are over all of its rows; those beyond the tokenizer are never chosen."""
    logits = np.array([0.0, 1.0, 2.0, 5.0], np.float32)
    choice = Chooser(Sampling(temperature=0, alternatives=9), [1], EOS, 3).choose(logits)
    own = logits - np.log(np.exp(logits).sum())
    assert choice.token == 2 and choice.log_probability == pytest.approx(own[2], abs=1e-6)
    assert [token for token, _ in choice.alternatives] == [3, 2, 1, 0]


def test_draws_follow_the_distribution():
    logits = np.log(np.array([0.4, 0.25, 0.2, 0.1, 0.05], np.float32))
    for how in ({}, {"top_k": 3}, {"top_p": 0.6}, {"typical_p": 0.5}, {"temperature": 0.6, "min_p": 0.1}):
        sampling = Sampling(**how)
        expected = Chooser(sampling, [0], -1, 5).distribution(logits)
        rng = np.random.default_rng(1)
        counts = np.bincount([draw(logits, sampling, rng) for _ in range(4000)], minlength=5) / 4000
        np.testing.assert_allclose(counts, expected, atol=0.03)
        assert ((counts > 0) == (expected > 0)).all()


def test_a_seed_draws_the_same_whatever_is_written_beside_it(pair):
    """Choosers that take turns draw what each draws alone; another seed or sample draws otherwise."""
    prompts = draw_prompts(pair.tokenizer, 3)
    sampling = [Sampling(8, temperature=1.3, top_k=50, seed=seed) for seed in (5, 5, 6)]
    alone = [
        written(pair, prompt, how, 8, sample=number) for number, (prompt, how) in enumerate(zip(prompts, sampling))
    ]
    slots = pair.slots(3)
    choosers = [
        Chooser(how, prompt, EOS, pair.tokenizer.vocab_size, pair.left_out, number)
        for number, (prompt, how) in enumerate(zip(prompts, sampling))
    ]
    beside: list[list[Choice]] = [[], [], []]
    unread = dict(enumerate(prompts))
    while unread:
        runs = [Run(slot, tokens) for slot, tokens in unread.items()]
        for run, logits in zip(runs, slots.next_logits(runs)):
            beside[run.slot].append(choosers[run.slot].choose(logits))
            unread[run.slot] = [beside[run.slot][-1].token]
            if len(beside[run.slot]) == len(alone[run.slot]):
                del unread[run.slot]
    tokens = [[choice.token for choice in choices] for choices in beside]
    assert tokens == [[choice.token for choice in choices] for choices in alone]
    again = {tuple(choice.token for choice in written(pair, prompts[0], sampling[0], 8, sample=n)) for n in range(4)}
    assert len(again) == 4


# What is refused


@pytest.mark.parametrize(
    ("setting", "value", "admitted"),
    [
        ("max_new_tokens", 0, "a whole number, 1 or more"),
        ("max_new_tokens", 2.5, "a whole number"),
        ("max_new_tokens", True, "a whole number"),
        ("temperature", -0.1, "a number, 0 or more"),
        ("temperature", float("nan"), "a number, 0 or more"),
        ("temperature", float("inf"), "a number, 0 or more"),
        ("temperature", "hot", "a number, 0 or more"),
        ("top_k", -1, "a whole number, 0 or more"),
        ("top_k", 40.0, "a whole number, 0 or more"),
        ("top_p", 0.0, "a number above 0, up to 1"),
        ("top_p", 1.1, "a number above 0, up to 1"),
        ("min_p", -0.1, "a number from 0 to 1"),
        ("min_p", 1.1, "a number from 0 to 1"),
        ("typical_p", 0, "a number above 0, up to 1"),
        ("repetition_penalty", 0, "a number above 0"),
        ("repetition_penalty", float("inf"), "a number above 0"),
        ("no_repeat_ngram_size", -1, "a whole number, 0 or more"),
        ("seed", -1, "a whole number, 0 or more"),
        ("alternatives", -1, "a whole number, 0 or more"),
        ("stop", "ab", "texts of at least one character"),
        ("stop", ("ab", ""), "texts of at least one character"),
        ("bad_words", ((),), "sequences of at least one id each"),
        ("bad_words", ((1, -1),), "sequences of at least one id each"),
        ("bad_words", (5,), "sequences of at least one id each"),
        ("min_new_tokens", -1, "a whole number, 0 or more"),
        ("min_new_tokens", 61, "at most max_new_tokens=60"),
    ],
)
def test_settings_out_of_range_are_named(setting, value, admitted):
    with pytest.raises(RecipeError) as error:
        Sampling(**{setting: value})
    assert str(error.value).startswith(f"{setting}={value!r}: it must be ") and admitted in str(error.value)


@pytest.mark.parametrize(
    ("words", "told"), [(((9,), (4, 50)), "50 is not one of the 50 ids"), (((EOS,),), "ends a text")]
)
def test_bad_words_that_cannot_be_are_named(words, told):
    with pytest.raises(RecipeError, match=told):
        Chooser(Sampling(bad_words=words), [1], EOS, 50)


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [np.nan, np.inf, -np.inf]])
def test_logits_that_are_not_finite_are_told(temperature, bad):
    logits = np.zeros(6, np.float32)
    logits[: len(bad)] = bad
    with pytest.raises(DataError, match="1 of its 6 logits are not finite"):
        Chooser(Sampling(temperature=temperature), [1], EOS, 5).choose(logits)
    with pytest.raises(DataError, match="6 of its 6 logits are not finite"):
        Chooser(Sampling(temperature=temperature), [1], EOS, 5).choose(np.full(6, -np.inf, np.float32))


def test_no_token_left_is_told():
    logits = np.zeros(4, np.float32)
    for how, named in (
        ({"no_repeat_ngram_size": 1}, "by no_repeat_ngram_size"),
        ({"no_repeat_ngram_size": 1, "min_new_tokens": 3}, "by no_repeat_ngram_size, min_new_tokens"),
        ({"bad_words": ((0,), (1,), (3,)), "min_new_tokens": 3}, "by bad_words, min_new_tokens"),
    ):
        for temperature in (0, 1.0):
            with pytest.raises(RecipeError, match=f"none of 4 tokens may follow here {named}: "):
                Chooser(Sampling(temperature=temperature, **how), [0, 1, 3, 2], EOS, 4).choose(logits)


def test_a_prompt_may_have_ids_without_a_piece():
    """Ids from the network's spare rows, which a service may be sent: they penalize nothing."""
    how = Sampling(temperature=0, repetition_penalty=2.0, no_repeat_ngram_size=1)
    logits = np.array([3.0, 2.0, 1.0, 9.0], np.float32)
    assert Chooser(how, [3, 0, 3], -1, 3).choose(logits).token == 1
    assert Chooser(how, [3, 0, 3], -1, 3, left_out=[1, 3]).choose(logits).token == 2
