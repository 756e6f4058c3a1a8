"""Adds to the documentation's site more than the pages of docs/: mkdocs calls these functions.

Documents outside docs/ (README.md and others), and every file of the repository that a document links to, become pages
below ``repository/``. Links are written for the repository's own page; here they are rewritten for the site, so that
one text works in both. A comment ``<!-- recipes -->`` or ``<!-- keys -->`` in a page is replaced by what it names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel
from recipe_pages import keys_of_recipes, shipped_recipes
from repository import Repository, page_of_file

ROOT = Path(__file__).resolve().parents[2]
# Documents outside docs/ that are pages of the site.
DOCUMENTS = ("README.md", "benchmarks/README.md", "tests/chaos/README.md", "tests/fuzz/README.md")
COMPUTED = {"<!-- recipes -->": shipped_recipes, "<!-- keys -->": keys_of_recipes}

repository = Repository(ROOT, DOCUMENTS)


def on_files(files: Files, config: Any) -> Files:
    """Adds the documents outside docs/, and the files that documents link to."""
    for path in DOCUMENTS:
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, repository.place_of(path), content=text))
    for path in sorted(repository.linked_files()):
        place = repository.place_of(path)
        if place.endswith(".md"):
            page = page_of_file(ROOT, path)
            files.append(File.generated(config, place, content=page, inclusion=InclusionLevel.NOT_IN_NAV))
        else:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fills in what is computed, and rewrites the links."""
    for mark, compute in COMPUTED.items():
        if mark in markdown:
            markdown = markdown.replace(mark, compute(ROOT))
    markdown = re.sub(r"^```text$", "``` {.text .wrap}", markdown, flags=re.MULTILINE)  # messages: see site.css
    path = repository.path_of(page.file.src_uri)
    return repository.rewrite_links(markdown, path) if path else markdown


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Gives Material's search dialog a name, which it lacks; a screen reader says it."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
