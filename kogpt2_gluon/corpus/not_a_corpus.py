"""The answer where a cleaned corpus was meant and something else was named: what it is, and the right command."""

from __future__ import annotations

import shlex
from pathlib import Path

from kogpt2_gluon.corpus.first_look import look
from kogpt2_gluon.corpus.forms import FORMS, TEXT_FORMS
from kogpt2_gluon.corpus.sources import Source, choose_sources
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.storage.s3_url import is_s3_url, split_s3_url


def not_a_corpus(path: Path, corpus_file: str) -> KoGPT2Error:
    """Returns the error for a path that is not the folder of a corpus: what it is, and the command that makes one.

    RecipeError where the path was simply the wrong one, DataError where the data is not what it should be.
    """
    if is_s3_url(path):
        url = "s3://{}/{}".format(*split_s3_url(path))
        return RecipeError(f"{url}: a corpus is read from a folder; first: kogpt2 files download {url} DIR")
    if not path.exists():
        return DataError(f"{path}: no such folder; `kogpt2 clean` makes a corpus")
    if (path.parent / corpus_file).is_file() and path.is_dir():
        return RecipeError(f"{path}: a part of a cleaned corpus; name the whole: {path.parent}")
    head = f"{path}: not a cleaned corpus"
    if path.is_dir():
        head += f" (it has no {corpus_file})"
        if any(path.glob("*.ktok")):
            return DataError(f"{head} but token shards; name the corpus that they were made of")
    try:
        source = choose_sources([path]).sources[0]
        error = RecipeError if path.is_file() else DataError
        return error(f"{head} but {_described(source, path)}")
    except (KoGPT2Error, IndexError):  # nothing there that could be looked at
        return DataError(f"{head}; `kogpt2 clean` makes one")


def _described(source: Source, path: Path) -> str:
    """Returns what a source is, and how a corpus is made of it."""
    form_name = look(source).form
    form = FORMS[form_name]
    where = form.what if source.path == path else f"a folder whose first file, {source.name}, is {form.what}"
    command = f"kogpt2 clean {shlex.quote(str(path))} --out CORPUS"
    if form_name in TEXT_FORMS or "--documents" in form.way:
        return f"{where}; make one of it: {command} ({form.way})"
    return f"{where}; `kogpt2 clean` makes a corpus of text"
