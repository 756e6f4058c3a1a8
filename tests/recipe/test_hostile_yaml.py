"""YAML that would take much more time or memory than its size: refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import LARGEST
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.report import render_report
from kogpt2_gluon.user_files import MOST_YAML, load_yaml, read_yaml


def refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=rf"mine\.yaml: .*{told}") as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)


def levels(count: int, merge: str = "") -> str:
    """Each level has the one before twice."""
    lines = [f"a{n}: &a{n} " + ("[x, x]" if n == 0 else f"[*a{n - 1}, *a{n - 1}]") for n in range(count)]
    return "\n".join(lines) + merge


def test_aliases_that_double_at_each_level(tmp_path: Path) -> None:
    refused(tmp_path, levels(60), "its aliases repeat too much")
    merges = "\n".join(["m0: &m0 {a: 1}", *(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, 60))])
    refused(tmp_path, merges, "its aliases repeat too much")
    refused(tmp_path, "a: &a [*a]\n", "an alias within what it stands for")
    refused(tmp_path, "a: &a\n  b: *a\n", "an alias within what it stands for")


def test_aliases_that_help_stay(tmp_path: Path) -> None:
    text = "a: &a [x, y]\nb: *a\nc: {d: *a}\ne: &e {f: 1}\ng: {<<: *e, h: 2}\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    found = {"a": ["x", "y"], "b": ["x", "y"], "c": {"d": ["x", "y"]}, "e": {"f": 1}, "g": {"f": 1, "h": 2}}
    assert read_yaml(tmp_path / "a.yaml", "recipe") == found
    assert len(load_yaml(levels(8))) == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("training:\n  num_steps: 1" + ":59" * 20_000, "a number of too many digits"),
        ("training:\n  num_steps: 0x" + "f" * 100_000, "a number of too many digits"),
        ("name: " + "x" * MOST_YAML, f"more than {MOST_YAML >> 10} KiB"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("? " * 5000, "nested too deeply"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: !!timestamp 1", "not readable as YAML|unknown key a"),
        ("a: !!int x", "not readable as YAML"),
        ("a: !!float x", "not readable as YAML"),
        ("training: {num_steps: 1e400}", "expected a whole number"),
        (f"training: {{num_steps: {10**30}}}", "is above"),
        (f"training: {{num_steps: {LARGEST + 1}}}", "is above"),
        ("model: {num_layers: 10001}", "is above 10000"),
    ],
    ids=lambda value: value[:24],
)
def test_values_that_take_long_or_are_none(tmp_path: Path, text: str, told: str) -> None:
    refused(tmp_path, text, told)


def test_the_report_of_a_run_reads_its_recipe_with_the_same_care(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "start", "step": 0}\n', encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("name: &n [*n]\n" + levels(60), encoding="utf-8")
    assert "nothing recorded" in render_report(tmp_path) or "step 0" in render_report(tmp_path)
