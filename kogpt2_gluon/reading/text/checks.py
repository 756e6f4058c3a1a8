"""Text files are checked before they are read: files of a cleaned corpus must be read as it stores its documents.

Without it a corpus of paragraphs could be read line by line, and nobody would notice.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

from kogpt2_gluon.corpus.formats import PLAIN_PREFIX
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.corpus.store import CORPUS_FILE, SPLITS, split_layout
from kogpt2_gluon.errors import DataError, RecipeError


def check_corpora(sources: Collection[Source], kind: Kind) -> None:
    """Raises RecipeError if files belong to a cleaned corpus that stores documents in another way than `kind` reads.

    DataError if the sources are a whole corpus, its description among them.
    """
    for source in sources:
        name = PurePosixPath(source.name.replace("s3://", "s3:/", 1))
        if name.name == CORPUS_FILE:
            folder = source.name[: -len(CORPUS_FILE)].rstrip("/") or "."
            raise DataError(f"{folder}: a cleaned corpus; name its training part: data.train={folder}/{SPLITS[0]}")
    for path in sorted({source.path.parent for source in sources if source.path is not None}):
        layout = split_layout(path)
        if layout is not None and layout.name != kind.name.removeprefix(PLAIN_PREFIX):
            raise RecipeError(
                f"{path}: part of a cleaned corpus whose {CORPUS_FILE} says that its documents are {layout.name}, not "
                f"{kind.name}; set data.documents={layout.name}"
            )
