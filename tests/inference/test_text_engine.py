"""Many texts at once: each becomes what it becomes alone, whatever is written next to it."""

from __future__ import annotations

import gc
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.generation import Generator
from kogpt2_gluon.inference.sampling import Choice, Sampling
from kogpt2_gluon.inference.text_engine import TextEngine, TextRequest, Written
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Slots
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, train

POSITIONS = 24
GREEDY = Sampling(8, temperature=0)


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(train(OWN_SENTENCES * 20, 400, profile="lossless"), Path("small.model"))


def make_net(tokenizer, ops=None) -> GPT2Model:
    """One whose opinions are strong and differ from place to place; `</s>` is likely enough to end some texts."""
    mx.random.seed(5)
    net = GPT2Model(units=32, vocab_size=tokenizer.vocab_size, max_length=POSITIONS, num_layers=2, num_heads=4, ops=ops)
    net.initialize(mx.init.Normal(0.4))
    return net


@pytest.fixture(scope="module", params=["stock", "fused"])
def net(request, tokenizer) -> GPT2Model:
    if request.param == "stock":
        return make_net(tokenizer)
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    from kogpt2_gluon.ops.build import load_cpu_operators

    load_cpu_operators()
    return make_net(tokenizer, FusedCpuOps("float32"))


KNOWN: dict[tuple, list[int]] = {}


def alone(net, tokenizer, request: TextRequest) -> list[int]:
    """The new ids of a text that is written by itself, its prompt read at once."""
    key = (id(net), tuple(request.prompt), request.sampling, request.sample)
    if key not in KNOWN:
        KNOWN[key] = write_alone(net, tokenizer, request)
    return KNOWN[key]


def write_alone(net, tokenizer, request: TextRequest) -> list[int]:
    left_out, vocab_size = tokenizer.never_written(), tokenizer.vocab_size
    ids = Generator(net).ids(
        request.prompt, tokenizer.eos_id, request.sampling, request.sample + 1, vocab_size, left_out
    )
    return ids[request.sample]


def gather(written: list[Written], tokenizer) -> dict[int, tuple[list[int], str, str]]:
    """The new ids, the text and the reason of each, which is given once and last."""
    ids, texts, reasons = defaultdict(list), defaultdict(str), {}
    for each in written:
        assert each.number not in reasons
        if each.choice and each.choice.token != tokenizer.eos_id:
            ids[each.number].append(each.choice.token)
        texts[each.number] += each.text
        if each.finish_reason:
            reasons[each.number] = each.finish_reason
    return {number: (ids[number], texts[number], reason) for number, reason in reasons.items()}


@st.composite
def requests(draw) -> TextRequest:
    """Prompts that are often the same, or begin alike, or are as long as they may be."""
    length = draw(st.sampled_from([1, 2, 5, 11, POSITIONS - 2, POSITIONS - 1]))
    prompt = [1, *(20 + (place * 7 + draw(st.integers(0, 1))) % 300 for place in range(length - 1))]
    temperature = draw(st.sampled_from([0.0, 1.0, 2.0]))
    sampling = Sampling(
        draw(st.integers(1, 12)), temperature, top_k=draw(st.sampled_from([0, 5])), seed=draw(st.integers(0, 3))
    )
    return TextRequest(prompt, sampling, draw(st.integers(0, 2)))


ANY = {
    "arrivals": st.lists(st.tuples(st.integers(0, 3), requests()), min_size=1, max_size=9),
    "cancelled": st.dictionaries(st.integers(0, 8), st.integers(0, 6), max_size=3),
    "num_slots": st.integers(1, 5),
    "prompt_part": st.sampled_from([1, 3, 64]),
}


@settings(max_examples=10, deadline=None)
@given(**ANY)
def test_each_text_is_what_it_is_alone(net, tokenizer, arrivals, cancelled, num_slots, prompt_part):
    check_arrivals(net, tokenizer, arrivals, cancelled, num_slots, prompt_part)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(**ANY)
def test_each_text_is_what_it_is_alone_often(net, tokenizer, arrivals, cancelled, num_slots, prompt_part):
    check_arrivals(net, tokenizer, arrivals, cancelled, num_slots, prompt_part)


def check_arrivals(net, tokenizer, arrivals, cancelled, num_slots, prompt_part):
    engine = TextEngine(net, tokenizer, num_slots=num_slots, prompt_part=prompt_part)
    written, asked = [], {}
    queue = [(wait, request) for wait, request in arrivals]
    countdown = dict(cancelled)
    while queue or not engine.is_idle:
        while queue and queue[0][0] == 0:
            request = queue.pop(0)[1]
            asked[engine.add(request)] = request
        queue = [(wait - 1 if place == 0 else wait, request) for place, (wait, request) in enumerate(queue)]
        for number in [number for number in countdown if number in asked]:
            countdown[number] -= 1
            if countdown[number] < 0:
                engine.cancel(number)
                del countdown[number]
        assert engine.running <= num_slots
        written += engine.step()
    found = gather(written, tokenizer)
    assert found.keys() == asked.keys()
    for number, request in asked.items():
        ids, text, reason = found[number]
        expected = alone(net, tokenizer, request)
        whole = tokenizer.decode([*request.prompt[1:], *ids])
        assert text == whole[len(tokenizer.decode(request.prompt[1:])) :]
        if reason == "cancelled":
            assert number in cancelled and ids == expected[: len(ids)]
        else:
            assert ids == expected
            room = min(request.sampling.max_new_tokens, POSITIONS - len(request.prompt))
            assert reason == ("length" if len(ids) == room else "stop")


def test_numbers_are_the_same_to_the_last_bit_whatever_else_is_written(net, tokenizer):
    """Batches change results elsewhere (lm-evaluation-harness 1645, sglang 2567): padding, or sums in another order."""
    if not isinstance(net.ops, FusedCpuOps):
        pytest.skip("stock operators add in another order for another number of texts")

    def choices(others: int, num_slots: int) -> list[Choice]:
        engine = TextEngine(net, tokenizer, num_slots=num_slots)
        for place in range(others):
            engine.add(TextRequest([1, *range(50 + place, 54 + 3 * place)], Sampling(2 + place, seed=place)))
        number = engine.add(TextRequest([1, 30, 31, 32], Sampling(12, seed=9, alternatives=5)))
        return [each.choice for each in engine.run() if each.number == number]

    alone = choices(0, 1)
    assert len(alone) > 3
    for others, num_slots in ((1, 2), (3, 8), (6, 3), (6, 7)):
        assert choices(others, num_slots) == alone


def test_first_come_first_served(net, tokenizer):
    engine = TextEngine(net, tokenizer, num_slots=2)
    numbers = [engine.add(TextRequest([1, 30 + place], Sampling(3, seed=place, top_k=9))) for place in range(9)]
    begun = []
    for each in engine.run():
        if each.number not in begun:
            begun.append(each.number)
    assert begun == numbers


def test_a_long_prompt_does_not_hold_up_the_others(net, tokenizer):
    """It is read in parts, and each pass has the tokens of the others too."""
    engine = TextEngine(net, tokenizer, num_slots=3, prompt_part=4)
    free = Sampling(12, top_k=9, seed=1)
    writing = engine.add(TextRequest([1, 40], free))
    engine.step()
    long, short = (engine.add(TextRequest([1, *range(40, 40 + more)], free)) for more in (20, 2))
    steps = [[each.number for each in engine.step()] for _ in range(7)]
    assert [long in numbers for numbers in steps] == [False] * 5 + [True] * 2  # 21 tokens, 4 a step
    assert all(writing in numbers for numbers in steps[:5]) and short in steps[0]


class Counting(Slots):
    """Slots that know how many tokens were read."""

    read = 0

    def next_logits(self, runs):
        self.read += sum(len(tokens) for _, tokens in runs)
        return super().next_logits(runs)


@pytest.mark.parametrize("num_slots", [1, 2, 8])
def test_samples_of_one_prompt_share_its_reading(net, tokenizer, num_slots):
    engine = TextEngine(net, tokenizer, num_slots=num_slots, prompt_part=5)
    engine._slots = Counting(net, num_slots, POSITIONS)
    sampling = Sampling(4, temperature=2.0, top_k=20, seed=7)
    asked = {}
    for sample in range(6):
        request = TextRequest([1, *range(30, 43)], sampling, sample)
        asked[engine.add(request)] = request
    found = gather(list(engine.run()), tokenizer)
    for number, request in asked.items():
        assert found[number][0] == alone(net, tokenizer, request)
    new = sum(len(ids) for ids, _, _ in found.values())
    assert engine._slots.read <= 14 + new
    assert len({tuple(ids) for ids, _, _ in found.values()}) > 1


@pytest.mark.parametrize("cancel_at", range(4))
def test_a_reader_that_is_cancelled_hands_its_place_on(net, tokenizer, cancel_at):
    engine = TextEngine(net, tokenizer, num_slots=3, prompt_part=5)
    request = TextRequest([1, *range(30, 43)], GREEDY)
    first, second, third = (engine.add(request) for _ in range(3))
    written = [each for _ in range(cancel_at) for each in engine.step()]
    engine.cancel(first)
    found = gather(written + list(engine.run()), tokenizer)
    assert found[first][2] == "cancelled"
    assert found[second][0] == found[third][0] == alone(net, tokenizer, request)


def test_cancelling_frees_the_slot_at_once(net, tokenizer):
    engine = TextEngine(net, tokenizer, num_slots=1)
    first = engine.add(TextRequest([1, 30], Sampling(20, top_k=5)))
    second = engine.add(TextRequest([1, 31], GREEDY))
    waiting = engine.add(TextRequest([1, 32], GREEDY))
    engine.step()
    engine.cancel(first)
    engine.cancel(waiting)
    engine.cancel(99)  # none of ours
    step = engine.step()
    assert [(each.number, each.finish_reason) for each in step[:2]] == [(first, "cancelled"), (waiting, "cancelled")]
    assert [each.number for each in step[2:]] == [second]
    list(engine.run())
    engine.cancel(first)  # finished long ago
    assert engine.step() == [] and engine.is_idle


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ([], "the prompt has 0 tokens"),
        ([5] * POSITIONS, "24 tokens with <s>; the network's 24 positions leave room for 23"),
        ([1, 100_000], "ids outside 0 to"),
        ([-1], "ids outside 0 to"),
    ],
)
def test_prompts_that_cannot_be_read(net, tokenizer, prompt, told):
    engine = TextEngine(net, tokenizer)
    with pytest.raises(RecipeError, match=told):
        engine.add(TextRequest(prompt, GREEDY))
    assert engine.is_idle


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
