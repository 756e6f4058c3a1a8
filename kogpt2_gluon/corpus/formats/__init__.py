"""The kinds of documents: one module a kind, and the table of them all.

A document is what the user says it is, never a guess. A new kind is one module with a `Kind`, and its line in `KINDS`.
"""

from __future__ import annotations

from kogpt2_gluon.corpus.formats.fields import TEMPLATE_PREFIX, Field
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.formats.lines import Lines
from kogpt2_gluon.corpus.formats.modu import Modu
from kogpt2_gluon.corpus.formats.namuwiki import NamuWiki
from kogpt2_gluon.corpus.formats.paragraphs import Paragraphs
from kogpt2_gluon.corpus.formats.wikipedia import Wikipedia
from kogpt2_gluon.errors import RecipeError

FIELD_PREFIX = "field:"  # before a field whose name is that of a kind

# By name, in the order of help texts.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Lines(),
        Paragraphs(),
        Wikipedia(),
        NamuWiki(),
        Modu(),
    )
}


def kind_of(documents: str) -> Kind:
    """Returns the kind that a user's word means: one of `KINDS`, a template, or a field.

    RecipeError if the word is empty, or a template that cannot be understood.
    """
    if documents in KINDS:
        return KINDS[documents]
    if documents.startswith(TEMPLATE_PREFIX):
        return Field.of_template(documents.removeprefix(TEMPLATE_PREFIX), documents)
    field = documents.removeprefix(FIELD_PREFIX)
    if not field.strip():
        raise RecipeError(f"--documents is empty; say {', '.join(KINDS)} or the name of a field")
    return Field(field, documents)


def describe_kinds() -> str:
    """Returns every kind with its meaning, in one sentence."""
    kinds = "; ".join(f"{kind.name}: {kind.meaning}" for kind in KINDS.values())
    return f"{kinds}; any other word is a FIELD: {Field.meaning} ({FIELD_PREFIX}NAME for a field with such a name)."
