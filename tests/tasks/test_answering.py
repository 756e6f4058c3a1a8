"""Answers to new texts: those of the rows alone, in their order, in windows, with numbers that are checked."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tasks import answering
from kogpt2_gluon.tasks.answering import Answer, AnsweringOptions, answer_rows, check_rows, row_lengths
from kogpt2_gluon.tasks.encoding import encode
from kogpt2_gluon.tasks.fine_tuned import FineTuned, load_fine_tuned
from kogpt2_gluon.tasks.task import Row, Span
from tests.convert.head_helpers import SENTENCES, TASKS, make_fine_tuned


@pytest.fixture(scope="module")
def tuned(small_tokenizer: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FineTuned]:
    """A network of each kind of head."""
    folder = tmp_path_factory.mktemp("tuned")
    made = {kind: make_fine_tuned(folder / kind, small_tokenizer, kind) for kind in TASKS}
    return {kind: load_fine_tuned(checkpoint.path, "cpu", ops="stock") for kind, checkpoint in made.items()}


def numbered(network: FineTuned, texts) -> list[tuple[int, Row]]:
    label = network.task.labels[0] if network.task.labels else ""
    pair = network.task.is_pair
    rows = [Row((text, text[::-1] + ".") if pair else (text,), label, 1.0, where=f"line {n}") for n, text in texts]
    return [(number, row) for (number, _), row in zip(texts, rows)]


def answers(network: FineTuned, rows, **options) -> list[Answer]:
    return list(answer_rows(network, rows, AnsweringOptions(**options)))


def same(one: Answer, other: Answer) -> bool:
    return (
        (one.number, one.texts, one.spans, list(one.probabilities))
        == (other.number, other.texts, other.spans, list(other.probabilities))
        and np.allclose(list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-5)
        and np.allclose(one.value or 0.0, other.value or 0.0, atol=1e-5)
    )


@pytest.mark.parametrize("kind", TASKS)
@given(st.lists(st.sampled_from([*SENTENCES, "a", "오늘 " * 9]), min_size=1, max_size=12), st.integers(1, 5))
@settings(max_examples=12, deadline=None)
def test_each_row_has_its_own_answer_in_order(tuned, kind, texts, window):
    network = tuned[kind]
    rows = numbered(network, list(enumerate(texts, 1)))
    alone = {text: answers(network, numbered(network, [(1, text)]))[0] for text in set(texts)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "WINDOW_ROWS", window)
        found = answers(network, rows, batch_size=3)
    assert [each.number for each in found] == list(range(1, len(texts) + 1))
    for each, text in zip(found, texts):
        expected = alone[text]
        assert same(each, Answer(each.number, expected.texts, expected.probabilities, expected.value, expected.spans))


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("class", {"row", "label", "probabilities"}),
        ("pair", {"row", "label", "probabilities"}),
        ("number", {"row", "value"}),
        ("tags", {"row", "spans"}),
        ("both", {"row", "label", "probabilities", "spans"}),
    ],
)
def test_what_an_answer_has(tuned, kind, keys):
    network = tuned[kind]
    for each in answers(network, numbered(network, list(enumerate(SENTENCES, 1)))):
        plain = each.to_dict()
        assert set(plain) == keys
        if "label" in keys:
            assert tuple(plain["probabilities"]) == network.task.labels
            assert sum(plain["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert plain["probabilities"][plain["label"]] == max(plain["probabilities"].values())
        if "value" in keys:
            assert 1 <= plain["value"] <= 5
        for span in plain.get("spans", []):
            assert span["text"] == each.texts[0][span["begin"] : span["end"]] and span["kind"] in network.task.kinds


def test_the_first_of_two_likely_labels_counts():
    answer = Answer(3, ("a",), {"b": 0.5, "a": 0.5}, None, (Span(0, 1, "PS"),))
    assert answer.label == "b"
    assert answer.to_dict()["spans"] == [{"begin": 0, "end": 1, "kind": "PS", "text": "a"}]
    assert Answer(1, ("a",), {"a": 1 / 3, "b": 2 / 3}).to_dict()["probabilities"] == {"a": 0.333333, "b": 0.666667}


def test_rows_come_in_windows_however_many_there_are(tuned):
    """A stream without an end: its first answers come all the same."""
    network = tuned["class"]
    read = itertools.count(1)
    endless = (numbered(network, [(number, "왜")])[0] for number in read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "WINDOW_ROWS", 4)
        found = list(itertools.islice(answer_rows(network, endless, AnsweringOptions()), 6))
    assert [each.number for each in found] == [1, 2, 3, 4, 5, 6] and next(read) == 9
    rows = numbered(network, [(1, "가" * 300), (2, "나"), (3, "다" * 300)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "WINDOW_BYTES", 500)
        assert [len(each) for each in answering._windows(rows)] == [1, 2]


@pytest.mark.parametrize("kind", TASKS)
def test_lengths_are_those_of_the_encoding(tuned, kind):
    network = tuned[kind]
    rows = [row for _, row in numbered(network, list(enumerate([*SENTENCES, "가 나"], 1)))]
    examples = encode(network.task, rows, network.tokenizer, 1000)
    assert row_lengths(network.tokenizer, rows).tolist() == examples.lengths.tolist()


def test_a_row_that_is_too_long_is_named_or_cut(tuned):
    network = tuned["class"]
    rows = numbered(network, [(1, "왜"), (2, "오늘은 날씨가 " * 25), (3, "오늘은 날씨가 " * 30)])
    with pytest.raises(
        DataError, match=r"^line 2: \d+ tokens, more than the 48 .*--seq-length \(up to 64\), or --too-long cut"
    ):
        check_rows(network, rows, AnsweringOptions())
    found = check_rows(network, rows, AnsweringOptions(too_long="cut"))
    assert (found.rows, found.cut, found.size) == (3, 2, sum(len(row.texts[0].encode()) for _, row in rows))
    cut = answers(network, rows, too_long="cut")
    ids = network.tokenizer.encode(rows[1][1].texts[0])[:46]
    assert cut[1].texts == rows[1][1].texts
    shorter = network.tokenizer.decode(ids)
    assert network.tokenizer.encode(shorter) == ids
    assert same(answers(network, numbered(network, [(2, shorter)]))[0], Answer(2, (shorter,), cut[1].probabilities))
    assert check_rows(network, rows[:1], AnsweringOptions(seq_length=3)).cut == 0
    with pytest.raises(RecipeError, match=r"--seq-length=65 is above the 64 tokens that the network takes"):
        check_rows(network, rows, AnsweringOptions(seq_length=65))


def test_no_rows(tuned):
    with pytest.raises(DataError, match="no rows"):
        check_rows(tuned["class"], [], AnsweringOptions())


@pytest.mark.parametrize("kind", TASKS)
def test_an_answer_that_is_not_a_number_is_an_error(kind, small_tokenizer, tmp_path: Path):
    """argmax would take NaN for the first label, without a word."""

    def spoil(arrays):
        arrays["_embed.weight"][network_row] = math.nan

    network_row = 100
    checkpoint = make_fine_tuned(tmp_path / kind, small_tokenizer, kind, change=spoil)
    network = load_fine_tuned(checkpoint.path, "cpu", ops="stock")
    bad = network.tokenizer.decode([network_row])
    texts = [(1, "왜"), (2, f"왜{bad} {bad}")]
    rows = numbered(network, texts)
    assert any(network_row in network.tokenizer.encode(text) for text in rows[1][1].texts)
    with pytest.raises(DataError, match=r"^line 2: the network's answer is not a finite number"):
        answers(network, rows)


def test_progress_adds_up_to_the_size(tuned):
    network = tuned["class"]
    rows = numbered(network, list(enumerate(SENTENCES * 3, 1)))
    done: list[float] = []
    list(answer_rows(network, rows, AnsweringOptions(batch_size=2), done.append))
    assert sum(done) == pytest.approx(check_rows(network, rows, AnsweringOptions()).size) and len(done) == 8
