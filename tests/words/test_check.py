"""The checker of words finds each kind of finding in each kind of file, and nothing in clean text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.words import check

EXAMPLES = [word.example.replace("_", " ") for word in check.WORDS]
ALLOWED = [word.good_example.replace("_", " ") for word in check.WORDS if word.good_example]


def _found(source, kind):
    return [(line, found) for line, found, _ in check.check_text(source, kind)]


@pytest.mark.parametrize("words", EXAMPLES)
@pytest.mark.parametrize(
    ("kind", "source", "line"),
    [
        (".py", "x = 1  # it {} here\n", 1),
        (".py", '"""A module.\n\nIt {} here.\n"""\n', 3),
        (".py", 'def f(n):\n    raise ValueError(\n        f"{{n}}: "\n        "it {} here"\n    )\n', 4),
        (".cc", "int x;\n// it {} here\n", 2),
        (".cu", "/* first\n it {} here */\n", 2),
        (".h", 'int x;\nthrow Error("it {} here");\n', 2),
        (".md", "# Title\n\nit {} here\n", 3),
        (".md", "```\nkogpt2 train  # it {} here\n```\n", 2),
        (".yaml", "a: 1\nb: 2  # it {} here\n", 2),
        ("Makefile", "all: ## it {} here\n", 1),
    ],
)
def test_each_word_is_found_in_each_place(words, kind, source, line):
    assert _found(source.format(words), kind) == [(line, words)]


@pytest.mark.parametrize("words", ALLOWED)
def test_good_uses_of_the_words_pass(words):
    assert _found(f"# The result {words} it.\n", ".py") == []


def test_a_phrase_is_found_over_the_end_of_a_line():
    first, rest = "is", " ".join(("to", "be"))
    assert _found(f"# It {first}\n# {rest} here.\n", ".py") == [(1, f"{first} {rest}")]
    assert _found(f"It {first}\n{rest} here.\n", ".md") == [(1, f"{first} {rest}")]
    assert _found(f"# It {first}\nx = 1\n# {rest} here.\n", ".py") == []


@pytest.mark.parametrize("start", ["Of", "What", "Whether", "As", "The same", "Like"])
def test_fragments_are_found_at_the_start_of_docstrings_only(start):
    source = f'def f():\n    """{start} the thing."""\n    return "{start} the thing."\n'
    assert _found(source, ".py") == [(2, f"docstring: {start} ...")]
    assert _found(f'"""A word first. {start} the thing."""\n', ".py") == []


def test_names_code_and_addresses_are_not_prose():
    names = [word for word in EXAMPLES if " " not in word]
    source = "".join(
        f'{name} = 1\ncalls({name}={name})\nkey["{name}"]\n'
        f"# see `{name}` and ``a {name} b``, {name}(), x_{name}, a.{name}\n"
        f'# https://example.org/{name}\nf"one {{{name}}} two"\n'
        f'def f_{name}():\n    """Do it.\n\n    {name} : callable\n        A name.\n    """\n'
        for name in names
    )
    assert _found(source, ".py") == []
    assert _found(f'program = "from x import {names[0]}, y\\nimport sys"\n', ".py") == []
    assert _found(f"[text](docs/{names[0]}.md), `{names[0]}`\n\n```\n{names[0]} here\n```\n", ".md") == []


def test_the_command_prints_place_and_advice_and_its_exit_code_says_whether_there_are_findings(tmp_path):
    def run(*paths):
        command = [sys.executable, str(Path(check.__file__)), *paths]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.py").write_text("# A comment.\n")
    (tmp_path / "bad.md").write_text(f"Good.\nIt was {EXAMPLES[0]}.\n")
    assert run("good").returncode == 0
    everything = run()
    assert everything.returncode == 1
    assert everything.stdout == f"bad.md:2: {EXAMPLES[0]} -> {check.WORDS[0].plain}\n"
    assert run("absent").returncode == 2
