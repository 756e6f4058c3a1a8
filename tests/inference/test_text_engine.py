"""Many texts at once: each becomes what it becomes alone, whatever is written next to it."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.sampling import Choice, Sampling
from kogpt2_gluon.inference.text_engine import TextEngine, TextRequest
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Slots
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from tests.inference.text_engine_helpers import GREEDY, POSITIONS, alone, gather, make_net, tokenizer

__all__ = ["tokenizer"]


@pytest.fixture(scope="module", params=["stock", "fused"])
def net(request, tokenizer) -> GPT2Model:
    if request.param == "stock":
        return make_net(tokenizer)
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    from kogpt2_gluon.ops.build import load_cpu_operators

    load_cpu_operators()
    return make_net(tokenizer, FusedCpuOps("float32"))


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
