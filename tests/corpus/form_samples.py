"""A sample of every form that a file can have, and of every form that a kind of documents reads."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import sqlite3
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Callable

import numpy as np

TEXTS = [f"{n}번째 글이다. 봄이 오고 꽃이 피었다, 그리고 abc {n * n}." for n in range(12)]


def text(texts: list[str]) -> str:
    return "\n".join(texts) + "\n"


def paragraphs(texts: list[str]) -> str:
    return "\n\n".join(texts) + "\n"


def json_lines(texts: list[str]) -> str:
    return "".join(json.dumps({"id": n, "text": each}, ensure_ascii=False) + "\n" for n, each in enumerate(texts))


def json_array(texts: list[str]) -> str:
    """Pages of NamuWiki, which are records with a text as well."""
    pages = [{"namespace": "0", "title": "가", "text": each} for each in texts]
    return json.dumps(pages, ensure_ascii=False, indent=1)


def json_object(texts: list[str]) -> str:
    """A file of the Modu corpora."""
    return json.dumps({"id": "N", "document": [{"paragraph": [{"form": each}]} for each in texts]}, ensure_ascii=False)


def xml_dump(texts: list[str]) -> str:
    pages = "".join(
        f"<page>\n<title>{n}</title><ns>0</ns><revision><text>{each}</text></revision>\n</page>\n"
        for n, each in enumerate(texts)
    )
    return f'<mediawiki xml:lang="ko">\n{pages}</mediawiki>\n'


def table(delimiter: str, quote: str) -> Callable[[list[str]], str]:
    def rows(texts: list[str]) -> str:
        cells = [f"{n}{delimiter}{quote}{each}{quote}\n" for n, each in enumerate(texts)]
        return delimiter.join(["id", "text"]) + "\n" + "".join(cells)

    return rows


def doc_files(texts: list[str]) -> str:
    return "".join(f'<doc id="{n}" url="u" title="가">\n{each}\n</doc>\n' for n, each in enumerate(texts))


# form -> how texts become a file of it, in characters
WRITTEN: dict[str, Callable[[list[str]], str]] = {
    "text": text,
    "json-lines": json_lines,
    "json-array": json_array,
    "json-object": json_object,
    "csv": table(",", '"'),
    "tsv": table("\t", ""),
    "xml-dump": xml_dump,
    "wikitext": lambda texts: "".join(f" = 제목 = \n{each}\n" for each in texts),
    "doc-files": doc_files,
    "xml": lambda texts: (
        '<?xml version="1.0"?>\n<corpus>' + "".join(f"<p>{each}</p>\n" for each in texts) + "</corpus>"
    ),
    "html": lambda texts: "<!DOCTYPE html>\n<html><body>" + "".join(f"<p>{each}</p>\n" for each in texts) + "</body>",
    "rtf": lambda texts: "{\\rtf1\\ansi " + text(texts) + "}",
    "git-pointer": lambda texts: "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n",
}


def tar(texts: list[str], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for n, each in enumerate(texts):
            about = tarfile.TarInfo(f"{n}.txt")
            about.size = len(each.encode())
            archive.addfile(about, io.BytesIO(each.encode()))
    return buffer.getvalue()


def old_tar(texts: list[str]) -> bytes:
    """Returns an archive as tar of the seventies wrote it: without a magic number."""
    data = bytearray(tar(texts))
    data[257:265] = bytes(8)
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * ord(" "))
    return bytes(data)


def zipped(*members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member in members:
            name, _, content = member.partition("=")
            archive.writestr(name, content or "가나다" * 40)
    return buffer.getvalue()


def sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        with sqlite3.connect(path) as database:
            database.execute("create table t (text)")
        database.close()
        return path.read_bytes()


def numpy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(9))
    return buffer.getvalue()


NOISE = np.random.RandomState(0).bytes(4000)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

# form -> files of it, which no encoding can be asked of
BINARY: dict[str, list[bytes]] = {
    "parquet": [b"PAR1\x15\x04\x15\xc0\x07" + NOISE + b"PAR1"],
    "arrow": [b"ARROW1\0\0" + NOISE, b"FEA1\0\0\0\0" + NOISE],
    "arrow-stream": [b"\xff\xff\xff\xff\x10\x01\0\0" + NOISE],
    "orc": [b"ORC\x0a\x0b\x0a\x03\0\0" + NOISE],
    "avro": [b"Obj\x01\x04\x14avro.codec" + NOISE],
    "zip": [zipped("a.txt", "b.txt"), zipped("가.txt")],
    "docx": [zipped("[Content_Types].xml", "word/document.xml")],
    "xlsx": [zipped("[Content_Types].xml", "xl/workbook.xml")],
    "pptx": [zipped("[Content_Types].xml", "ppt/presentation.xml")],
    "odt": [zipped("mimetype=application/vnd.oasis.opendocument.text", "content.xml")],
    "epub": [zipped("mimetype=application/epub+zip", "OEBPS/a.xhtml")],
    "hwpx": [zipped("mimetype=application/hwp+zip", "Contents/section0.xml")],
    "hwp": [OLE + NOISE + "FileHeader".encode("utf-16-le") + NOISE, b"HWP Document File V3.00 \x1a\1\2\3" + NOISE],
    "ole": [OLE + NOISE + "WordDocument".encode("utf-16-le") + NOISE],
    "tar": [tar(TEXTS), tar(TEXTS, tarfile.PAX_FORMAT), old_tar(TEXTS), gzip.compress(tar(TEXTS))],
    "7z": [b"7z\xbc\xaf\x27\x1c\0\4" + NOISE],
    "rar": [b"Rar!\x1a\x07\0\xcf" + NOISE, b"Rar!\x1a\x07\1\0" + NOISE],
    "archive-part": [b"PK\x07\x08PK\x03\x04" + NOISE],
    "packed-twice": [gzip.compress(gzip.compress(text(TEXTS).encode())), gzip.compress(bz2.compress(b"a"))],
    "lz4": [b"\x04\x22\x4d\x18" + NOISE],
    "lzip": [b"LZIP\x01\x0c" + NOISE],
    "compress": [b"\x1f\x9d\x90" + NOISE],
    "pdf": [b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + NOISE, b"%PDF-1.4\n1 0 obj\n<< >>\n"],
    "image": [b"\x89PNG\r\n\x1a\n" + NOISE, b"\xff\xd8\xff\xe0\0\x10JFIF" + NOISE, b"GIF89a\1\0\1\0" + NOISE],
    "media": [b"\0\0\0\x20ftypisom" + NOISE, b"ID3\x04\0\0" + NOISE, b"RIFF\x24\0\0\0WAVEfmt " + NOISE],
    "font": [b"\0\x01\0\0\0\x0f" + NOISE, b"OTTO\0\x0b" + NOISE],
    "program": [b"\x7fELF\2\1\1\0" + NOISE, b"MZ\x90\0\3\0" + NOISE],
    "sqlite": [sqlite()],
    "shard": [np.arange(3000, dtype="<u2").tobytes() + b"KTOK0002"],
    "numpy": [numpy()],
    "hdf5": [b"\x89HDF\r\n\x1a\n" + NOISE],
    "pickle": [b"\x80\x04\x95\x1f\0\0\0\0\0\0\0\x8c" + NOISE, b"\x80\x02}q\0" + NOISE],
    "model": [b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\2" + NOISE, b"\n\x0c\n\x03<s>\x15\0\0" + NOISE],
    "binary": [NOISE, b"\0\1\2\3" * 500, NOISE[:300]],
    "unknown": ["Ηλιόλουστη μέρα σήμερα\n".encode("iso8859-7") * 30],
    "empty": [b""],
}


def arrow_tables(texts: list[str]) -> dict[str, bytes]:
    """Returns each form of Arrow's tables; none if pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError:
        return {}
    rows = pyarrow.table({"id": list(range(len(texts))), "text": texts})
    files = {form: io.BytesIO() for form in ("parquet", "arrow", "arrow-stream")}
    parquet.write_table(rows, files["parquet"])
    for form, begin in (("arrow", ipc.new_file), ("arrow-stream", ipc.new_stream)):
        with begin(files[form], rows.schema) as writer:
            writer.write_table(rows)
    return {form: file.getvalue() for form, file in files.items()}
