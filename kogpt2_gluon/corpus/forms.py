"""The forms that a file's content can have, each with its name in words and the way to text that can be read."""

from __future__ import annotations

import re
from typing import NamedTuple


class Form(NamedTuple):
    """One form: `what` names it, `way` says how to get at its text.

    ``{file}`` stands for the file, ``{out}`` for a new one, ``{pattern}`` for a pattern that files such as it fit,
    ``{whole}`` for the archive of which it is a part.
    """

    what: str
    way: str = ""


_LEAVE_OUT = "it holds no text; leave it out: --exclude {pattern}"
_UNPACK = "unpack it first, and name what it held"
_OFFICE = "save it as plain text first: soffice --headless --convert-to 'txt:Text (encoded):UTF8' {file}"
_HANCOM = (
    "save it as plain text first, in Hancom Office (hwp5txt of pyhwp does it for .hwp: hwp5txt {file} > {out}.txt)"
)
_SHEET = "save it as a table of text first: soffice --headless --convert-to csv {file}"
_COLUMN = "name the column that holds the text: --documents COLUMN"

TEXT_FORMS: dict[str, Form] = {
    "text": Form("plain text", "say what a document is: --documents line or blank-line"),
    "json-lines": Form("JSON lines", "name the field that holds the text: --documents FIELD"),
    "json-array": Form("a JSON array", "name the field that holds the text: --documents FIELD"),
    "json-object": Form("a JSON object", "name what its texts are: --documents modu, or the path of a field in it"),
    "csv": Form("a table (CSV)", _COLUMN),
    "tsv": Form("a table (TSV)", _COLUMN),
    "wikitext": Form("articles under ' = Title = ' lines", "say so: --documents wikitext"),
    "xml-dump": Form("a MediaWiki dump (XML)", "say so: --documents wikipedia"),
    "xml": Form("XML", "no kind of documents reads it; extract its text first"),
    "html": Form("an HTML page", "extract its text first, or fetch the file again if it is an error page of a server"),
    "doc-files": Form("a file of <doc> ... </doc> (WikiExtractor)", "say so: --documents doc"),
    "git-pointer": Form("a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
    "rtf": Form("rich text (RTF)", _OFFICE),
}
BINARY_FORMS: dict[str, Form] = {
    "parquet": Form("a table (Parquet)", _COLUMN),
    "arrow": Form("a table (Arrow or Feather)", _COLUMN),
    "arrow-stream": Form("a table (Arrow stream)", _COLUMN),
    "orc": Form("a table (ORC)", "convert it to Parquet first"),
    "avro": Form("a table (Avro)", "convert it to Parquet first"),
    "zip": Form("a zip archive of files", f"{_UNPACK}: unzip {{file}} -d {{out}}"),
    "docx": Form("a Word document (docx)", _OFFICE),
    "xlsx": Form("an Excel sheet (xlsx)", _SHEET),
    "pptx": Form("a PowerPoint file (pptx)", "save it as plain text first"),
    "odt": Form("an OpenDocument file", _OFFICE),
    "epub": Form("an EPUB book", f"{_UNPACK}, and extract the text of its pages"),
    "hwpx": Form("a Hancom document (hwpx)", "save it as plain text first, in Hancom Office"),
    "hwp": Form("a Hancom document (hwp)", _HANCOM),
    "ole": Form("a document of old Microsoft Office (doc, xls, ppt)", _OFFICE),
    "tar": Form("a tar archive of files", f"{_UNPACK}: mkdir {{out}} && tar -xf {{file}} -C {{out}}"),
    "7z": Form("a 7z archive of files", f"{_UNPACK}: 7z x {{file}} -o{{out}}"),
    "rar": Form("a rar archive of files", f"{_UNPACK}: unrar x {{file}} {{out}}/"),
    "archive-part": Form(
        "a part of a split archive",
        "join the parts, then unpack the whole: printf '%s\\0' {whole}.* | sort -zV | xargs -0 cat > {whole}",
    ),
    "packed-twice": Form("data compressed twice", "unpack it once first"),
    "lz4": Form("data compressed with lz4", "unpack it first: lz4 -d {file} {out}"),
    "lzip": Form("data compressed with lzip", "unpack it first: lzip -dk {file}"),
    "compress": Form("data compressed with compress (.Z)", "unpack it first: gzip -dc {file} > {out}"),
    "pdf": Form("a PDF", "extract its text first: pdftotext {file} {out}.txt"),
    "image": Form("an image", _LEAVE_OUT),
    "media": Form("sound or video", _LEAVE_OUT),
    "font": Form("a font", _LEAVE_OUT),
    "program": Form("a program", _LEAVE_OUT),
    "sqlite": Form(
        "an SQLite database",
        "write its texts to a file first: sqlite3 -json {file} 'SELECT text FROM TABLE' > {out}.json",
    ),
    "shard": Form("a token shard (.ktok)", "its text is in the corpus that it was made of; name that"),
    "numpy": Form("a NumPy array", _LEAVE_OUT),
    "hdf5": Form("an HDF5 file", "write its texts to a file first"),
    "pickle": Form("a Python pickle", "write its texts to a file first"),
    "model": Form("a SentencePiece model", _LEAVE_OUT),
    "binary": Form("not text: binary data of a kind that is not known here", _LEAVE_OUT),
    "unknown": Form(
        "not UTF-8, CP949 or UTF-16",
        "name its encoding with --encoding, or convert it first: iconv -f NAME -t utf-8 {file} > {out}.txt",
    ),
    "empty": Form("an empty file"),
}
FORMS = {**TEXT_FORMS, **BINARY_FORMS}

# (where, what is there, the form). "zip" and "ole" are looked into.
MAGIC_NUMBERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PAR1", "parquet"),
    (0, b"PARE", "parquet"),
    (0, b"ARROW1\0\0", "arrow"),
    (0, b"FEA1", "arrow"),
    (0, b"\xff\xff\xff\xff", "arrow-stream"),
    (0, b"ORC\x0a", "orc"),
    (0, b"ORC\x08", "orc"),
    (0, b"Obj\x01", "avro"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"PK\x07\x08", "archive-part"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    (0, b"HWP Document File", "hwp"),
    (257, b"ustar", "tar"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"LZIP\x01", "lzip"),
    (0, b"\x1f\x9d", "compress"),
    (0, b"%PDF-", "pdf"),
    (0, b"\x89PNG\r\n\x1a\n", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"GIF87a", "image"),
    (0, b"GIF89a", "image"),
    (0, b"II*\0", "image"),
    (0, b"MM\0*", "image"),
    (8, b"WEBP", "image"),
    (4, b"ftyp", "media"),
    (0, b"ID3\x02", "media"),
    (0, b"ID3\x03", "media"),
    (0, b"ID3\x04", "media"),
    (0, b"OggS\0", "media"),
    (0, b"fLaC\0", "media"),
    (8, b"WAVE", "media"),
    (8, b"AVI ", "media"),
    (0, b"\x1a\x45\xdf\xa3", "media"),
    (0, b"OTTO\0", "font"),
    (0, b"\0\x01\0\0\0", "font"),
    (0, b"\x7fELF", "program"),
    (0, b"MZ\x90\0", "program"),
    (0, b"SQLite format 3\0", "sqlite"),
    (0, b"\x93NUMPY", "numpy"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"\x80\x02", "pickle"),
    (0, b"\x80\x03", "pickle"),
    (0, b"\x80\x04\x95", "pickle"),
    (0, b"\x80\x05\x95", "pickle"),
)
# What is inside a zip: the name of a member, or what a member says about itself, near the beginning.
ZIP_MEMBERS: tuple[tuple[bytes, str], ...] = (
    (b"application/hwp+zip", "hwpx"),
    (b"Contents/section0.xml", "hwpx"),
    (b"application/epub+zip", "epub"),
    (b"application/vnd.oasis.opendocument", "odt"),
    (b"word/document.xml", "docx"),
    (b"xl/workbook.xml", "xlsx"),
    (b"xl/worksheets/", "xlsx"),
    (b"ppt/presentation.xml", "pptx"),
)
SENTENCEPIECE = re.compile(rb"\n.\n[\x01-\x20](?:<unk>|<pad>|<s>|</s>|\[PAD\]|\[UNK\])", re.DOTALL)
