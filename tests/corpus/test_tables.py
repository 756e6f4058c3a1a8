"""Tables: how CSV and TSV are spelled, rows that cannot be read, and the types of columns in Parquet and Arrow."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.documents import read_blocks, read_documents
from kogpt2_gluon.corpus.formats import kind_of, tables
from kogpt2_gluon.corpus.formats.delimited import Dialect, judge_dialect, split_records
from kogpt2_gluon.corpus.records import Document
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.errors import DataError, RecipeError
from tests.helpers import REAL_TEXT

pyarrow = pytest.importorskip("pyarrow", reason="tables need pyarrow")


def read(path: Path, data: bytes | str, documents: str) -> list[str]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return [item.text if isinstance(item, Document) else f"<{item.reason}>" for item in read_documents(path, documents)]


# --- CSV and TSV


@pytest.mark.parametrize(
    ("name", "data", "documents", "texts"),
    [
        ("a.csv", 'id,text\n1,가\n2,"나, 다"\n3,"라\n마"\n4,"""바"" 사"\n', "text",
         ["가", "나, 다", "라\n마", '"바" 사']),
        ("a.csv", "id,text\r\n1,가\r\n\r\n2,나\r\n", "text", ["가", "<empty>", "나"]),
        ("a.csv", "\ufeff\n\nid , text \n1,가\n", "text", ["<empty>", "<empty>", "가"]),
        ("a.csv", "text,a,b\n가,1\n나,1,2\n다,1,2,3\n라,1,2,,\n", "text", ["<bad_row>", "나", "<bad_row>", "라"]),
        ("a.csv", 'id,text\n0,"하, 나"\n0,"""둘"""\n1,"가" 나\n2,다\n3,"라\n4,마\n5,"바"\n', "text",
         ["하, 나", '"둘"', "<bad_row>", "다", "<bad_row>", "마", "바"]),
        ("a.csv", 'id,text\n1,"가" 나\n2,"다\n3,라\n', "text", ['"가" 나', '"다', "라"]),
        ("a.csv", 'id,text\n1,5" 화면\n2,그는 "나"라 했다\n', "text", ['5" 화면', '그는 "나"라 했다']),
        ("a.csv", b"id,text\n1,\xff\n2,\xea\xb0\x80\n", "text", ["<bad_utf8>", "가"]),
        ("a.csv", 'id;text\n1;"가; 나"\n2;다, 라\n', "text", ["가; 나", "다, 라"]),
        ("a.csv", "id|text\n1|가, 나\n2|다\n", "text", ["가, 나", "다"]),
        ("a.csv", "text\n가\n나\n", "text", ["가", "나"]),
        ("a.csv", 'text\n"가, 나"\n다\n', "text", ["가, 나", "다"]),
        ("a.csv", "1,가\n2,나\n", "#2", ["가", "나"]),
        ("a.csv", "1,가\n2,나\n", "template:{#2} {#1}", ["가 1", "나 2"]),
        ("a.tsv", 'id\ttext\n1\t"가" 나\n2\t"다\n3\t라"\n4\t""\n', "text", ['"가" 나', '"다', '라"', '""']),
        ("a.tsv", 'id\ttext\n1\t"가\t나"\n2\t"다 ""라"""\n3\t마\n', "text", ["가\t나", '다 "라"', "마"]),
        ("a.tsv", '"id"\t"text"\n"1"\t"가"\n"2"\t"나"\n', "text", ["가", "나"]),
        ("r.tsv", "id\tdocument\tlabel\n1\t가, 나\t0\n2\t\t1\n3\t다\t1\t1\n", "document",
         ["가, 나", "", "<bad_row>"]),
        ("a.csv", 'text.ko,a[b]\n가,나\n', "template:{text.ko}", ["가"]),
    ],
)  # fmt: skip
def test_rows_of_every_spelling(tmp_path: Path, name: str, data: bytes | str, documents: str, texts: list[str]) -> None:
    assert read(tmp_path / name, data, documents) == texts


def test_places_of_rows(tmp_path: Path) -> None:
    data = '\ufeffid,text\n1,"가\n나"\n\n2,"다" x\n3,라\n'.encode()  # the quotes of row 2 do not fit
    (tmp_path / "a.csv").write_bytes(data)
    items = list(read_documents(tmp_path / "a.csv", "text"))
    assert [item.line for item in items] == [2, 4, 5, 6]
    assert [data[item.offset :][:2] for item in items] == [b"1,", b"\n2", b"2,", b"3,"]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than one column is called 'text'"):
        read(tmp_path / "a.csv", "text,text\n가,나\n", "text")
    with pytest.raises(DataError, match="a table of 2 columns, without column #3"):
        read(tmp_path / "a.csv", "가,나\n다,라\n", "#3")


def test_a_stray_quote_costs_its_own_line_alone(tmp_path: Path) -> None:
    rows = [f"{number},{number}번째 글" for number in range(3000)]
    rows[7] = '7,"쉼표, 글"'
    rows[100] = '100,"닫히지 않는 글'
    texts = read(tmp_path / "a.csv", "\n".join(["id,text", *rows]) + "\n", "text")
    expected = {7: "쉼표, 글", 100: "<bad_row>"}
    assert texts == [expected.get(number, f"{number}번째 글") for number in range(3000)]


@pytest.mark.parametrize(
    ("name", "documents", "data"),
    [
        ("a.csv", "b", 'a,b\n' + '"x",' * 150_000),
        ("a.csv", "b", 'a,b\n' + '1,"x\n' * 100_000),
        ("a.csv", "b", "a,b\n1," + '"' * 500_001 + "\n"),
        ("a.tsv", "b", "a\tb\n" + '"\t' * 800_000),
        ("a.json", "b", "[" + '"\\\\\\"' * 5 + '", ' + "1, " * 300_000 + "[]]"),
        ("a.json", "a[].b", '{"a": [' + "[" * 500_000 + "]" * 500_000 + "]}"),
        ("a.json", "a.b[]", '{"a": ' * 100_000 + "1" + "}" * 100_000),
        ("wiki_00", "doc", "<doc id='1'>\n" + "x</doc>" * 300_000 + "\n</doc>\n"),
        ("a.txt", "wikitext", " = a " * 400_000),
        ("a.txt", "wikitext", "= " * 900_000),
        ("a.txt", r"separator:\n\n\n", "\r\n" * 900_000),
    ],
)  # fmt: skip
def test_files_made_to_take_long_do_not(tmp_path: Path, name: str, documents: str, data: str) -> None:
    """Every reader passes over its bytes a fixed number of times."""
    (tmp_path / name).write_text(data, encoding="utf-8")
    began = time.process_time()
    try:
        kind = kind_of(documents)
        for block in read_blocks(local_source(tmp_path / name), kind):
            kind.check_opening(block)
            list(kind.parse_block(block))
    except DataError as error:
        assert str(tmp_path / name) in str(error)
    assert time.process_time() - began < 20


CELLS = st.text(st.sampled_from('가나 ,"\t;|\n\\a1'), max_size=8)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.data(),
    st.lists(st.tuples(CELLS, CELLS), max_size=12),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(8, 40),
)
def test_what_a_writer_writes_is_read(
    tmp_path: Path, data: st.DataObject, rows: list[tuple[str, str]], quoting: Any, line_end: str, block_bytes: int
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=quoting, lineterminator=line_end).writerows(
        [("a", "text", "b"), *((1, *row) for row in rows)]
    )
    path = tmp_path / "a.csv"
    path.write_bytes(out.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        items = list(read_documents(path, "text"))
        assert [item.text for item in items if isinstance(item, Document)] == [text for text, _ in rows]
        source, kind = local_source(path), kind_of("text")
        blocks = list(read_blocks(source, kind))
        place = data.draw(st.integers(0, len(blocks) - 1))
        assert list(read_blocks(source, kind, start=blocks[place].next_start)) == blocks[place + 1 :]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["가", ",", '"', "\n", "\\", "\r\n", " "]), max_size=30), st.booleans())
def test_records_are_split_as_the_csv_module_would(pieces: list[str], backslash: bool) -> None:
    text = "".join(pieces)
    data = text.encode()
    dialect = Dialect(",", "backslash" if backslash else "standard")
    splits = list(split_records(data, dialect))
    assert [split.begin for split in splits] == [0, *(split.next for split in splits)][: len(splits)]
    if backslash or not all(split.is_whole for split in splits):
        return
    whole = list(csv.reader(io.StringIO(text, newline="\n"), strict=True))
    one_by_one = [next(csv.reader(io.StringIO(data[s.begin : s.end].decode(), newline="\n")), []) for s in splits]
    assert one_by_one == whole


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.sampled_from([b'"', b",", b"\n", b"\xff", b"\xea\xb0\x80", b"\\", b"\r", b"\t", b"\0", b"ab"]), max_size=60
    )
)
def test_any_bytes_end_in_rows_or_in_one_line(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n" + b"".join(pieces))
    try:
        items = list(read_documents(path, "b"))
    except DataError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert all(0 <= item.offset <= path.stat().st_size for item in items)


@pytest.mark.skipif(not (REAL_TEXT / "finetune").is_dir(), reason="no real text on this machine")
@pytest.mark.parametrize(
    ("name", "column", "rows", "quoting"),
    [
        ("KorSTS/sts-train.tsv", "sentence1", 5749, "none"),
        ("KorSTS/sts-dev.tsv", "sentence2", 1500, "none"),
        ("nsmc/rebuilt_ratings_test.txt", "document", 10_000, "none"),
        ("chatbot/ChatbotData.csv", "A", 11_823, "standard"),
        ("question_pair/kor_pair_train.csv", "question1", 6888, "standard"),
        ("question_pair/kor_Pair_test.csv", "question2", 688, "standard"),
    ],
)
def test_real_tables_are_read_whole(name: str, column: str, rows: int, quoting: str) -> None:
    path = REAL_TEXT / "finetune" / name
    form = "csv" if name.endswith(".csv") else "tsv"
    assert judge_dialect(path.read_bytes()[: 1 << 20], form, is_whole=False).quoting == quoting
    items = list(read_documents(path, column))
    assert len([item for item in items if isinstance(item, Document)]) == len(items) == rows


# --- Parquet and Arrow

COLUMNS: dict[str, tuple[Any, list[Any], str, list[str]]] = {
    "text": (pyarrow.string(), ["가", None, "다"], "c", ["가", "<null_field>", "다"]),
    "large": (pyarrow.large_string(), ["가", "", "다"], "c", ["가", "", "다"]),
    "binary": (pyarrow.binary(), ["가".encode(), b"\xff", None], "c", ["가", "<bad_utf8>", "<null_field>"]),
    "dictionary": (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), ["가", "가", None], "c",
        ["가", "가", "<null_field>"]),
    "list": (pyarrow.list_(pyarrow.string()), [["가", "나"], [], ["다", None]], "c", ["가\n나", "<empty>", "다"]),
    "lists": (pyarrow.list_(pyarrow.list_(pyarrow.string())), [[["가"], ["나"]], None, [[]]], "c",
        ["가\n나", "<null_field>", "<empty>"]),
    "struct": (pyarrow.struct([("s", pyarrow.string())]), [{"s": "가"}, {"s": None}, None], "c.s",
        ["가", "<null_field>", "<null_field>"]),
    "structs": (
        pyarrow.list_(pyarrow.struct([("s", pyarrow.string())])),
        [[{"s": "가"}, {"s": "나"}], [{"s": None}], []],
        "c[].s",
        ["가\n나", "<null_field>", "<empty>"],
    ),
    "number": (pyarrow.int64(), [1, None, 3], "c", ["<field_not_text>", "<null_field>", "<field_not_text>"]),
    "numbers in a template": (pyarrow.float64(), [0.5, None, 3], "template:{c} 점",
        ["0.5 점", "<null_field>", "3.0 점"]),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("form", ["parquet", "arrow", "stream", "parquet.gz"])
def test_columns_of_every_type(tmp_path: Path, name: str, form: str) -> None:
    kind, values, documents, texts = COLUMNS[name]
    table = pyarrow.table({"id": [1, 2, 3], "c": pyarrow.array(values, kind)})
    sink = io.BytesIO()
    if form.startswith("parquet"):
        from pyarrow import parquet

        parquet.write_table(table, sink, row_group_size=2)
    else:
        with (pyarrow.ipc.new_file if form == "arrow" else pyarrow.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table)
    data = gzip.compress(sink.getvalue()) if form.endswith("gz") else sink.getvalue()
    assert read(tmp_path / f"a.{form}", data, documents) == texts


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(
        pyarrow.table({"text": [f"{number}번째 글" * 20 for number in range(2000)]}), sink, compression="none"
    )
    whole = sink.getvalue()
    for data in (whole[:-20], whole[:4] + b"\0" * 30_000 + whole[30_004:], whole[: len(whole) // 2]):
        with pytest.raises(DataError, match=r"a\.parquet: damaged, or not such a table"):
            read(tmp_path / "a.parquet", data, "text")


def test_places_outside_of_the_memory_of_a_batch_are_found_before_they_are_read() -> None:
    offsets, text = pyarrow.py_buffer(np.array([0, 900, 3], np.int32).tobytes()), pyarrow.py_buffer(b"abc")
    outside = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, offsets, text])
    two = pyarrow.py_buffer(np.array([0, 2], np.int32).tobytes())
    lists = pyarrow.Array.from_buffers(pyarrow.list_(pyarrow.string()), 1, [None, two], children=[outside])
    nested = pyarrow.StructArray.from_buffers(pyarrow.struct([("a", pyarrow.string())]), 2, [None], children=[outside])
    numbers = pyarrow.py_buffer(np.array([0, 7], np.int32).tobytes())
    indices = pyarrow.Array.from_buffers(pyarrow.int32(), 2, [None, numbers])
    chosen = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["a"]), safe=False)
    for column in (outside, lists, nested, chosen):
        with pytest.raises(pyarrow.ArrowException):
            tables._check_places(pyarrow, pyarrow.RecordBatch.from_arrays([column], names=["text"]))
    long_text = pyarrow.py_buffer(b"\xff" * 900)
    bad_utf8 = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, offsets.slice(0, 8), long_text])
    coded = pyarrow.array(["a"]).dictionary_encode()
    whole = [bad_utf8, pyarrow.array([["a", None]]), pyarrow.array([{"a": "b"}]), coded]
    for column in whole:  # a text that is not in UTF-8 costs its own row alone
        tables._check_places(pyarrow, pyarrow.RecordBatch.from_arrays([column], names=["text"]))


def test_without_pyarrow_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1\x15\x04\x15\xff" + b"\0" * 40)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RecipeError, match=r"need pyarrow: pip install 'kogpt2-gluon\[tables\]'"):
        list(read_documents(tmp_path / "a.parquet", "text"))


def test_only_a_table_loads_pyarrow(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "가"}\n', encoding="utf-8")
    script = f"""
import sys
from pathlib import Path
from kogpt2_gluon.corpus.cleaning import clean
clean([{str(tmp_path / "a.jsonl")!r}], Path({str(tmp_path / "out")!r}), "text", 0.0)
assert "pyarrow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# --- memory

PEAK = """
import resource, sys
from kogpt2_gluon.corpus.documents import read_documents
count = sum(1 for _ in read_documents(sys.argv[1], "text"))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("form", ["array", "csv", "parquet"])
def test_memory_does_not_grow_with_a_file(tmp_path: Path, form: str) -> None:
    texts = [f"{number}번째 글이다. " + "가나다라 " * 120 for number in range(500)]
    peaks = []
    for copies in (10, 240):  # 8 and 200 MB
        path = tmp_path / f"a.{'json' if form == 'array' else form}"
        if form == "array":
            row = ", ".join(f'{{"id": 7, "text": "{text}"}}' for text in texts)
            with path.open("w", encoding="utf-8") as stream:
                stream.write("[" + row)
                for _ in range(copies - 1):
                    stream.write(", " + row)
                stream.write("]")
        elif form == "csv":
            with path.open("w", encoding="utf-8") as stream:
                stream.write("id,text\n")
                for _ in range(copies):
                    stream.write("".join(f'7,"{text}"\n' for text in texts))
        else:
            from pyarrow import parquet

            table = pyarrow.table({"id": [7] * len(texts), "text": texts})
            with parquet.ParquetWriter(path, table.schema, compression="none", use_dictionary=False) as writer:
                for _ in range(copies):
                    writer.write_table(table)
        done = subprocess.run([sys.executable, "-c", PEAK, str(path)], check=True, capture_output=True, text=True)
        count, peak = map(int, done.stdout.split())
        assert count == copies * len(texts)
        peaks.append(peak)
        path.unlink()
    assert peaks[1] < 1.25 * peaks[0] + 10, peaks


def test_a_table_is_cleaned_in_worker_processes(tmp_path: Path) -> None:
    rows = "".join(f'{number},"{number}번째 글, 또\n다른 줄"\n' for number in range(30_000))
    (tmp_path / "a.csv").write_text("id,text\n" + rows, encoding="utf-8")
    report = clean([tmp_path / "a.csv"], tmp_path / "out", "text", 0.0, processes=2)
    assert report.documents.kept["train"] == report.documents.read == 30_000
