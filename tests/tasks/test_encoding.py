"""Rows as tokens, spans as labels of tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.encoding import NO_TAG, encode, spans_of_tags, tag_names, tags_of_spans
from kogpt2_gluon.tasks.task import CLASSIFICATION, JOINT, REGRESSION, TOKEN_LABELS, Row, Span, Task
from kogpt2_gluon.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer: bytes, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(small_tokenizer)
    return Tokenizer.load(path)


def task(head: str, **more) -> Task:
    return Task("made", "", head, read=iter, splits={}, metrics=(), **more)


def of_row(examples, number):
    return examples.tokens[examples.ends[number] : examples.ends[number + 1]].tolist()


def test_a_text_is_framed_as_in_pretraining(tokenizer):
    rows = [Row(("나는 학교에 간다",), "b"), Row(("",), "a")]
    examples = encode(task(CLASSIFICATION, labels=("a", "b")), rows, tokenizer, 64)
    assert of_row(examples, 0) == [tokenizer.bos_id, *tokenizer.encode("나는 학교에 간다"), tokenizer.eos_id]
    assert of_row(examples, 1) == [tokenizer.bos_id, tokenizer.eos_id]
    assert examples.answers.tolist() == [1, 0]
    assert examples.lengths.tolist() == [len(of_row(examples, 0)), 2]


def test_a_pair_has_a_border(tokenizer):
    rows = [Row(("나는", "너는"), value=3.0)]
    examples = encode(task(REGRESSION, is_pair=True, value_range=(1.0, 5.0)), rows, tokenizer, 64)
    first, second = tokenizer.encode_batch(["나는", "너는"])
    end = tokenizer.eos_id
    assert of_row(examples, 0) == [tokenizer.bos_id, *first, end, *second, end]
    assert examples.answers.tolist() == [0.5]


def test_a_row_that_is_too_long_is_named_or_cut(tokenizer):
    rows = [Row(("나는 학교에 간다", "간다"), "a", where="rows.txt, line 7")]
    pairs = task(CLASSIFICATION, labels=("a",), is_pair=True)
    with pytest.raises(DataError, match=r"^rows\.txt, line 7: [0-9]+ tokens, more than data\.seq_length=8; .*cut"):
        encode(pairs, rows, tokenizer, 8)
    examples = encode(pairs, rows, tokenizer, 8, cut=True)
    first, second = tokenizer.encode_batch(rows[0].texts)
    assert examples.cut == 1 and examples.lengths.tolist() == [8]
    kept = of_row(examples, 0)
    border = kept.index(tokenizer.eos_id)
    assert kept[1:border] == first[: border - 1] and kept[border + 1 : -1] == second[: 6 - border]
    assert len(first) > len(second) and len(kept) - border - 2 == len(second)  # the longer one alone lost tokens


def test_no_rows(tokenizer):
    with pytest.raises(DataError, match="no rows"):
        encode(task(CLASSIFICATION), [], tokenizer, 8)


def test_fingerprints_tell_answers_and_texts_apart(tokenizer):
    labels = task(CLASSIFICATION, labels=("a", "b"))
    rows = [[Row((text,), label)] for text, label in (("나는", "a"), ("나는", "b"), ("나는 나는", "a"))]
    prints = [encode(labels, each, tokenizer, 16).fingerprint for each in (*rows, rows[0])]
    assert len(set(prints)) == 3 and prints[0] == prints[3]


def test_labels_of_tokens(tokenizer):
    text = "홍길동은 서울에서 학교에 간다"
    spans = (Span(0, 3, "PS"), Span(5, 7, "LC"))
    examples = encode(task(JOINT, labels=("a",), kinds=("PS", "LC")), [Row((text,), "a", spans=spans)], tokenizer, 64)
    names = tag_names(task(JOINT, kinds=("PS", "LC")))
    assert names == ("O", "B-PS", "I-PS", "B-LC", "I-LC")
    assert examples.tags[0] == examples.tags[-1] == NO_TAG  # <s> and </s>
    tags = [names[int(tag)] for tag in examples.tags[1:-1]]
    assert set(tags) <= {"O", "B-PS", "I-PS", "B-LC", "I-LC"} and {"B-PS", "B-LC"} <= set(tags)
    found = spans_of_tags(tags, examples.places[1:-1], text)
    assert len(found) == len(spans)
    for span, wanted in zip(found, spans):
        assert span.kind == wanted.kind and span.begin <= wanted.begin and wanted.end <= span.end


@st.composite
def texts_with_spans(draw):
    text = draw(st.text("가나다 ab", min_size=1, max_size=30))
    edges = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    spans = []
    for begin, end in zip(edges[::2], edges[1::2]):
        inside = text[begin:end]
        begin, end = begin + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
        if begin < end:
            spans.append(Span(begin, end, draw(st.sampled_from(["PS", "LC"]))))
    return text, tuple(spans)


@given(texts_with_spans())
def test_with_a_token_for_each_character_spans_come_back(made):
    text, spans = made
    places = np.array([(place, place + 1) for place in range(len(text))], np.int32)
    assert spans_of_tags(tags_of_spans(spans, places), places, text) == spans


@given(texts_with_spans(), st.data())
def test_whatever_the_tokens_spans_are_inside_the_text_and_in_order(made, data):
    text, spans = made
    edges = [0, *sorted(data.draw(st.sets(st.integers(1, len(text)), max_size=9))), len(text)]
    places = np.array([pair for pair in zip(edges, edges[1:]) if pair[0] < pair[1]], np.int32).reshape(-1, 2)
    tags = data.draw(
        st.lists(
            st.sampled_from(tag_names(task(TOKEN_LABELS, kinds=("PS", "LC")))),
            min_size=len(places),
            max_size=len(places),
        )
    )
    for found in (spans_of_tags(tags, places, text), spans_of_tags(tags_of_spans(spans, places), places, text)):
        end = 0
        for span in found:
            assert end <= span.begin < span.end <= len(text)
            assert text[span.begin : span.end].strip() == text[span.begin : span.end]
            end = span.end


def test_the_places_of_ids_joined_are_the_text(tokenizer):
    texts = ["  홍길동은 서울에서", "가나 다", ""]
    for (ids, places), text, plain in zip(tokenizer.encode_with_places(texts), texts, tokenizer.encode_batch(texts)):
        assert ids == plain and len(places) == len(ids)
        covered = "".join(text[begin:end] for begin, end in places)
        assert covered.split() == text.split()
