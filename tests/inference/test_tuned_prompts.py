"""Texts after tuned prompts: with several in one engine, each text is what it is with its prompt's own network."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.beam_search import beam_search
from kogpt2_gluon.inference.contrastive_search import contrastive_search
from kogpt2_gluon.inference.generation import Generator
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.scoring import Request, Scorer
from kogpt2_gluon.inference.text_engine import TextEngine, TextRequest
from kogpt2_gluon.inference.token_scoring import TokenScorer
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.prompt import PromptedModel
from kogpt2_gluon.model.slots import Run, slots_for
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from kogpt2_gluon.ops.stock import StockOps
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, train

POSITIONS, NAMES = 24, ("", "short", "long")
LENGTHS = {"": 0, "short": 3, "long": 9}
FORMS = [("stock", ""), ("fused", ""), ("fused", "int8")]


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(train(OWN_SENTENCES * 20, 400, profile="lossless"), Path("small.model"))


class Nets:
    """A network, two prompts for it, and for each prompt a network that has it as its own."""

    def __init__(self, tokenizer, ops: str, weights: str) -> None:
        made = StockOps() if ops == "stock" else FusedCpuOps("float32")
        sizes = {"units": 32, "vocab_size": tokenizer.vocab_size, "max_length": POSITIONS, "num_layers": 2}
        mx.random.seed(5)
        self.body = GPT2Model(**sizes, num_heads=4, ops=made)
        self.body.initialize(mx.init.Normal(0.4))
        self.weights, self.own = weights, {"": self.body}
        draw = np.random.RandomState(1)
        self.tuned = {name: mx.nd.array(draw.randn(LENGTHS[name], 32)) for name in NAMES[1:]}
        for name, vectors in self.tuned.items():
            net = PromptedModel(len(vectors), **sizes, num_heads=4, ops=made)
            net.initialize()
            there = self.body._collect_params_with_prefix()
            for structural, parameter in net._collect_params_with_prefix().items():
                parameter.set_data(vectors if structural == "_prompt.weight" else there[structural].data())
            self.own[name] = net
        self.known: dict[tuple, list[int]] = {}

    def alone(self, tokenizer, request: TextRequest) -> list[int]:
        """The new ids of a text, written by the network that has its prompt, by itself."""
        key = tuple(request.prompt), request.sampling, request.sample, request.tuned
        if key not in self.known:
            left_out = tokenizer.never_written(request.sampling.allow_unknown)
            generator = Generator(self.own[request.tuned], weights=self.weights)
            eos_id, size = tokenizer.eos_id, tokenizer.vocab_size
            texts = generator.ids(request.prompt, eos_id, request.sampling, request.sample + 1, size, left_out)
            self.known[key] = texts[request.sample]
        return self.known[key]


@pytest.fixture(scope="module", params=FORMS, ids=" ".join)
def nets(request, tokenizer) -> Nets:
    if request.param[0] == "fused":
        if shutil.which("g++") is None:
            pytest.skip("no g++")
        from kogpt2_gluon.ops.build import load_cpu_operators

        load_cpu_operators()
    return Nets(tokenizer, *request.param)


def logits_after(net: GPT2Model, tokens: list[int]) -> np.ndarray:
    """By the network itself, all at once."""
    return net(mx.nd.array([tokens], dtype="int32"))[0][0].asnumpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_slot_begins_after_a_prompt(nets, name):
    """And so it does after another text with another prompt was there."""
    if nets.weights:
        pytest.skip("int8 rounds")
    tokens = [1, 50, 60, 70, 80]
    expected = logits_after(nets.own[name], tokens)
    slots = slots_for(nets.body, 2, POSITIONS, tuned=nets.tuned)
    assert slots.are_ready and slots.room(name) == POSITIONS - LENGTHS[name]
    for other in (*NAMES, name):
        slots.begin(1, other)
        slots.next_logits([Run(1, [5, 6, 7])])
        assert not slots.are_ready
    slots.begin(1, name)
    for count in (3, 2):
        found = slots.next_logits([Run(1, tokens[:count])])
        tokens = tokens[count:]
    np.testing.assert_allclose(found[0], expected[-1], atol=1e-4)
    slots.clear(1)
    assert slots.are_ready and slots.lengths[1] == 0


@st.composite
def requests(draw) -> list[TextRequest]:
    prompt = st.lists(st.integers(5, 399), max_size=4).map(lambda ids: [1, *ids])
    few = draw(st.lists(prompt, min_size=1, max_size=2))
    ways = st.sampled_from([Sampling(5, temperature=0), Sampling(7, temperature=1.0, top_k=5, seed=3)])
    each = st.builds(TextRequest, st.sampled_from(few), ways, st.integers(0, 1), st.sampled_from(NAMES))
    return draw(st.lists(each, min_size=1, max_size=8))


@settings(max_examples=25, deadline=None)
@given(wanted=requests(), num_slots=st.integers(1, 4), prompt_part=st.sampled_from([1, 3, 256]))
def test_texts_of_all_prompts_are_written_together(nets, tokenizer, wanted, num_slots, prompt_part):
    engine = TextEngine(
        nets.body, tokenizer, num_slots=num_slots, prompt_part=prompt_part, weights=nets.weights, tuned=nets.tuned
    )
    places = {engine.add(request): place for place, request in enumerate(wanted)}
    found: dict[int, list[int]] = defaultdict(list)
    for written in engine.run():
        if written.choice and written.choice.token != tokenizer.eos_id:
            found[places[written.number]].append(written.choice.token)
    assert [found[place] for place in range(len(wanted))] == [nets.alone(tokenizer, each) for each in wanted]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_full_where_the_prompt_has_left_no_position(nets, tokenizer, name):
    engine = TextEngine(nets.body, tokenizer, weights=nets.weights, tuned=nets.tuned)
    room = POSITIONS - LENGTHS[name]
    sampling = Sampling(POSITIONS, temperature=0, min_new_tokens=POSITIONS)
    engine.add(TextRequest([1, 9], sampling, tuned=name))
    assert len(list(engine.run())) == room - 2
    with pytest.raises(RecipeError, match=f"leave room for {room - 1} and"):
        engine.add(TextRequest([1] * room, sampling, tuned=name))
    with pytest.raises(RecipeError, match="no tuned prompt 'other'"):
        engine.add(TextRequest([1], sampling, tuned="other"))


def test_searches_and_scores_begin_after_the_own_prompt(nets):
    """The network without slots, which computes the prompt with each text, gives the same numbers."""
    net, size = nets.own["short"], nets.body._embed.weight.shape[0]
    tokens = [1, 50, 60, 70]
    logits = logits_after(net, tokens)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [logs[place, token] for place, token in enumerate(tokens[1:])]

    class All:
        vocab_size = size

    if not nets.weights:
        own = [each.log_probability for each in TokenScorer(net, All).score(tokens)]
        np.testing.assert_allclose(own, expected, atol=1e-4)
        scorer = TokenScorer(nets.body, All, tuned=nets.tuned)
        for name, prompted in nets.own.items():  # one after another, in one slot
            own, other = scorer.score(tokens, 0, name), TokenScorer(prompted, All).score(tokens)
            assert [each.log_probability for each in own] == [each.log_probability for each in other]
        with pytest.raises(DataError, match=f"has {POSITIONS - 9} positions"):
            scorer.score([1] * (POSITIONS - 7), 0, "long")
    # Answers that share a context: some are read after its states, after those of the prompt.
    context, answers = np.array(tokens[:2], np.int32), [tokens[2:], [7, 8, 9], [7, 9], [11]]
    asked = [Request(context, np.array(each, np.int32)) for each in answers]
    shared, whole = (Scorer(net, share=share).log_likelihoods(asked) for share in (True, False))
    for one, other in zip(shared, whole):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-4)
    assert shared[0].log_likelihood == pytest.approx(sum(expected[1:]), abs=1e-4)
    slots = slots_for(net, 3, net.max_length, weights=nets.weights)
    sampling, greedy = Sampling(4, temperature=0), None
    if not nets.weights:
        greedy = [*tokens]
        for _ in range(4):
            greedy.append(int(logits_after(net, greedy)[-1].argmax()))
    (found,) = contrastive_search(slots, tokens, size, sampling, 0.0, 2, vocab_size=size)
    assert greedy is None or found.ids == greedy[len(tokens) :]
    (first,) = beam_search(slots, tokens, size, sampling, 3, 1, 1.0, vocab_size=size)
    assert first == beam_search(slots, tokens, size, sampling, 3, 1, 1.0, vocab_size=size)[0]  # slots are ready again
    assert first.log_probability >= found.log_probability - 1e-4
