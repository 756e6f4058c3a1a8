"""The kinds of documents: one module a kind, and the table of them all.

A document is what the user says it is, never a guess. A new kind is one module with a `Kind`, and its line in `KINDS`.
"""

from __future__ import annotations

import copy

from kogpt2_gluon.corpus.formats.doc_files import DocFiles
from kogpt2_gluon.corpus.formats.fields import TEMPLATE_PREFIX, Field
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.formats.kowikitext import WikiText
from kogpt2_gluon.corpus.formats.lines import Lines
from kogpt2_gluon.corpus.formats.modu import Modu
from kogpt2_gluon.corpus.formats.namuwiki import NamuWiki
from kogpt2_gluon.corpus.formats.paragraphs import Paragraphs
from kogpt2_gluon.corpus.formats.separated import SEPARATOR_PREFIX, Separated
from kogpt2_gluon.corpus.formats.whole_files import WholeFiles
from kogpt2_gluon.corpus.formats.wikipedia import Wikipedia
from kogpt2_gluon.corpus.forms import TEXT_FORMS
from kogpt2_gluon.errors import RecipeError

PLAIN_PREFIX = "plain:"  # before a kind of plain text that is to read anything that is text
FIELD_PREFIX = "field:"  # before a field whose name is that of a kind

# By name, in the order of help texts.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Lines(),
        Paragraphs(),
        WholeFiles(),
        Separated(),
        Wikipedia(),
        NamuWiki(),
        Modu(),
        WikiText(),
        DocFiles(),
    )
}


def kind_of(documents: str) -> Kind:
    """Returns the kind that a user's word means: one of `KINDS`, a template, or a field.

    RecipeError if the word is empty, or a template that cannot be understood.
    """
    if documents.startswith(PLAIN_PREFIX):
        return _as_plain_text(documents)
    if documents.startswith(SEPARATOR_PREFIX):
        return Separated.of_word(documents)
    if documents in KINDS:
        return KINDS[documents]
    if documents.startswith(TEMPLATE_PREFIX):
        return Field.of_template(documents.removeprefix(TEMPLATE_PREFIX), documents)
    field = documents.removeprefix(FIELD_PREFIX)
    if not field.strip():
        raise RecipeError(f"--documents is empty; say {', '.join(KINDS)} or the name of a field")
    return Field(field, documents)


def _as_plain_text(documents: str) -> Kind:
    """Returns a kind of plain text that reads a table, JSON or markup as lines as well."""
    kind = copy.copy(kind_of(documents.removeprefix(PLAIN_PREFIX)))
    if "text" not in kind.forms:
        raise RecipeError(f"--documents {documents}: {PLAIN_PREFIX} comes before a kind of plain text, such as line")
    kind.name, kind.forms = documents, tuple(TEXT_FORMS)
    return kind


def describe_kinds() -> str:
    """Returns every kind with its meaning, in one sentence."""
    kinds = "; ".join(f"{kind.name}: {kind.meaning}" for kind in KINDS.values())
    return f"{kinds}; any other word is a FIELD: {Field.meaning} ({FIELD_PREFIX}NAME for a field with such a name)."
