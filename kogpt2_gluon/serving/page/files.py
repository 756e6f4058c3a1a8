"""The files of the page, as the service sends them, and the policy under which a browser runs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kogpt2_gluon.pages.page import STYLE

HERE = Path(__file__).parent
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

# The page runs and loads its own files only, and talks to its own service only: what a network writes or a person
# pastes can start nothing and goes nowhere else. No other page can show it in a frame.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a newer service sends a newer page
}


class PageFile(NamedTuple):
    """A file as it is sent.

    Attributes
    ----------
    content : bytes
    content_type : str
    """

    content: bytes
    content_type: str


def page_files() -> dict[str, PageFile]:
    """Returns the files by their paths, such as "/" and "/page/page.js"; each is sent with :data:`HEADERS`.

    The style sheet of the reports is one of them, since the page looks as they do.
    """
    files = {"/page/report.css": PageFile(STYLE.encode(), f"{KINDS['.css']}; charset=utf-8")}
    for path in sorted(HERE.iterdir()):
        if path.suffix in KINDS:
            name = "/" if path.name == "index.html" else f"/page/{path.name}"
            files[name] = PageFile(path.read_bytes(), f"{KINDS[path.suffix]}; charset=utf-8")
    return files
