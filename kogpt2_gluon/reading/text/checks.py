"""Text files looked at before they are read: a cleaned corpus under another setting, a field that is not there.

Both would otherwise show late, or not at all: a corpus of paragraphs can be read line by line.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from kogpt2_gluon.corpus.documents import FORMAT_SUFFIXES, Document, parse_block, read_blocks
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.corpus.store import CORPUS_FILE, SPLITS
from kogpt2_gluon.errors import DataError, RecipeError

MAX_LOOKED_AT = 8  # files whose first block is searched for the field


def check_corpora(sources: Collection[Source], documents: str) -> None:
    """RecipeError if files are of a cleaned corpus whose documents are stored in another way than `documents`.

    DataError if they are all of a corpus, its description among them.
    """
    for source in sources:
        name = PurePosixPath(source.name.replace("s3://", "s3:/", 1))
        if name.name == CORPUS_FILE:
            folder = source.name[: -len(CORPUS_FILE)].rstrip("/") or "."
            raise DataError(f"{folder}: a cleaned corpus; name its training part: data.train={folder}/{SPLITS[0]}")
    for path in sorted({source.path.parent for source in sources if source.path is not None}):
        stored = _stored_mode(path)
        if stored and stored != documents:
            raise RecipeError(
                f"{path}: part of a cleaned corpus whose {CORPUS_FILE} says that its documents are {stored}, not "
                f"{documents}; set data.documents={stored}"
            )


def _stored_mode(folder: Path) -> str | None:
    """How the documents of a split's folder are stored, None if it is not one of a corpus."""
    folder = folder.resolve()
    if folder.name not in SPLITS:
        return None
    try:
        about = json.loads((folder.parent / CORPUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    mode = about.get("documents") if isinstance(about, dict) else None
    return mode if mode in ("line", "blank-line") else None


def check_field(sources: Collection[Source], documents: str) -> None:
    """DataError if no record at the beginning of the first files has the field `documents`; names those it has."""
    if documents in ("line", "blank-line", *FORMAT_SUFFIXES):
        return
    found = ""
    for source in sorted(sources, key=lambda source: source.name)[:MAX_LOOKED_AT]:
        for block in read_blocks(source, documents):
            if any(isinstance(item, Document) for item in parse_block(block, documents)):
                return
            found = found or _describe_fields(source, block.data)
            break
    if found:
        raise DataError(f"{found}, none of them {documents.removeprefix('field:')} with a text; set data.documents")


def _describe_fields(source: Source, data: bytes) -> str:
    """The fields of the first record that has any, in words; "" if none has."""
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and record:
            names = ", ".join(json.dumps(name, ensure_ascii=False)[1:-1] for name in list(record)[:8])
            more = ", ..." if len(record) > 8 else ""
            return f"{source.name}: line {number}: its fields: {names}{more}"
    return ""
