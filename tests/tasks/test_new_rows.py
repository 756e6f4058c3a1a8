"""New rows from files of all kinds: each line is a row, and what is not one is named."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.new_rows import JSON_LINES, TEXT, NewRows, open_rows
from kogpt2_gluon.tasks.task import CLASSIFICATION, REGRESSION, TOKEN_LABELS, Task

ONE = Task("reviews", "", CLASSIFICATION, iter, {}, (), labels=("bad", "good"))
PAIR = Task("pairs", "", REGRESSION, iter, {}, (), is_pair=True, value_range=(1.0, 5.0))
SPANS = Task("names", "", TOKEN_LABELS, iter, {}, (), kinds=("PS",))


def write(folder: Path, content: str | bytes, name: str = "rows.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, task: Task = ONE, form: str = "") -> list[tuple[int, tuple[str, ...]]]:
    return [(number, row.texts) for number, row in NewRows(path, task, form)]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("첫째\n둘째\n", ["첫째", "둘째"]),
        ("첫째\n둘째", ["첫째", "둘째"]),
        ("첫째\r\n둘째\r\n", ["첫째", "둘째"]),
        ("\ufeff첫째\n둘째\n", ["첫째", "둘째"]),
        ("첫째\n\n  \n둘째\n", ["첫째", "", "  ", "둘째"]),  # an empty line is a row, or answers move against lines
        (
            "오늘\u2028은\n\x0b날씨가\x85맑다\n",
            ["오늘\u2028은", "\x0b날씨가\x85맑다"],
        ),  # inside of lines
        ('{"text" is no JSON\n', ['{"text" is no JSON']),
        ('{"id": 1}\n', ['{"id": 1}']),
    ],
)
def test_each_line_is_a_row(content, texts, tmp_path):
    assert read(write(tmp_path, content)) == [(number, (text,)) for number, text in enumerate(texts, 1)]


def test_pairs_have_a_tab_between_them(tmp_path):
    assert read(write(tmp_path, "하나\t둘\n셋\t 넷\n"), PAIR) == [(1, ("하나", "둘")), (2, ("셋", " 넷"))]


def test_json_lines_by_name_by_their_first_line_or_as_asked(tmp_path):
    content = '{"text": "하나\\t둘", "label": 1}\n\n{"text": "셋\\n"}\n'
    rows = [(1, ("하나\t둘",)), (3, ("셋\n",))]
    for name in ("rows.jsonl", "rows.ndjson", "rows.txt", "rows"):
        assert read(write(tmp_path, content, name)) == rows, name
    zipped = write(tmp_path, gzip.compress(content.encode()), "rows.jsonl.gz")
    assert read(zipped) == rows
    with pytest.raises(DataError, match="text is missing"):  # by its name it is JSON lines, whatever it holds
        read(write(tmp_path, '{"sentence": "a"}\n', "other.jsonl"))
    assert read(write(tmp_path, '{"text": "a"}\n'), form=TEXT) == [(1, ('{"text": "a"}',))]
    pairs = write(tmp_path, '{"text": "하나", "text_2": "둘"}\n')
    assert read(pairs, PAIR, JSON_LINES) == [(1, ("하나", "둘"))]


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        (ONE, "a\nb\tc\n", "rows.txt, line 2: a tab, and reviews takes one text a line; JSON lines"),
        (PAIR, "a\tb\na\n", "rows.txt, line 2: 1 text, and pairs takes two, with a tab"),
        (PAIR, "a\tb\tc\n", "rows.txt, line 1: 3 texts, and pairs takes two"),
        (PAIR, "a\t \n", "rows.txt, line 1: an empty text"),
        (SPANS, "a\n\nb\n", "rows.txt, line 2: an empty text"),
        (ONE, b"a\n\xff\xfe\xfa\xfb\xf0 and more text\n", "rows.txt"),
        (ONE, "안녕하세요 반갑습니다\n".encode("cp949"), "rows.txt: is CP949, not UTF-8; first: iconv"),
        (ONE, "가\0나\n", "rows.txt"),
        (ONE, "", "rows.txt: is empty"),
        (ONE, b"PK\3\4" + bytes(60), "rows.txt"),
        (ONE, '{"text": "a"}\nnot JSON\n', "rows.txt, line 2: not JSON"),
        (ONE, '{"text": "a"}\n[1]\n', "rows.txt, line 2: a JSON array, where an object is expected"),
        (ONE, '{"text": "a"}\n{"text": 5}\n', "rows.txt, line 2: text is a number, where a text is expected"),
        (ONE, '{"text": "a"}\n{"text": "\\ud800"}\n', "rows.txt, line 2: half of a surrogate pair"),
        (ONE, '{"text": "a", "text_2": "b"}\n', "rows.txt, line 1: text_2, and reviews takes one text"),
        (PAIR, '{"text": "a"}\n', "rows.txt, line 1: text_2 is missing"),
        (ONE, '{"text": "a", "text": "b"}\n', "rows.txt, line 1: the key 'text' twice"),
        (ONE, '{"text": "a"}\n{"text": "a", "id": 1, "id": 1}\n', "rows.txt, line 2: the key 'id' twice"),
        (ONE, '{"text": "a"}\n{"text": ' + "[" * 100_000, "rows.txt, line 2: "),
        (ONE, "a\n" + "b" * (1 << 20 | 1), "rows.txt, line 2: above 1 MiB"),
    ],
)
def test_what_is_not_a_row_is_one_line(task, content, message, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read(path, task)
    assert message in str(caught.value) and "\n" not in str(caught.value)


SIGNS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))
STRANGE = st.sampled_from("\x0b\x0c\x1c\x85\u2028\u2029")  # for Python, ends of lines


@given(st.lists(st.text(SIGNS | STRANGE, max_size=20), min_size=1), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=40, deadline=None)
def test_a_row_for_each_line_whatever_is_in_it(tmp_path_factory, texts, end):
    # The first line says what the file is. It is long, since a text of hardly more than control characters is refused.
    texts[0] = "가나다라마바사" * 40 + texts[0]
    path = write(tmp_path_factory.getbasetemp(), end.join(texts) + end)
    assert read(path) == [(number, (text,)) for number, text in enumerate(texts, 1)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    assert read(write(tmp_path_factory.getbasetemp(), lines)) == [(n, (text,)) for n, text in enumerate(texts, 1)]


def test_a_pipe_is_read_twice_and_named_in_messages(tmp_path):
    for content, message in (("하나\n둘\n", None), ("하나\n둘\t셋\n", "line 2: a tab"), ("", "is empty")):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=(content,), kwargs={"encoding": "utf-8"})
        writer.start()
        try:
            if message is None:
                with open_rows(pipe, ONE) as rows:
                    assert [number for number, _ in rows] == [number for number, _ in rows] == [1, 2]
            else:
                with pytest.raises(DataError) as caught, open_rows(pipe, ONE) as rows:
                    list(rows)
                assert str(caught.value).startswith(f"{pipe}") and message in str(caught.value)
                assert "kogpt2-predict" not in str(caught.value)
        finally:
            writer.join()
            pipe.unlink()


def test_a_file_that_is_not_there(tmp_path):
    for text in (tmp_path / "rows.txt", Path("정말 재미있다"), Path("정말 재미있다 " * 500)):
        with pytest.raises(DataError, match=r"no such file; to answer this text itself: echo"), open_rows(text, ONE):
            pass
    table = write(tmp_path, "document,label\n재미있다,1\n", "rows.csv")
    with pytest.raises(DataError, match=r"rows\.csv: a table by its name"):
        read(table)
    assert len(read(table, form=TEXT)) == 2
    with pytest.raises(DataError, match="folder"), open_rows(tmp_path, ONE) as rows:
        list(rows)
