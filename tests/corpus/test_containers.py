"""Records in containers: the same documents from JSON lines, arrays, objects, CSV, TSV, Parquet and Arrow."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.documents import check_openings, read_blocks, read_documents
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.records import Document, Rejection
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError

Rows = list[dict[str, Any]]


def arrow(rows: Rows, kind: str) -> bytes:
    pyarrow = pytest.importorskip("pyarrow", reason="tables need pyarrow")
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema([(key, pyarrow.string()) for key in rows[0]]))
    sink = io.BytesIO()
    if kind == "parquet":
        from pyarrow import parquet

        parquet.write_table(table, sink, row_group_size=7)
    elif kind == "feather":  # as pandas writes it
        options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
        with pyarrow.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=5)
    else:
        with (pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=6)
    return sink.getvalue()


def delimited(rows: Rows, **options: Any) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


# name -> (suffix, --documents for the field "text", how rows of texts become a file)
CONTAINERS: dict[str, tuple[str, str, Callable[[Rows], bytes]]] = {
    "json-lines": (".jsonl", "text", lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()),
    "json-lines without a suffix": ("", "text", lambda rows: "\n".join(json.dumps(row) for row in rows).encode()),
    "array": (".json", "text", lambda rows: json.dumps(rows, ensure_ascii=False).encode()),
    "array, a record a line": (
        ".json",
        "text",
        lambda rows: ("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode(),
    ),
    "array, pretty": (".json", "text", lambda rows: json.dumps(rows, indent=4).encode()),
    "array with a mark": (".txt", "text", lambda rows: b"\xef\xbb\xbf" + json.dumps(rows).encode()),
    "object": (
        ".json",
        "data.rows[].text",
        lambda rows: json.dumps({"rows": [{"text": 1}], "data": {"n": 1, "rows": rows}}, ensure_ascii=False).encode(),
    ),
    "objects, pretty": (".json", "text", lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows).encode()),
    "csv": (".csv", "text", delimited),
    "csv for Excel": ("", "text", lambda rows: b"\xef\xbb\xbf" + delimited(rows, quoting=csv.QUOTE_ALL)),
    "csv with semicolons": (".csv", "text", lambda rows: delimited(rows, delimiter=";", lineterminator="\n")),
    "csv of Spark": (
        ".csv",
        "text",
        lambda rows: delimited(rows, doublequote=False, escapechar="\\", quoting=csv.QUOTE_ALL),
    ),
    "tsv": (".tsv", "text", lambda rows: delimited(rows, delimiter="\t", lineterminator="\n")),
    "parquet": (".parquet", "text", lambda rows: arrow(rows, "parquet")),
    "feather": (".feather", "text", lambda rows: arrow(rows, "feather")),
    "arrow": (".arrow", "text", lambda rows: arrow(rows, "file")),
    "arrow stream": (".arrow", "text", lambda rows: arrow(rows, "stream")),
}
TEXTS = [
    "이 영화는 정말 재미있었다.",
    '그는 "안녕, 잘 가"라고 말했다',
    "첫 줄이다.\n둘째 줄, 그리고 끝",
    "괄호 [하나] {둘}, 그리고 \\ 빗금",
    '"따옴표로 시작하고 끝난다"',
    "a,b\tc;d|e",
    "끝에 빗금\\",
    "",
    " 빈칸 ",
] + [f"{number}번째 글이다. " * (number % 5 + 1) for number in range(40)]


def rows_of(texts: list[str]) -> Rows:
    return [{"id": str(number), "text": text, "label": "가"} for number, text in enumerate(texts)]


def texts_of(path: Path, documents: str) -> list[str]:
    return [item.text if isinstance(item, Document) else f"<{item.reason}>" for item in read_documents(path, documents)]


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("block_bytes", [200, 1 << 20])
def test_every_container_gives_the_same_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, block_bytes: int
) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
    suffix, documents, make = CONTAINERS[name]
    texts = [text for text in TEXTS if "\t" not in text] if name == "tsv" else TEXTS
    path = tmp_path / f"a{suffix}"
    path.write_bytes(make(rows_of(texts)))
    assert texts_of(path, documents) == texts
    source, kind = local_source(path), kind_of(documents)
    blocks = list(read_blocks(source, kind))
    assert (len(blocks) > 1) is (block_bytes == 200)
    assert blocks[0].offset <= 60 and all(
        one.next_start == (two.line, two.offset) for one, two in zip(blocks, blocks[1:])
    )
    for place in (0, len(blocks) // 2, len(blocks) - 1):
        assert list(read_blocks(source, kind, start=blocks[place].next_start)) == blocks[place + 1 :]
    # The same from two fields.
    word = documents.replace("text", "{}")
    template = f"template:{{{word.format('label')}}} {{{word.format('id')}}}\\n{{{documents}}}"
    assert texts_of(path, template) == [f"가 {number}\n{text}" for number, text in enumerate(texts)]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_corpus_is_the_same_byte_for_byte(tmp_path: Path, processes: int) -> None:
    made: dict[str, bytes] = {}
    for name, (suffix, documents, make) in CONTAINERS.items():
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(make(rows_of([text for text in TEXTS if "\t" not in text])))
        if processes == 2 and name not in ("json-lines", "array", "csv", "parquet"):
            continue
        clean([path], tmp_path / f"{name}.out", documents, 0.3, processes=processes)
        files = [file for split in ("train", "test") for file in Corpus.open(tmp_path / f"{name}.out").files(split)]
        made[name] = b"|".join(file.read_bytes() for file in files)
    assert len(set(made.values())) == 1


# --- words for what is wanted


RECORD = {
    "title": "제목",
    "text": ["가", "나"],
    "body": {"parts": [{"s": "하나"}, {"s": "둘"}, {"s": None}, {"t": "셋"}]},
    "n": 5,
    "share": 0.5,
    "nothing": None,
    "a.b": "점",
    "deep": [["가", ["나"]], ["다"]],
    "many": [{"x": ["가", 7]}, {"x": ["나"]}],
}


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("title", "제목"),
        ("text", "가\n나"),
        ("text[]", "가\n나"),
        ("[].text", "가\n나"),
        ("body.parts[].s", "하나\n둘 {missing_field: 1, null_field: 1}"),
        ("a.b", "점"),
        ("deep", "가\n나\n다"),
        ("deep[][]", "가\n나\n다"),
        ("many[].x[]", "가\n나 {field_not_text: 1}"),
        ("many[].x", "가\n나 {field_not_text: 1}"),
        ("n", "<field_not_text>"),
        ("body", "<field_not_text>"),
        ("body.parts", "<field_not_text>"),
        ("title.x", "<missing_field>"),
        ("text.x", "<missing_field>"),
        ("title[]", "<field_not_text>"),
        ("nothing", "<null_field>"),
        ("nothing.x", "<null_field>"),
        ("missing", "<missing_field>"),
        ("field:title", "제목"),
        ("template:{title}: {text}", "제목: 가\n나"),
        ("template:{title} ({n}, {share})", "제목 (5, 0.5)"),
        ("template:{title}\\n{nothing}", "제목\n {null_field: 1}"),
        ("template:{{{title}}}\\t\\\\{{x}}", "{제목}\t\\{x}"),
        ("template:{missing} {nothing}", "<missing_field>"),
        ("template:{body.parts[].s}/{a.b}", "하나\n둘/점 {missing_field: 1, null_field: 1}"),
    ],
)
def test_fields_paths_and_templates(tmp_path: Path, word: str, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(RECORD) + "\n", encoding="utf-8")
    (item,) = read_documents(path, word)
    if isinstance(item, Rejection):
        found = f"<{item.reason}>"
    else:
        found = item.text + (f" {dict(item.lost)}".replace("'", "") if item.lost else "")
    assert found == text


@pytest.mark.parametrize("template", ["", "no field", "{}", "{title", "title}", "{a}{b", "}{a}"])
def test_templates_that_are_none(template: str) -> None:
    with pytest.raises(RecipeError, match="--template"):
        kind_of(f"template:{template}")


def test_what_is_left_out_of_documents_is_counted(tmp_path: Path) -> None:
    records = [
        {"text": ["가나다", None, 7]},
        {"text": ["라마바"]},
        {"text": None},
        {"t": 1},
        {"text": []},
        {"text": [None]},
    ]
    records += [{"text": f"{number}번째 글"} for number in range(5)]
    (tmp_path / "a.json").write_text(json.dumps(records), encoding="utf-8")
    report = clean([tmp_path / "a.json"], tmp_path / "out", "text", 0.0, max_dropped=1)
    assert dict(report.documents.dropped) == {"null_field": 2, "missing_field": 1, "empty": 1}
    assert dict(report.lines.dropped) == {"null_field": 3, "field_not_text": 1, "missing_field": 1, "empty": 1}
    assert report.documents.kept["train"] == 7


# --- messages


@pytest.mark.parametrize("container", ["json-lines", "array", "objects, pretty"])
def test_a_wrong_field_names_the_fields_with_what_they_hold(tmp_path: Path, container: str) -> None:
    suffix, _, make = CONTAINERS[container]
    (tmp_path / f"a{suffix}").write_bytes(make([{"id": 7, "sentences": ["가", "나"], "by": {"name": "다"}}] * 12))
    with pytest.raises(DataError) as caught:
        check_openings([local_source(tmp_path / f"a{suffix}")], kind_of("sentence"))
    assert str(caught.value).endswith(
        "no text under 'sentence' in its first 12 records; their fields: id: a number; sentences: a list of texts; "
        "by: an object with name; did you mean --documents sentences?"
    )


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_cleaning_names_the_fields_of_any_container(tmp_path: Path, container: str) -> None:
    """The first block of an array or a table does not begin at byte 0."""
    suffix, field, make = CONTAINERS[container]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(make(rows_of([f"문장 {number}" for number in range(12)])))
    with pytest.raises(DataError, match=r"(their fields|its columns): .*\btext\b"):
        clean([path], tmp_path / "out", field.replace("text", "sentence"))


@pytest.mark.parametrize("container", ["csv", "tsv", "parquet", "arrow stream"])
def test_a_wrong_column_names_the_columns(tmp_path: Path, container: str) -> None:
    suffix, _, make = CONTAINERS[container]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(make(rows_of(TEXTS)))
    with pytest.raises(
        DataError,
        match=r"a table without a column 'txt'; its columns: id.*, text.*, label.*; did you mean --documents text\?",
    ):
        list(read_documents(path, "txt"))


@pytest.mark.parametrize("container", ["json-lines", "array", "csv", "tsv", "parquet"])
def test_a_name_in_other_letters_is_what_was_meant(tmp_path: Path, container: str) -> None:
    suffix, _, make = CONTAINERS[container]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(make([{"id": "1", "Q 1": "글", "A": "답"}] * 12))
    with pytest.raises(DataError, match=r"did you mean --documents 'Q 1'\?"):
        check_openings([local_source(path)], kind_of("q 1"))
    with pytest.raises(DataError, match=r"did you mean --documents A\?"):
        check_openings([local_source(path)], kind_of("a"))


def test_the_way_into_an_object_is_named(tmp_path: Path) -> None:
    whole = {"name": "x", "documents": [{"id": 1, "text": [[{"sentence": "가"}]]}] * 3}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"holds name: a text; documents: a list of objects with id, text; did you mean"
    ):
        list(read_documents(path, "document[].text"))
    with pytest.raises(DataError, match=r"did you mean --documents 'documents\[\]\.text\[\]\[\]\.sentence'\?"):
        check_openings([local_source(path)], kind_of("text"))


# --- JSON, cut as a parser would


SCALARS = st.one_of(st.none(), st.integers(-9, 9), st.text(st.sampled_from('\\"{}[],:가'), max_size=6))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(VALUES, max_size=12), st.sampled_from([None, 0, 1]), st.booleans(), st.integers(1, 40))
def test_arrays_of_any_values(tmp_path: Path, values: list[Any], indent: int, escaped: bool, block_bytes: int) -> None:
    from kogpt2_gluon.corpus.formats.json_array import parse_records, read_array_blocks

    data = json.dumps(values, indent=indent, ensure_ascii=escaped).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        blocks = list(read_array_blocks("a", io.BytesIO(data), 1, 0))
        for place in range(len(blocks)):
            line, offset = blocks[place].next_start
            rest = read_array_blocks("a", io.BytesIO(data[offset:]), line, offset)
            assert list(rest) == blocks[place + 1 :]
    found = [found for block in blocks for found in parse_records(block)]
    assert [record.value for record in found] == values  # type: ignore[union-attr]
    assert all(data.count(b"\n", 0, record.offset) + 1 == record.line for record in found)


@pytest.mark.parametrize("block_bytes", [7, 64, 1 << 20])
def test_what_is_before_a_list_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """It may be longer than the longest document: nothing of it is kept."""
    monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(records_module, "LARGEST_DOCUMENT", 2000)
    before = [{"data": {"rows": [{"text": "아님"}]}, "n": number, "s": '\\"{[' * 5} for number in range(300)]
    whole = {"images": before, "data": {"rows ": 1, "a": before[:40], "rows": [{"text": "가"}, {"text": "나"}]}}
    path = tmp_path / "a.json"
    for indent in (None, 2):
        path.write_text(json.dumps(whole, indent=indent), encoding="utf-8")
        items = list(read_documents(path, "data.rows[].text"))
        assert [item.text for item in items if isinstance(item, Document)] == ["가", "나"]
        content = path.read_bytes()
        assert all(content.count(b"\n", 0, item.offset) + 1 == item.line for item in items)
        assert [content[item.offset :][:1] for item in items] == [b"{", b"{"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("array.json", json.dumps(TEXTS[:8])),
        ("pretty.json", json.dumps(TEXTS[:8], indent=1, ensure_ascii=False)),
        ("lines.jsonl", "\n".join(json.dumps(text) for text in TEXTS[:8]) + "\n"),
        ("lists.json", json.dumps([text.split("\n") for text in TEXTS[:8]])),
    ],
)
def test_records_that_are_texts_themselves(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert texts_of(path, "[]") == TEXTS[:8]
    if "array" in name:
        path.write_text(json.dumps(TEXTS), encoding="utf-8")
        with pytest.raises(
            DataError, match=r"no text under 'text' .*, which are texts themselves; say --documents '\[\]'"
        ):
            clean([path], tmp_path / "out", "text")
