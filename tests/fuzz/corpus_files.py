"""Targets: files of text, as containers of documents: compressed, tables, JSON, XML."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
import zstandard
from pyarrow import ipc, parquet

from kogpt2_gluon.corpus.admission import admit
from kogpt2_gluon.corpus.documents import read_documents
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.sources import local_source
from tests.corpus.form_samples import TEXTS, WRITTEN, arrow_tables
from tests.fuzz.mutate import mutate_bytes, text_mutator
from tests.fuzz.target import Target

FEW = TEXTS[:4]
KINDS = {"json-lines": "text", "json-array": "namuwiki", "json-object": "modu", "csv": "text"}
KINDS.update({"tsv": "text", "xml-dump": "wikipedia", "doc-files": "doc", "wikitext": "wikitext"})
WORDS = [
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    "\\u",
    ":",
    ",",
    "<page>",
    "</page>",
    "<text>",
    "</text>",
    "<ns>0</ns>",
    "&amp;",
]
WORDS += ["<!DOCTYPE a [<!ENTITY a 'aa'>]>", "&a;", "<![CDATA[", "{{", "}}", "[[", "]]", "{|", "|}", "<ref>", "<!--"]
WORDS += ["<doc id='1'>", "</doc>", '""', "\t", "\r", ";", "''", "==", "{{{1|", "<nowiki>", "-{", "}-", "<math>", "|-"]


def reader(documents: str) -> Callable[[Path], None]:
    """Returns a reader that looks at the file first and reads it as documents of that kind."""

    def read(path: Path) -> None:
        admitted = admit([local_source(path)], kind_of(documents))
        admitted.check()
        for source in admitted.sources:
            for _ in read_documents(source, documents):
                pass

    return read


def packed_seeds(folder: Path) -> list[bytes]:
    text = WRITTEN["text"](FEW).encode()
    zst = zstandard.ZstdCompressor().compress(text)
    return [gzip.compress(text, mtime=0), bz2.compress(text), lzma.compress(text), zst, zst + zst]


def table_seeds(folder: Path) -> list[bytes]:
    """Tables of each form, also compressed, and with texts that are coded, listed or without their type."""
    seeds = list(arrow_tables(FEW).values())
    columns = [pyarrow.array(FEW).dictionary_encode(), pyarrow.array([FEW, None, [], [None]])]
    columns += [pyarrow.array([text.encode() for text in FEW]), pyarrow.array([{"a": text} for text in FEW])]
    for column, packing in zip(columns, ("lz4", "zstd", None, None)):
        rows, file = pyarrow.table({"text": column}), io.BytesIO()
        with ipc.new_file(file, rows.schema, options=ipc.IpcWriteOptions(compression=packing)) as writer:
            writer.write_table(rows)
        seeds.append(file.getvalue())
        parquet.write_table(rows, file := io.BytesIO(), compression=packing or "gzip")
        seeds.append(file.getvalue())
    return seeds


def text_seeds(form: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [WRITTEN[form](FEW).encode(), WRITTEN[form](FEW[:1]).encode("utf-16")]


def mutate_packed(draw: random.Random, data: bytes) -> bytes:
    """Changes compressed data, or packs other data with much in little."""
    if draw.randrange(50):
        return mutate_bytes(draw, data)
    text = draw.choice((b"a", b"\n", b"\0", "가".encode())) * draw.choice((1, 1000, 1 << 20))
    pack = draw.choice((gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress))
    return pack(text)


TARGETS = [
    Target("packed-text", "text.gz", packed_seeds, reader("line"), mutate_packed, share=3),
    *(
        Target(f"documents-{form}", f"documents.{form}", text_seeds(form), reader(kind), text_mutator(WORDS), share=3)
        for form, kind in KINDS.items()
    ),
    Target("arrow-tables", "table.parquet", table_seeds, reader("text"), share=10),
]
