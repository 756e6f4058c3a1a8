"""The parts that the site is made of: its list of pages, recipes line by line, links, docstrings. Nothing is built."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.recipe import Recipe, known_keys, parse_recipe
from tests.helpers import ROOT

CHAINS = ROOT / "recipes" / "chains"
RECIPES = sorted(file for file in (ROOT / "recipes").rglob("*.yaml") if file.parent != CHAINS)


def load(name: str) -> ModuleType:
    """A module of docs/site/, which is not a package."""
    spec = importlib.util.spec_from_file_location(f"docs_site_{name}", ROOT / "docs" / "site" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe_pages, repository, dialect = load("recipe_pages"), load("repository"), load("dialect")


def pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inner = nav.values() if isinstance(nav, dict) else nav
    return [page for part in inner for page in pages_of(part)]  # type: ignore[union-attr]


def test_mkdocs_yml_lists_every_page_of_docs():
    text = re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = pages_of(yaml.safe_load(text)["nav"])
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in listed if not page.startswith("repository/")} == there
    assert len(listed) == len(set(listed))
    for page in listed:
        assert page in there or (ROOT / page.removeprefix("repository/")).is_file(), page


def test_the_names_of_the_reference_are_in_the_code():
    names = [
        name
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(names) > 80
    for name in names:
        module, _, last = name.rpartition(".")
        if (ROOT / f"{name.replace('.', '/')}.py").is_file():
            continue
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        found = [node for node in tree.body if getattr(node, "name", None) == last]
        assert found and not last.startswith("_"), name
        assert ast.get_docstring(found[0]), f"{name}: no docstring"


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_is_shown_with_all_its_keys_and_comments(file):
    text = file.read_text(encoding="utf-8")
    lines = recipe_pages.lines_of(text)
    plain = yaml.safe_load(text)
    keys = [f"{name}.{key}" for name, part in plain.items() if isinstance(part, dict) for key in part]
    assert [line.key for line in lines if "." in line.key] == keys
    for line in lines:
        if "." in line.key:
            section, _, key = line.key.partition(".")
            assert yaml.safe_load(line.value) == plain[section][key], line
    words = re.findall(r"\w+", " ".join(part.partition("#")[2] for part in text.splitlines() if "issue #" not in part))
    shown = Counter(re.findall(r"\w+", " ".join(line.comment for line in lines)))
    assert not Counter(words) - shown


KEYS = st.sampled_from([key for key in known_keys() if "." in key])
COMMENTS = st.text("abc ,.:`'\"[]{}", max_size=20).map(str.strip)


@given(st.dictionaries(KEYS, st.tuples(st.booleans(), COMMENTS, COMMENTS), min_size=1))
def test_each_comment_goes_to_the_key_that_it_is_written_at(drawn):
    """Drawn: the comment of a line, whether it comes before it or at its end, and how that one continues."""
    text, expected = "# head\n", {"": "head"}
    for name in dict.fromkeys(key.partition(".")[0] for key in drawn):
        text += f"{name}:\n"
        for key, (is_before, comment, more) in drawn.items():
            if key.startswith(f"{name}."):
                line = f"  {key.partition('.')[2]}: [a, '#b']"
                text += f"  # {comment}\n{line}\n" if is_before else f"{line}  # {comment}\n        # {more}\n"
                parts = [comment] if is_before else [comment, more]
                expected[key] = " ".join(part for part in parts if part)
    found = {line.key: line.comment for line in recipe_pages.lines_of(text) if line.comment or line.key in expected}
    assert {key: comment for key, comment in found.items() if key in expected} == expected


def test_the_page_of_recipes_says_what_a_recipe_sets():
    page = recipe_pages.shipped_recipes(ROOT)
    for file in RECIPES:
        assert f"### {file.stem}\n" in page
    assert "| `training.num_steps: 9000` | `1000` | optimizer updates in the whole run |" in page
    assert "**In the file:** fewer than three passes over the text, so it cannot overfit |" in page
    assert "num\\_steps" in page  # of a meaning, not taken for emphasis


def test_every_key_is_on_the_page_of_recipes():
    page = recipe_pages.keys_of_recipes(ROOT)
    assert re.findall(r"^\| `([a-z_]+\.\w+)` \|", page, re.MULTILINE) == [key for key in known_keys() if "." in key]
    assert parse_recipe({}) == Recipe()  # what the column of defaults shows is what a recipe without a key gets


SITE = repository.Repository(ROOT, ("README.md", "benchmarks/README.md"))


@pytest.mark.parametrize(
    ("path", "link", "expected"),
    [
        ("README.md", "docs/data.md", "../data.md"),
        ("README.md", "docs/data.md#formats", "../data.md#formats"),
        ("README.md", "recipes/demo.yaml", "recipes/demo.yaml.md"),
        ("README.md", "benchmarks/curve.svg", "benchmarks/curve.svg"),
        ("docs/data.md", "cluster.md", "cluster.md"),
        ("docs/data.md", "../README.md", "repository/README.md"),
        ("docs/data.md", "../benchmarks/README.md#memory", "repository/benchmarks/README.md#memory"),
        ("docs/data.md", "../kogpt2_gluon/corpus/formats", "repository/kogpt2_gluon/corpus/formats.md"),
        ("docs/reference/index.md", "../developing.md", "../developing.md"),
        ("benchmarks/README.md", "../recipes/small_cpu.yaml", "../recipes/small_cpu.yaml.md"),
        ("benchmarks/README.md", "../docs/data.md", "../../data.md"),
        ("docs/data.md", "no-such-file.md", "no-such-file.md"),
        ("docs/data.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("docs/data.md", "#formats", "#formats"),
    ],
)
def test_links_lead_to_the_same_place_in_the_site(path, link, expected):
    block = f"```\n[no link]({link})\n```\n"
    text = f"a [link]({link}), ![a picture]({link})\n\n{block}\n[again]({link})\n"
    changed = f"a [link]({expected}), ![a picture]({expected})\n\n{block}\n[again]({expected})\n"
    assert SITE.rewrite_links(text, path) == changed


def test_a_file_that_a_document_links_to_is_a_page_and_a_folder_lists_its_modules():
    linked = SITE.linked_files()
    assert {"recipes/demo.yaml", "kogpt2_gluon/model/gpt2.py", "benchmarks/curve.svg"} <= linked
    assert not {path for path in linked if path.startswith("docs/")}
    page = repository.page_of_file(ROOT, "recipes/demo.yaml")
    assert (ROOT / "recipes/demo.yaml").read_text(encoding="utf-8").rstrip() in page
    folder = repository.page_of_file(ROOT, "kogpt2_gluon/reading")
    assert "- `order.py`: The order of training sequences" in folder and "- `cache/" in folder


DOCSTRING = """What it does.

Parameters
----------
first : int
    Its meaning.

    More of its meaning.
second, third : str
    Theirs.

Inputs:
    - **tokens**: ids of shape (batch_size, length),
      continued

Raises RecipeError if the first is bad,
or DataError.
"""


def test_prose_after_the_parameters_of_a_docstring_goes_in_front_of_them():
    changed = dialect.prose_first(DOCSTRING)
    head, _, tail = changed.partition("Parameters\n----------\n")
    assert head == (
        "What it does.\n\n**Inputs**\n\n- **tokens**: ids of shape (batch_size, length),\n  continued\n\n"
        "Raises RecipeError if the first is bad,\nor DataError.\n\n\n"
    )
    assert tail.startswith(
        "first : int\n    Its meaning.\n\n    More of its meaning.\nsecond, third : str\n    Theirs."
    )


def test_roles_of_docstrings_are_plain_names():
    text = "See :mod:`kogpt2_gluon.errors`, ``:class:``, :func:`remember` and data: `it`."
    assert dialect.without_roles(text) == "See `kogpt2_gluon.errors`, ``:class:``, `remember` and data: `it`."


def docstrings(folder: Path) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    found = [ast.get_docstring(node) for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]
    return [text for text in found if text]


def test_no_word_of_a_docstring_is_lost():
    texts = docstrings(ROOT / "kogpt2_gluon")
    assert len(texts) > 2000
    for text in texts:
        assert not re.search(r":[a-z]+:`", dialect.without_roles(text))
        assert Counter(re.findall(r"\w+", dialect.prose_first(text))) == Counter(re.findall(r"\w+", text))
        if "\n---" not in text and "puts:\n" not in text:
            assert dialect.prose_first(text) == re.sub(r"\n\s*\n", "\n\n", text)
