"""In-context scores against their definitions, by a pass of the network over each prompt and answer as a whole."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.scoring import Scorer
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.tasks.in_context import WAYS, InContextOptions, choose_rows, summary
from kogpt2_gluon.tasks.prompts.prompts import open_prompt
from kogpt2_gluon.tasks.public import PUBLIC
from kogpt2_gluon.tasks.shots import Asker, ShotPool
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row
from kogpt2_gluon.tasks.text_score import score_texts
from tests.tasks.in_context_helpers import (
    LABELS,
    MAX_LENGTH,
    PROMPT,
    TASK,
    in_context,
    make_network,
    make_tokenizer,
    rows,
)

pytest.importorskip("sklearn", reason="the metrics of tasks")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def net(tokenizer):
    return make_network(tokenizer.vocab_size)


def log_likelihood(net, tokenizer, context: str, answer: str) -> tuple[float, int]:
    """The log-likelihood of `answer` after `context`, and its tokens: one pass over all of it."""
    before = [tokenizer.bos_id, *tokenizer.encode(context.rstrip())]
    ids = [tokenizer.bos_id, *tokenizer.encode(context + answer)]
    logits = net(mx.nd.array([ids], dtype="int32"))[0].asnumpy()[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return sum(logs[place - 1, ids[place]] for place in range(len(before), len(ids))), len(ids) - len(before)


@pytest.mark.parametrize("count", [0, 4])
def test_each_way_to_choose_is_its_definition(net, tokenizer, count):
    prompt = replace(PROMPT, neutral=("해당 없음", ""))
    scored, train_rows = rows(9), rows(30, seed=1)
    scoring = in_context(net, tokenizer, scored, train_rows, prompt, shots=(count,))
    shots = ShotPool(TASK, train_rows, scored, print).draw(count, 0, 0) if count else []
    asker = Asker(TASK, prompt, PromptEncoder(tokenizer), MAX_LENGTH)
    found = scoring.values(asker.ask(scored, shots), shots)
    neutral = np.zeros(3)
    for text in prompt.neutral:
        of_text = np.exp(
            [log_likelihood(net, tokenizer, prompt.context(shots, (text,)), prompt.words[each])[0] for each in LABELS]
        )
        neutral += of_text / of_text.sum() / 2
    for place, row in enumerate(scored):
        context = prompt.context(shots, row.texts)
        both = [log_likelihood(net, tokenizer, context, prompt.words[label]) for label in LABELS]
        logs, tokens = np.array(both).T
        expected = {
            "likelihood": logs,
            "per token": logs / tokens,
            "per byte": logs / [len(prompt.words[label].encode()) for label in LABELS],
            "against neutral": logs - np.log(neutral),
        }
        assert len(set(tokens)) > 1
        for way in WAYS:
            np.testing.assert_allclose(found[way][place], expected[way], rtol=0, atol=1e-5)


def test_scores_are_those_of_the_labels_chosen(net, tokenizer):
    scored, train_rows, said = rows(31), rows(40, seed=1), []
    scores = in_context(net, tokenizer, scored, train_rows, said=said, shots=(0, 3), draws=3).run()
    assert [(each.shots, each.draw) for each in scores.conditions] == [(0, 0), (3, 0), (3, 1), (3, 2)]
    asker = Asker(TASK, PROMPT, PromptEncoder(tokenizer), MAX_LENGTH)
    for each in scores.conditions:
        shots = ShotPool(TASK, train_rows, scored, print).draw(each.shots, 0, each.draw)
        asked = asker.ask(scored, shots)
        values = in_context(net, tokenizer, scored, shots=(0,)).values(asked, shots)
        for way in WAYS:
            right = [LABELS[place] == row.label for place, row in zip(values[way].argmax(axis=1), scored)]
            assert each.scores[way]["accuracy"] == pytest.approx(np.mean(right))
        assert each.tokens == pytest.approx(np.mean([len(one.encoded.context) for one in asked]))
    plain = scores.to_dict()
    three = plain["shots"][1]["scores"]["per byte"]["macro_f1"]
    draws = scores.values(3, "per byte", "macro_f1")
    assert three == {
        "mean": pytest.approx(np.mean(draws)),
        "deviation": pytest.approx(np.std(draws, ddof=1)),
        "draws": draws,
    }
    assert plain["shots"][0]["scores"]["likelihood"]["accuracy"]["deviation"] is None
    assert sum("in " in line and "draw" in line for line in said) == 4
    assert "the tokenizer reads line ends, those of the prompt too, as spaces" in said


def test_a_network_without_opinions_ties_and_the_first_label_is_taken(tokenizer):
    flat = make_network(tokenizer.vocab_size)
    flat._embed.weight.set_data(mx.nd.zeros(flat._embed.weight.shape))
    words = [piece[1:] for piece in tokenizer.pieces if piece[:1] == "▁" and piece[1:].isalpha()]  # a token each
    prompt = replace(PROMPT, words=dict(zip(LABELS, words)))
    scores = in_context(flat, tokenizer, rows(12), prompt=prompt, shots=(0,)).run()
    assert scores.conditions[0].notes["tie"] == 12
    assert scores.values(0, "likelihood", "accuracy") == [4 / 12]
    assert scores.text.perplexity == pytest.approx(tokenizer.vocab_size, rel=1e-5)


def test_the_texts_alone(net, tokenizer):
    """Each text a document of its own, the longest in several parts; one that is there twice counts once."""
    long = " ".join(row.texts[0] for row in rows(90, seed=3))
    texts = [row.texts[0] for row in rows(5)]
    found = score_texts(Scorer(net), PromptEncoder(tokenizer), [Row((text,)) for text in [*texts, texts[0], " ", long]])
    loss = tokens = 0
    for text in [*texts, long]:
        ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        done = 1
        while done < len(ids):  # each part as long as the network allows, the last one with tokens of the part before
            end = min(done + MAX_LENGTH, len(ids))
            part = ids[max(0, end - MAX_LENGTH - 1) : end]
            logits = net(mx.nd.array([part[:-1]], dtype="int32"))[0].asnumpy()[0].astype(np.float64)
            logs = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[np.arange(len(part) - 1), part[1:]]
            loss -= logs[len(part) - 1 - (end - done) :].sum()
            tokens += end - done
            done = end
    assert len(ids) > 2 * MAX_LENGTH
    size = sum(len(tokenizer.normalize(text).encode()) for text in [*texts, long])
    assert (found.tokens, found.texts) == (tokens, 6)
    assert found.perplexity == pytest.approx(math.exp(loss / tokens), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(loss / math.log(2) / size, rel=1e-5)
    assert math.isnan(score_texts(Scorer(net), PromptEncoder(tokenizer), [Row(("",))]).perplexity)


# ---- shots -----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(labels=st.lists(st.sampled_from(LABELS), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_draws_are_balanced_and_repeat(labels, seed):
    train_rows = [Row((f"text {place}",), label) for place, label in enumerate(labels)]
    pool = ShotPool(TASK, train_rows, [], lambda line: None)
    shots = pool.draw(len(labels), seed, 0)
    assert sorted(row.texts for row in shots) == sorted(row.texts for row in train_rows)
    assert [row.texts for row in shots] == [row.texts for row in pool.draw(len(labels), seed, 0)]
    for count in (1, len(labels) // 2):  # the first shots of a draw are the same for every number
        assert pool.draw(count, seed, 0) == shots[:count]
    fewest = min((labels.count(label) for label in set(labels)), default=0)
    kinds = len(set(labels))
    for turn in range(fewest):
        assert len({row.label for row in shots[turn * kinds : (turn + 1) * kinds]}) == kinds
    with pytest.raises(DataError, match=f"{len(labels) + 1} shots were asked for, and train has {len(labels)} rows"):
        pool.draw(len(labels) + 1, seed, 0)


def test_draws_differ_and_none_is_scored():
    scored, said = rows(20), []
    train_rows = [*rows(50, seed=1), *scored[:7], *rows(50, seed=1)]
    pool = ShotPool(TASK, train_rows, scored, said.append)
    assert said == ["shots: 7 rows of train left out, with the texts of rows that are scored"]
    draws = [tuple(row.texts[0] for row in pool.draw(6, 0, draw)) for draw in range(5)]
    assert len(set(draws)) == 5 and all(len(set(draw)) == 6 for draw in draws)
    assert not {text for draw in draws for text in draw} & {row.texts[0] for row in scored}
    assert draws[0] != tuple(row.texts[0] for row in pool.draw(6, 1, 0))


def test_a_pair_the_other_way_round_is_not_drawn_either():
    """Nor one with other spaces: both give the answer away."""
    pair = PUBLIC["question-pair"]
    scored = [Row(("가 나", "다"), "same")]
    train_rows = [Row(("다", "가  나"), "same"), Row(("다 ", "가 나"), "same"), Row(("라", "마"), "different")]
    assert ShotPool(pair, train_rows, scored, lambda line: None).draw(1, 0, 0) == train_rows[2:]


def test_a_label_without_rows_is_said():
    said = []
    pool = ShotPool(TASK, [row for row in rows(30) if row.label != "fair"], [], said.append)
    assert said == ["shots: none has the label fair, which no row of train has"]
    assert sorted(row.label for row in pool.draw(4, 0, 0)) == ["bad", "bad", "good", "good"]


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_prompts_that_do_not_fit(net, tokenizer):
    encoder = PromptEncoder(tokenizer)
    shots = rows(12, seed=1)
    middle = Row((" ".join(row.texts[0] for row in rows(26, seed=2)),), "good", where="a.txt, line 3")
    long = Row((" ".join(row.texts[0] for row in rows(120, seed=2)),), "good", where="a.txt, line 4")
    short = rows(1)[0]

    def ask(each, too_long, count=12):
        return Asker(TASK, PROMPT, encoder, MAX_LENGTH, too_long).ask([short, each], shots[:count])[1]

    with pytest.raises(
        DataError, match=r"a\.txt, line 3: with 7 shots it needs 2\d\d positions, and the network has 192"
    ):
        ask(middle, "refuse", 7)
    fewer = ask(middle, "fewer-shots", 7)
    assert 0 < fewer.shots < 7 and not fewer.is_cut
    assert fewer.context == PROMPT.context(shots[7 - fewer.shots : 7], middle.texts)  # the first ones are left out
    one_more = PROMPT.context(shots[6 - fewer.shots : 7], middle.texts) + max(PROMPT.words.values(), key=len)
    assert len(tokenizer.encode(one_more)) > MAX_LENGTH - 5
    with pytest.raises(DataError, match=r"a\.txt, line 4: with 0 shots .*: --too-long cut leaves out the end"):
        ask(long, "fewer-shots")
    cut = ask(long, "cut")
    text = cut.context.partition("글: ")[2].partition("\n평가")[0]
    assert cut.is_cut and cut.shots == 0 and long.texts[0].startswith(text) and len(text) > 50
    used = max(len(cut.encoded.context) + len(ids) - 1 for ids in cut.encoded.answers)
    assert MAX_LENGTH - 4 <= used <= MAX_LENGTH
    with pytest.raises(DataError, match="the prompt's own words are too long"):
        Asker(TASK, PROMPT, encoder, 5, "cut").ask([short], [])


def test_rows_with_fewer_shots_are_counted_and_scored_by_their_own_prompt(net, tokenizer):
    middle = Row((" ".join(row.texts[0] for row in rows(26, seed=2)),), "good")
    scored = [*rows(5), middle]
    scores = in_context(net, tokenizer, scored, rows(40, seed=1), shots=(6,), draws=2, too_long="fewer-shots").run()
    assert [each.notes["fewer shots"] for each in scores.conditions] == [1, 1]


# ---- options ---------------------------------------------------------------------------------------------------------


def test_rows_are_chosen_in_their_order():
    many = rows(50)
    chosen = choose_rows(many, 10, 3)
    places = [many.index(row) for row in chosen]
    assert places == sorted(set(places)) and len(places) == 10
    assert chosen == choose_rows(many, 10, 3) != choose_rows(many, 10, 4)
    assert choose_rows(many, 0, 3) == choose_rows(many, 50, 3) == many


@pytest.mark.parametrize(
    ("name", "value"), [("shots", ()), ("shots", (1, -1)), ("draws", 0), ("rows", -1), ("seed", -1), ("too_long", "no")]
)
def test_options_out_of_range_are_named(name, value):
    with pytest.raises(RecipeError, match=f"{name}="):
        InContextOptions(**{name: value})


def test_a_score_that_does_not_exist_is_none():
    assert summary([math.nan, math.nan]) == {"mean": None, "deviation": None, "draws": [None, None]}
    assert summary([0.5, math.nan, 0.7]) == {
        "mean": pytest.approx(0.6),
        "deviation": pytest.approx(0.1414, abs=1e-4),
        "draws": [0.5, None, 0.7],
    }


def test_every_public_task_of_classes_is_scored(net, tokenizer):
    """With made rows, pairs among them."""
    for task in PUBLIC.values():
        if task.head != CLASSIFICATION:
            continue
        made = [
            Row(row.texts * (1 + task.is_pair), task.labels[place % len(task.labels)])
            for place, row in enumerate(rows(8))
        ]
        scores = in_context(
            make_network(tokenizer.vocab_size, 512), tokenizer, made, prompt=open_prompt(task), task=task, shots=(0,)
        ).run()
        assert set(scores.conditions[0].scores) == set(WAYS) and not scores.conditions[0].notes["crossed"]
