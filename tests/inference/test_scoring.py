"""Likelihoods with shared beginnings against each prompt read whole, by the network's own logits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference import scoring
from kogpt2_gluon.inference.scoring import Request, Scorer, rolling_requests
from kogpt2_gluon.inference.shared_prefixes import GROUP_COST, group_by_prefix
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.stock import StockOps

VOCAB, LENGTH = 61, 96
BOS = 1


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, np.int32)


def network(fused: bool) -> GPT2Model:
    """Returns the same weights over either operator set, wide enough that the network has opinions."""
    if fused:
        if shutil.which("g++") is None:
            pytest.skip("no g++")
        from kogpt2_gluon.ops.build import load_cpu_operators
        from kogpt2_gluon.ops.fused_cpu import FusedCpuOps

        load_cpu_operators()
        ops = FusedCpuOps()
    else:
        ops = StockOps()
    mx.random.seed(5)
    np.random.seed(5)
    net = GPT2Model(units=36, vocab_size=VOCAB, max_length=LENGTH, num_layers=3, num_heads=4, ops=ops)
    net.initialize(mx.init.Normal(0.4), force_reinit=True)
    return net


@pytest.fixture(scope="module", params=["stock", "fused"])
def net(request: pytest.FixtureRequest) -> GPT2Model:
    return network(request.param == "fused")


@pytest.fixture(scope="module")
def stock() -> GPT2Model:
    return network(fused=False)


def whole(net: GPT2Model, request: Request) -> tuple[float, bool, int]:
    """One request by one pass over all of its tokens, in float64 from the logits on."""
    context, continuation = request
    tokens = np.concatenate([context, continuation])
    logits = net(mx.nd.array(tokens[None], dtype="int32"))[0].asnumpy()[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    places = range(len(context) - 1, len(tokens) - 1)
    picked = [logs[place, token] for place, token in zip(places, continuation)]
    greedy = all(logs[place].argmax() == token for place, token in zip(places, continuation))
    return sum(picked), greedy, len(continuation)


def assert_same(found: list, net: GPT2Model, requests: list[Request]) -> None:
    assert len(found) == len(requests)
    for likelihood, request in zip(found, requests):
        log_likelihood, is_greedy, tokens = whole(net, request)
        assert abs(likelihood.log_likelihood - log_likelihood) < 1e-5
        assert (likelihood.is_greedy, likelihood.tokens) == (is_greedy, tokens)


def few_shot(rows: int, shots: int = 40, choices: tuple[int, ...] = (1, 1, 3), seed: int = 0) -> list[Request]:
    """Rows after the same shots, each with the same choices of these lengths."""
    draw = np.random.RandomState(seed)
    first = [BOS, *draw.randint(4, VOCAB, shots)]
    answers = [draw.randint(4, VOCAB, length).astype(np.int32) for length in choices]
    rows_ids = [draw.randint(4, VOCAB, draw.randint(1, 30)) for _ in range(rows)]
    return [Request(ids(*first, *row), answer) for row in rows_ids for answer in answers]


@pytest.mark.parametrize("choices", [(1, 1), (2, 3), (4,), (1, 2, 2, 7)])
@pytest.mark.parametrize("shots", [0, 1, 40])
def test_shared_beginnings_give_the_likelihoods_of_whole_prompts(net, shots, choices):
    requests = few_shot(7, shots, choices)
    scorer, apart = Scorer(net), Scorer(net, share=False)
    found = scorer.log_likelihoods(requests)
    assert_same(found, net, requests)
    for one, other in zip(found, apart.log_likelihoods(requests)):
        assert abs(one.log_likelihood - other.log_likelihood) < 1e-5 and one[1:] == other[1:]
    if shots == 40:
        assert apart.tokens_read > 2 * scorer.tokens_read


def test_both_operator_sets_give_the_same_likelihoods(stock):
    requests = few_shot(40, choices=(2, 3))
    ours, theirs = (Scorer(each).log_likelihoods(requests) for each in (network(fused=True), stock))
    for one, other in zip(ours, theirs):
        assert abs(one.log_likelihood - other.log_likelihood) < 1e-5 * max(1, abs(other.log_likelihood))
        assert one.is_greedy == other.is_greedy


TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=12).map(lambda tokens: ids(*tokens))


@settings(max_examples=15, deadline=None)
@given(requests=st.lists(st.builds(Request, TOKENS, TOKENS), min_size=1, max_size=8))
def test_any_requests_in_any_order(stock, requests):
    """Four different tokens only: contexts that are equal, that begin each other, and continuations that do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kogpt2_gluon.inference.shared_prefixes.GROUP_COST", 0)
        assert_same(Scorer(stock).log_likelihoods(requests), stock, requests)


def test_small_batches_and_memory_change_nothing(stock, monkeypatch):
    requests = few_shot(17, choices=(1, 3, 4))
    expected = Scorer(stock).log_likelihoods(requests)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 40)
    monkeypatch.setattr(scoring, "LOGITS", 3)
    done: list[int] = []
    found = Scorer(stock).log_likelihoods(requests, done.append)
    assert len(done) >= 10 and sum(done) == len(requests)
    monkeypatch.setattr(scoring, "FAST_BYTES", 1)
    monkeypatch.setattr(scoring, "STATE_BYTES", 1)  # one sequence at a time
    alone = Scorer(stock).log_likelihoods(requests)
    for likelihoods in (found, alone):
        for one, other in zip(likelihoods, expected):
            assert abs(one.log_likelihood - other.log_likelihood) < 1e-5


def test_a_request_fills_all_positions_and_no_more(stock):
    fitting = Request(np.full(LENGTH - 2, 7, np.int32), ids(5, 6, 7))
    found = Scorer(stock).log_likelihoods([fitting])[0]
    tokens = np.concatenate(fitting)[:-1]
    logits = stock(mx.nd.array(tokens[None], dtype="int32"))[0].asnumpy()[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert abs(found.log_likelihood - sum(logs[-3 + place, token] for place, token in enumerate((5, 6, 7)))) < 1e-5
    with pytest.raises(DataError, match="of 95 tokens and an answer of 3 need 97 positions, and the network has 96"):
        Scorer(stock).log_likelihoods([Request(np.full(LENGTH - 1, 7, np.int32), ids(5, 6, 7))])


def test_what_cannot_be_scored_is_named(stock):
    with pytest.raises(DataError, match="no token: an empty text"):
        Scorer(stock).log_likelihoods([Request(ids(1), ids())])
    broken = network(fused=False)
    broken._final_ln.gamma.set_data(mx.nd.full(36, np.nan))
    with pytest.raises(DataError, match="not finite"):
        Scorer(broken).log_likelihoods([Request(ids(1), ids(5))])
    assert Scorer(stock).log_likelihoods([]) == []


# ---- groups ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(prompts=st.lists(TOKENS, min_size=1, max_size=30))
def test_every_prompt_is_in_one_group_and_has_its_prefix(prompts):
    groups = group_by_prefix(prompts)
    assert sorted(member for group in groups for member in group.members) == list(range(len(prompts)))
    for length, members in groups:
        assert 0 <= length < min(len(prompts[member]) for member in members)
        assert len({prompts[member][:length].tobytes() for member in members}) == 1


def test_draws_are_groups_and_rows_are_not():
    """Three draws of examples, one of them with the first examples of another; 50 rows each."""
    draw = np.random.RandomState(0)
    one, two = draw.randint(4, 999, 300), draw.randint(4, 999, 200)
    three = np.concatenate([one[:100], draw.randint(4, 999, 100)])
    prompts, expected = [], []
    for first in (one, two, three):
        expected.append(set(range(len(prompts), len(prompts) + 50)))
        prompts += [ids(BOS, *first, *draw.randint(4, 999, draw.randint(5, 30))) for _ in range(50)]
    groups = group_by_prefix(prompts)
    assert [set(group.members) for group in sorted(groups, key=lambda group: min(group.members))] == expected
    assert sorted(group.prefix_length for group in groups) == [201, 201, 301]
    # Rows without examples have a few words in common by chance: not worth a group.
    alone = [ids(BOS, 9, 9, *draw.randint(4, 9, 12)) for _ in range(60)]
    assert [group.prefix_length for group in group_by_prefix(alone)] == [3]
    assert GROUP_COST > 3
    assert group_by_prefix([]) == []


# ---- long texts ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, 40), most=st.integers(1, 12))
def test_every_token_of_a_long_text_is_scored_once_with_full_contexts(length, most):
    tokens = np.arange(10, 10 + length, dtype=np.int32)
    requests = rolling_requests(tokens, BOS, most)
    assert np.concatenate([ids(), *(request.continuation for request in requests)]).tolist() == tokens.tolist()
    whole_text = [BOS, *tokens.tolist()]
    for number, (context, continuation) in enumerate(requests):
        joined = [*context, *continuation]
        begin = whole_text.index(joined[0])
        assert joined == whole_text[begin : begin + len(joined)]  # neighbours in the text
        assert len(joined) - 1 == most or number == 0 or len(requests) == 1
    assert not requests or requests[0].context.tolist() == [BOS]


def test_the_parts_are_those_of_the_harness():
    utils = pytest.importorskip("lm_eval.utils", reason="lm-evaluation-harness, a peer of the test")
    for length in range(1, 30):
        for most in (1, 2, 3, 7, 29, 30):
            tokens = list(range(10, 10 + length))
            theirs = [
                utils.make_disjoint_window(window) for window in utils.get_rolling_token_windows(tokens, BOS, most, 1)
            ]
            ours = [(a.tolist(), b.tolist()) for a, b in rolling_requests(ids(*tokens), BOS, most)]
            assert ours == [(list(a), list(b)) for a, b in theirs]
