"""Where files of the repository are in the site, and how links between them change."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

_FENCED = re.compile(r"(^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:)(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))")
_PICTURES = (".svg", ".png")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".cc": "cpp", ".h": "cpp", ".cu": "cpp"}


class Repository:
    """The documents of the repository and the files that they link to.

    Parameters
    ----------
    root : Path
        Folder of the repository; the documents below its docs/ are pages already.
    documents : sequence of str
        Paths of the other documents, from the root.
    """

    def __init__(self, root: Path, documents: Sequence[str]) -> None:
        self.root = root
        self.documents = tuple(documents)

    def place_of(self, path: str) -> str:
        """The place in the site of a file or folder of the repository; one that is not a document becomes a page."""
        if path.startswith("docs/"):
            return path[len("docs/") :]
        if path in self.documents or path.endswith(_PICTURES):
            return f"repository/{path}"
        return f"repository/{path}.md"

    def path_of(self, place: str) -> str:
        """The path of the document at a place of the site; "" for a page that shows another file."""
        if not place.startswith("repository/"):
            return f"docs/{place}"
        path = place[len("repository/") :]
        return path if path in self.documents else ""

    def linked_files(self) -> set[str]:
        """The paths of all files and folders outside docs/ that a document links to, but for documents."""
        pages = [path.relative_to(self.root).as_posix() for path in (self.root / "docs").rglob("*.md")]
        found: set[str] = set()
        for page in [*pages, *self.documents]:
            text = (self.root / page).read_text(encoding="utf-8")
            for match in _LINK.finditer(_FENCED.sub("", text)):
                target = self._target(page, match["target"])
                if not target.startswith("docs/") and (self.root / target).exists():
                    found.add(target)
        return found - set(self.documents)

    def rewrite_links(self, markdown: str, path: str) -> str:
        """The text of the document `path` with links for the site. One that leads nowhere stays, and mkdocs warns."""
        here = posixpath.dirname(self.place_of(path))

        def rewritten(match: re.Match[str]) -> str:
            target = self._target(path, match["target"])
            if not (self.root / target).exists():
                return match[0]
            return posixpath.relpath(self.place_of(target), here or ".") + (match["anchor"] or "")

        return _outside_fences(markdown, lambda text: _LINK.sub(rewritten, text))

    def _target(self, path: str, link: str) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    at, parts = 0, []
    for match in _FENCED.finditer(markdown):
        parts += [change(markdown[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*parts, change(markdown[at:])])


def page_of_file(root: Path, path: str) -> str:
    """A page that shows a file of the repository, or what is in a folder; the search leaves it out."""
    head = f"---\ntitle: {path}\nsearch: {{exclude: true}}\n---\n\n# `{path}`\n\n"
    if (root / path).is_dir():
        modules = sorted((root / path).rglob("*.py"))
        return head + "\n".join(f"- `{module.relative_to(root / path)}`: {_about(module)}" for module in modules) + "\n"
    text = (root / path).read_text(encoding="utf-8").rstrip("\n")
    return f'{head}~~~~~~ {{.{_LANGUAGES.get(Path(path).suffix, "text")} linenums="1"}}\n{text}\n~~~~~~\n'


def _about(module: Path) -> str:
    return (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").partition("\n")[0]
