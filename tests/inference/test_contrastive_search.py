"""Contrastive search: the ids of the paper's formula, computed by transformers' network over whole texts."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.continuation import END, LENGTH, Continuation
from kogpt2_gluon.inference.contrastive_search import contrastive_search
from kogpt2_gluon.inference.sampling import Sampling
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
    return draw_prompts(pair.tokenizer, 4)


def ours(pair: Pair, prompt: list[int], sampling: Sampling = PLAIN, alpha=0.6, count=4, **how) -> Continuation:
    how = {"vocab_size": pair.tokenizer.vocab_size, "left_out": pair.left_out, **how}
    slots = pair.slots(count)
    (found,) = contrastive_search(slots, prompt, 2, sampling, alpha, count, **how)
    assert not any(slots.lengths)
    return found


def by_formula(
    pair: Pair, prompt: list[int], alpha: float, count: int, process=lambda ids, logits: logits
) -> list[int]:
    """Equation 5 of Su et al. (2022): a pass over the whole text for each candidate of each token."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + NEW and ids[-1] != 2:
            logits = pair.torch_net(torch.tensor([ids])).logits[0, -1].double()
            logits[pair.left_out] = -torch.inf
            probabilities = torch.softmax(process(ids, logits), -1)
            worth = {}
            for v in probabilities.topk(count).indices.tolist():
                out = pair.torch_net(torch.tensor([[*ids, v]]), output_hidden_states=True)
                states = out.hidden_states[-1][0].double()
                likeness = torch.cosine_similarity(states[-1:], states[:-1], dim=-1).max()
                worth[v] = (1 - alpha) * probabilities[v].item() - alpha * likeness.item()
            ids.append(max(worth, key=worth.__getitem__))
    new = ids[len(prompt) :]
    return new[:-1] if new[-1] == 2 else new


@pytest.mark.parametrize(("alpha", "count"), [(0.6, 4), (0.3, 6), (1.0, 3), (0.0, 4)])
def test_the_formula(pair, prompts, alpha, count):
    for prompt in prompts:
        assert ours(pair, prompt, alpha=alpha, count=count).ids == by_formula(pair, prompt, alpha, count)


def test_it_differs_from_greedy_and_ends_in_both_ways(pair, prompts):
    found, greedy = (
        [ours(pair, prompt, alpha=alpha) for prompt in draw_prompts(pair.tokenizer, 8)] for alpha in (0.6, 0)
    )
    assert {each.finish_reason for each in found} == {END, LENGTH}
    assert [each.ids for each in found] != [each.ids for each in greedy]


def test_settings_come_before_the_probabilities(pair, prompts):
    """A candidate's probability is that after penalties, as transformers had it."""
    from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

    processors = [RepetitionPenaltyLogitsProcessor(1.5), NoRepeatNGramLogitsProcessor(2)]

    def process(ids, logits):
        for each in processors:
            logits = each(torch.tensor([ids]), logits[None])[0]
        return logits

    for prompt in prompts:
        found = ours(pair, prompt, Sampling(NEW, repetition_penalty=1.5, no_repeat_ngram_size=2), alpha=0.4)
        assert found.ids == by_formula(pair, prompt, 0.4, 4, process)


def test_log_probabilities_are_the_networks_own(pair, prompts):
    found = ours(pair, prompts[0], Sampling(NEW, min_new_tokens=6, alternatives=2))
    tokens = [choice.token for choice in found.choices]
    rows = log_probabilities(pair, prompts[0], tokens)
    own = rows[np.arange(len(tokens)), tokens]
    assert len(tokens) >= 6
    np.testing.assert_allclose([choice.log_probability for choice in found.choices], own, atol=1e-4)
    assert found.log_probability == found.score == pytest.approx(own.sum(), abs=1e-4)
    for row, choice in zip(rows, found.choices):
        assert [token for token, _ in choice.alternatives] == np.argsort(-row)[:2].tolist()


def test_ends_of_ones_own_and_of_the_positions(pair, prompts):
    later = Sampling(NEW, min_new_tokens=4)
    free = ours(pair, prompts[0], Sampling(NEW, min_new_tokens=NEW)).ids
    ended = ours(pair, prompts[0], later, is_end=lambda new: new[-1] in free[1:6])
    assert len(ended.ids) >= 4 and ended.finish_reason == END
    full = ours(pair, [1, 20] * 30 + [1], Sampling(50, min_new_tokens=50))
    assert len(full.ids) == 3 and full.finish_reason == LENGTH
    with pytest.raises(RecipeError, match="positions leave room for 63 and a new one"):
        ours(pair, [1, 20] * 32)


def test_fewer_tokens_than_candidates(pair):
    few = [token for token in range(400) if token not in (20, 21)]
    assert set(ours(pair, [1, 30], left_out=few).ids) <= {20, 21}
    with pytest.raises(RecipeError, match="none of 400 tokens may follow here by no_repeat_ngram_size"):
        ours(pair, [1, 30], Sampling(3, no_repeat_ngram_size=1), left_out=few)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"count": 1}, "num_candidates=1: it must be 2 or more"),
        ({"alpha": 1.5}, "penalty_alpha=1.5: it must be from 0 to 1"),
        ({"alpha": float("nan")}, "penalty_alpha=nan"),
        ({"sampling": Sampling(top_p=0.9)}, "top_p=0.9: contrastive search draws nothing"),
    ],
)
def test_bad_settings_are_named(pair, how, told):
    with pytest.raises(RecipeError, match=told):
        ours(pair, [1, 20], **how)


def test_a_search_can_be_ended_from_outside(pair):
    slots, passes = pair.slots(4), []

    def stop() -> None:
        passes.append(1)
        if len(passes) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        contrastive_search(slots, [1, 20], -1, PLAIN, vocab_size=400, before_step=stop)
    assert len(passes) == 3 and not any(slots.lengths)


@pytest.mark.parametrize("beta", [float("nan"), 0.0])
def test_hidden_states_without_a_direction(beta):
    """NaN is an error; states of length 0 are like none, so the likeliest token is taken."""
    net = GPT2Model(units=16, vocab_size=50, max_length=24, num_layers=1, num_heads=2)
    net.initialize()
    net._final_ln.gamma.set_data(mx.nd.zeros(16))
    net._final_ln.beta.set_data(mx.nd.full(16, beta))
    slots = slots_for(net, 4, 24)
    if np.isnan(beta):
        with pytest.raises(DataError, match="50 of its 50 logits are not finite"):
            contrastive_search(slots, [1], 2, PLAIN, vocab_size=50)
    else:
        (found,) = contrastive_search(slots, [1], 2, PLAIN, vocab_size=50)
        assert found.ids == [0] * NEW
