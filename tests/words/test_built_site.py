"""The built site: it builds without a warning, asks no other host for anything, and everybody can read its pages."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from markdown_it import MarkdownIt

from benchmarks.browser import CHROMIUM
from tests.helpers import ROOT, run
from tests.words import documents

pytest.importorskip("mkdocs", reason="`make docs` installs it")

pytestmark = pytest.mark.slow

SEEN = ("index", "quickstart", "recipes", "troubleshooting", "reference/model", "repository/benchmarks/index")


def build(root: Path, folder: Path, code: int = 0) -> str:
    """Builds the site of a repository as `make docs` does; returns what mkdocs prints. A warning makes the code 1."""
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", root / "mkdocs.yml")
    done = run(*command, "--site-dir", folder, code=code, NO_MKDOCS_2_WARNING="1")
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert "WARNING" not in build(ROOT, folder)
    return folder


def test_make_docs_builds_with_the_same_options():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "mkdocs build --strict --clean\n" in makefile  # and not --quiet, with which --strict sees no warning


@pytest.mark.parametrize(
    ("page", "planted", "warning"),
    [
        ("index.md", "[x](no-such-page.md)", "contains a link 'no-such-page.md'"),
        ("index.md", "[x](data.md#no-such-heading)", "does not contain an anchor '#no-such-heading'"),
        ("index.md", "[x](../kogpt2_gluon/no_such_file.py)", "contains a link '../kogpt2_gluon/no_such_file.py'"),
        ("no-such-nav.md", "# A page", "not included in the"),
        ("index.md", "::: kogpt2_gluon.model.gpt2.NoSuchName", "kogpt2_gluon.model.gpt2.NoSuchName"),
    ],
)
def test_a_fault_ends_the_build(tmp_path, page, planted, warning):
    for path in ROOT.iterdir():
        if path.name not in ("docs", "mkdocs.yml", "build") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / page).open("a", encoding="utf-8") as file:
        file.write(f"\n{planted}\n")
    assert warning in build(tmp_path, tmp_path / "built", code=1)


class Page(HTMLParser):
    """A page: it loads files, links to pages, and has names that links can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if "src" in given:
            self.loads.append(given["src"])
        if "href" in given:
            (self.loads if tag == "link" else self.links).append(given["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_nothing_comes_from_another_host(pages):
    outside = {(name, load) for name, page in pages.items() for load in page.loads if urlsplit(load).netloc}
    assert len(pages) > 50
    assert not outside


def test_every_link_leads_to_a_page_and_an_anchor(site, pages):
    dead = set()
    for name, page in pages.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(urljoin(f"file:///{name}", link))
            if parts.scheme != "file":
                continue
            target = unquote(parts.path).lstrip("/") or "index.html"
            anchor = unquote(parts.fragment)
            if not (site / target).exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                dead.add((name, link))
    assert not dead


def test_recipes_and_docstrings_are_filled_in(site):
    recipes = (site / "recipes.html").read_text(encoding="utf-8")
    assert "training.learning_rate: 2.5e-4" in recipes and "<!-- " + "keys" not in recipes
    assert "reconstructed: an upper bound" in recipes
    model = (site / "reference" / "model.html").read_text(encoding="utf-8")
    assert "GPT-2 with a language-model head." in model and ":::" not in model


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="drives the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: Debian's chromium-headless-shell is one")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_in_a_browser(address, browser, width, scheme):
    """Nothing is wider than the window, nothing is asked of another host, axe-core finds nothing serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="checks accessibility")
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    faults: list[str] = []
    page.on("request", lambda request: request.url.startswith((address, "data:")) or faults.append(request.url))
    page.on("response", lambda response: response.status >= 400 and faults.append(response.url))
    page.on("console", lambda line: faults.append(line.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    for name in SEEN:
        page.goto(f"{address}{name}.html")
        page.wait_for_selector(".md-typeset__scrollwrap, .md-typeset p")
        page.wait_for_timeout(300)  # what scripts do to tables, and colours that change slowly
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        found = axe.Axe().run(page).response["violations"]
        assert not [(each["id"], name) for each in found if each["impact"] in ("serious", "critical")]
    assert not faults
    context.close()


def test_the_search_finds_korean_and_english(address, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{address}index.html")
    for word, expected in (("overflow", "troubleshooting.html"), ("긍정", "in_context.html")):
        page.locator(".md-search__input").fill(word)
        page.locator(".md-search__input").press("Shift")  # the page searches when a key comes up
        page.wait_for_selector(f".md-search-result__link[href*='{expected}']", timeout=30_000)
    page.close()


COUNTED = ("li", "pre", "tr", "img", "h2", "h3", "em", "strong")


class Counter(HTMLParser):
    """Counts the elements of a page's own text; `inside` is the element that holds it, None for all of the page."""

    def __init__(self, html: str, inside: str | None) -> None:
        super().__init__()
        self.inside, self.depth = inside, 0 if inside else 1
        self.counts = dict.fromkeys(COUNTED, 0)
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.depth += tag == self.inside
        if self.depth and tag in COUNTED:
            self.counts[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == self.inside


def test_a_page_has_the_lists_tables_and_blocks_that_it_has_in_the_repository(site):
    """The site's Markdown is not GitHub's: a list without an empty line before it, for one, would be a paragraph."""
    reader = MarkdownIt("commonmark").enable("table")
    computed = {ROOT / "docs" / "recipes.md", *(ROOT / "docs" / "reference").glob("*.md")}
    for document in documents.DOCUMENTS:
        if document in computed:
            continue
        path = document.relative_to(ROOT)
        place = path.relative_to("docs") if path.parts[0] == "docs" else "repository" / path
        name = "index.html" if path.name == "README.md" else f"{path.stem}.html"
        built = (site / place.parent / name).read_text(encoding="utf-8")
        expected = Counter(reader.render(document.read_text(encoding="utf-8")), None).counts
        assert (path, Counter(built, "article").counts) == (path, expected)
