"""Kinds of documents in plain text: whole files, texts between marks, articles under headings, <doc> files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.documents import read_blocks, read_documents
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.records import Document
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.files import TextChoice, list_text_files


def read(path: Path, data: bytes | str, documents: str) -> list[str]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    items = list(read_documents(path, documents))
    content = path.read_bytes()
    for item in items:
        assert content.count(b"\n", 0, item.offset) + 1 == item.line
    return [item.text if isinstance(item, Document) else f"<{item.reason}>" for item in items]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ("첫 줄\n\n둘째 줄\n", ["첫 줄\n\n둘째 줄"]),
        ("\ufeff\n\n글\r\n끝", ["글\n끝"]),
        (b"\xff\n\xea\xb8\x80\n\xff", ["글"]),
        (b"\xff\xff", ["<bad_utf8>"]),
        (" \n\t\n", ["<empty>"]),
        ("", []),
    ],
)
def test_a_file_is_a_document(tmp_path: Path, data: bytes | str, texts: list[str]) -> None:
    assert read(tmp_path / "a.txt", data, "file") == texts


def test_a_file_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "LARGEST_DOCUMENT", 100)
    with pytest.raises(DataError, match=r"a\.txt: over 100 bytes; too long for one document"):
        read(tmp_path / "a.txt", "x" * 101, "file")


@pytest.mark.parametrize(
    ("mark", "data", "texts"),
    [
        ("<|endoftext|>", "하나<|endoftext|>둘\n셋<|endoftext|>", ["하나", "둘\n셋"]),
        ("<|endoftext|>", "<|endoftext|>하나\n<|endoftext|>\n둘\n", ["하나", "둘"]),
        ("===", "하나===<|x===  ===둘", ["하나", "<|x", "<empty>", "둘"]),
        (
            r"\n---\n",
            "---\n하나 --- 둘\n---\n셋\n----\n넷\r\n---\r\n다섯\n---",
            ["하나 --- 둘", "셋\n----\n넷", "다섯"],
        ),
        (r"\n#", "# 가\n나 # 다\n# 라\n", ["가\n나 # 다", "라"]),
        (r"\n\n\n", "하나\n\n둘\n\n\n셋\n\n\n\n\n넷", ["하나\n\n둘", "셋", "넷"]),
        (r"\f", "하나\f둘\f", ["하나", "둘"]),
        ("@", b"\xff@\xea\xb8\x80", ["<bad_utf8>", "글"]),
        ("없음", "하나\n둘", ["하나\n둘"]),
    ],
)
def test_marks_between_documents(tmp_path: Path, mark: str, data: bytes | str, texts: list[str]) -> None:
    found = read(tmp_path / "a.txt", data, f"separator:{mark}")
    assert [text.strip() for text in found] == texts


def test_a_mark_must_be_named() -> None:
    with pytest.raises(RecipeError, match="say what is between two documents"):
        kind_of("separator:")


def test_articles_under_titles(tmp_path: Path) -> None:
    text = (
        "앞 글의 끝\n\n = 가 = \n\n 첫 문단 = 하나\n\n = = 역사 = = \n\n 글\n\n = 1 + 1 = 2 = \n = = = 셋째 = = = \n"
        " == 붙은 제목 == \n 다\n\n = 빈 글 = \n\n = 끝 =\n ==== \n= 아님\n 라"
    )
    found = [
        " / ".join(line for line in map(str.strip, text.split("\n")) if line)
        for text in read(tmp_path / "a.train", text, "wikitext")
    ]
    assert found == [
        "앞 글의 끝",
        "가 / 첫 문단 = 하나 / 역사 / 글",
        "1 + 1 = 2 / 셋째 / 붙은 제목 / 다",
        "<empty>",
        "끝 / ==== / = 아님 / 라",
    ]


def test_articles_become_documents_of_a_corpus(tmp_path: Path) -> None:
    """In the layout of kowikitext every article has empty lines in it, and the same headings as others."""
    articles = [
        f" = 문서 {n} = \n\n {n}번째 글이다.\n {n}번째 끝.\n\n = = 역사 = = \n\n {n}번째 역사." for n in range(12)
    ]
    (tmp_path / "a").write_text("\n\n".join(articles) + "\n", encoding="utf-8")
    report = clean([tmp_path / "a"], tmp_path / "out", "wikitext", 0.0)
    assert report.documents.kept["train"] == report.documents.read == 12
    assert next(iter(Corpus.open(tmp_path / "out").documents("train"))) == (
        "문서 0\n0번째 글이다.\n0번째 끝.\n역사\n0번째 역사."
    )


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ('<doc id="1" url="u" title="가">\n가\n\n본문 </doc> 아님\n</doc>\n', ["가\n\n본문 </doc> 아님"]),
        ("<doc id='1'>\n가\n</doc>\n\n<doc id='2'>\n</doc>\n<doc id='3'>\n나\n</doc>", ["가", "<empty>", "나"]),
        ("밖\n<doc id='1'>\r\n가\r\n</doc>\r\n또 밖\n", ["<bad_markup>", "가", "<bad_markup>"]),
        (b"<doc id='1'>\n\xff\n</doc>\n<doc id='2'>\n\xff\n\xea\xb8\x80\n</doc>\n", ["<bad_utf8>", "글"]),
        ("글\n" * 3, ["<bad_markup>"]),
    ],
)
def test_doc_files(tmp_path: Path, data: bytes | str, texts: list[str]) -> None:
    assert read(tmp_path / "wiki_00", data, "doc") == texts


def test_a_doc_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("<doc id='1'>\n가\n</doc>\n<doc id='2'>\n나\n", "utf-8")
    items = read_documents(tmp_path / "a", "doc")
    assert next(items).offset == 13
    with pytest.raises(DataError, match=r"truncated: the article that begins after line 4 has no </doc>"):
        next(items)


PIECES = [
    "가",
    " ",
    "\n",
    "---",
    "\n---\n",
    "=",
    " = ",
    " = 가 = \n",
    "= = 나 = =\n",
    "<doc id='1'>\n",
    "</doc>\n",
    "\n\n",
]


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.data(),
    st.lists(st.sampled_from(PIECES), max_size=40),
    st.sampled_from(["separator:---", r"separator:\n---\n", r"separator:\n\n", "wikitext", "doc"]),
    st.integers(16, 60),
)
def test_any_block_is_a_place_to_begin_again(
    tmp_path: Path, data: st.DataObject, pieces: list[str], documents: str, block_bytes: int
) -> None:
    path = tmp_path / "a"
    text = "".join(pieces)
    if documents == "doc":
        text += "\n</doc>\n"
    path.write_text(text, encoding="utf-8")
    source, kind = local_source(path), kind_of(documents)
    whole = list(read_documents(path, documents))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        blocks = list(read_blocks(source, kind))
        assert b"".join(block.data for block in blocks) == path.read_bytes()
        if blocks:
            place = data.draw(st.integers(0, len(blocks) - 1))
            assert list(read_blocks(source, kind, start=blocks[place].next_start)) == blocks[place + 1 :]
    texts = [item.text for block in blocks for item in kind.parse_block(block) if isinstance(item, Document)]
    assert texts == [item.text for item in whole if isinstance(item, Document)]


# --- what is no plain text is refused, unless one insists

NOT_PROSE = {
    "csv": ("a.txt", "id,text,label\n" + "".join(f'{n},"{n}번째 글, 또 글",0\n' for n in range(8)), "CSV"),
    "csv by name": ("a.csv", "text,label\n글 하나,0\n", "CSV"),
    "tsv": ("ratings.txt", "id\tdocument\tlabel\n" + "".join(f'{n}\t"굿" 이다 {n}\t1\n' for n in range(8)), "TSV"),
    "json lines": ("a.txt", '{"text": "가"}\n' * 5, "JSON lines"),
    "json array": ("a.txt", '[\n{"text": "가"},\n{"text": "나"}\n]\n', "a JSON array"),
    "json object": ("a.txt", '{\n "document": [{"text": "가"}]\n}\n', "a JSON object"),
    "html": ("a.txt", "<!DOCTYPE html>\n<html><body>\n<p>글</p>\n</body></html>\n", "HTML"),
    "doc": ("wiki_00", '<doc id="1" title="가">\n가\n</doc>\n', "<doc>"),
}


@pytest.mark.parametrize("name", NOT_PROSE)
@pytest.mark.parametrize("documents", ["line", "blank-line", "file", "separator:---", "wikitext"])
def test_what_is_no_prose_is_refused_by_name(tmp_path: Path, name: str, documents: str) -> None:
    file, text, what = NOT_PROSE[name]
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        clean([tmp_path / file], tmp_path / "out", documents)
    said = str(caught.value)
    # Prose can look like a table by chance, but not like JSON or HTML: there the advice would give garbage.
    insist = f" (plain:{documents} does)" if name[:3] in ("csv", "tsv") else ""
    assert what in said and f"--documents {documents} does not read it{insist}; " in said
    report = clean([tmp_path / file], tmp_path / "out", f"plain:{documents}", 0.0)
    assert report.documents.kept["train"] > 0


@pytest.mark.parametrize(
    "text",
    [
        "어제, 나는 집에 갔다.\n오늘, 비가 온다.\n내일, 눈이 온다.\n모레, 바람이 분다.\n글피, 해가 뜬다.\n끝, 이다.\n",
        "하나\t둘\n글 하나이다\n또 글이다\n",
        "[속보] 비가 온다\n[단독] 눈이 온다\n",
        "{웃음} 그래\n{박수}\n",
        "<제목> 글이다\n본문\n",
        "가, 나, 다\n",
        '"그래, 가자"\n"아니, 싫어"\n',
    ],
)
def test_prose_with_commas_tabs_and_brackets_is_prose(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert clean([tmp_path / "a.txt"], tmp_path / "out", "line", 0.0).documents.kept["train"]


def test_only_plain_text_can_be_insisted_on() -> None:
    with pytest.raises(RecipeError, match="plain: comes before a kind of plain text"):
        kind_of("plain:wikipedia")


def test_a_corpus_of_tables_can_be_read_as_text_on_the_fly(tmp_path: Path) -> None:
    """A corpus made with plain:line can be read with plain:line."""
    rows = ["id,text,label", *(f"{number},{number}번째 글,0" for number in range(50))]
    (tmp_path / "a.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    clean([tmp_path / "a.txt"], tmp_path / "out", "plain:line", 0.0)
    folder = str(tmp_path / "out" / "train")
    files = list_text_files(TextChoice((folder,), "plain:line"), Worker())
    assert len(files.sources) == 1
    with pytest.raises(RecipeError, match="its documents are line, not plain:blank-line"):
        list_text_files(TextChoice((folder,), "plain:blank-line"), Worker())
