"""Spans from labels of pieces and from brackets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.spans import moved_to, spans_of_brackets, spans_of_labels
from kogpt2_gluon.tasks.task import Span

WORDS = st.lists(st.text("가나다라마a1.", min_size=1, max_size=4), min_size=1, max_size=8)


def labels_of(length: int, spans: list[Span]) -> list[str]:
    labels = ["O"] * length
    for span in spans:
        labels[span.begin : span.end] = [f"I-{span.kind}"] * (span.end - span.begin)
        labels[span.begin] = f"B-{span.kind}"
    return labels


@st.composite
def texts_with_spans(draw: st.DrawFn) -> tuple[str, list[Span]]:
    text = draw(st.text("가나다 라마", min_size=1, max_size=20))
    borders = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    spans = [Span(begin, end, draw(st.sampled_from(["PS", "LC"]))) for begin, end in zip(borders, borders[1:])]
    return text, [span for span in spans if draw(st.booleans())]


@given(texts_with_spans())
def test_spans_come_back_from_labels_of_characters(made: tuple[str, list[Span]]) -> None:
    text, spans = made
    assert spans_of_labels("", text, labels_of(len(text), spans)) == (tuple(spans), 0)


@given(WORDS, st.data())
def test_spans_of_words_are_whole_words_and_their_gaps(words: list[str], data: st.DataObject) -> None:
    labels = [data.draw(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"])) for _ in words]
    found, without_begin = spans_of_labels("", words, labels, " ")
    text = " ".join(words)
    counted = sum(len(text[span.begin : span.end].split(" ")) for span in found)
    assert counted == sum(label != "O" for label in labels)
    assert len(found) == sum(label[0] == "B" for label in labels) + without_begin
    assert all(before.end <= after.begin for before, after in zip(found, found[1:]))


def test_a_label_that_continues_nothing_begins_a_span() -> None:
    found = spans_of_labels("", "가나다라", ["I-PS", "I-LC", "O", "I-LC"])
    assert found == ((Span(0, 1, "PS"), Span(1, 2, "LC"), Span(3, 4, "LC")), 3)


@pytest.mark.parametrize("label", ["", "PS", "B-", "E-PS", "o", "B_PS", "-PS", "PS-B"])
def test_another_label_is_refused(label: str) -> None:
    with pytest.raises(DataError, match=r"a\.tsv, line 3: the label .*, where O, B-KIND or I-KIND is expected"):
        spans_of_labels("a.tsv, line 3", "가", [label])


@given(texts_with_spans())
def test_spans_come_back_from_brackets(made: tuple[str, list[Span]]) -> None:
    text, spans = made
    spans = [span for span in spans if text[span.begin : span.end].strip() == text[span.begin : span.end] != ""]
    annotated, place = "", 0
    for span in spans:
        annotated += f"{text[place : span.begin]}[{span.kind} : {text[span.begin : span.end]}]"
        place = span.end
    assert spans_of_brackets("", annotated + text[place:]) == (text, tuple(spans))


@given(texts_with_spans(), st.data())
def test_spans_move_over_white_space(made: tuple[str, list[Span]], data: st.DataObject) -> None:
    text, spans = made
    spans = [span for span in spans if text[span.begin : span.end].strip() == text[span.begin : span.end] != ""]
    other = "".join(character + data.draw(st.sampled_from(["", " ", "  "])) for character in text if character != " ")
    moved = moved_to(other, text, spans)
    assert moved is not None
    for before, after in zip(spans, moved):
        assert other[after.begin : after.end].replace(" ", "") == text[before.begin : before.end].replace(" ", "")
    assert moved_to(other + "다", text, spans) is None


@pytest.mark.parametrize(
    "annotated", ["내일 [date : ]", "내일 [date 모레]", "[date : 내일", "내일]", "[a : [b : 내일]]"]
)
def test_a_bracket_of_another_form_is_refused(annotated: str) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl, line 2"):
        spans_of_brackets("a.jsonl, line 2", annotated)
