"""kogpt2 recipe: what is shown reads back as the same recipe, and differences are those of the values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.options import to_yaml
from kogpt2_gluon.recipe import Recipe, changed_keys, differences, load_recipe, parse_recipe
from tests.cli.test_cli import kogpt2, refused

SHIPPED = [path for path in sorted(Path("recipes").rglob("*.yaml")) if path.parent.name != "chains"]
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "training.num_steps": st.integers(1, 10**6),
        "training.learning_rate": st.floats(1e-6, 1),
        "training.final_learning_rate": st.just(0.0),
        "model.num_layers": st.integers(1, 99),
        "data.train": st.sampled_from(["a", ["a", "b"], {"a": 1.0, "b": 0.25}]),
        "data.exclude": st.lists(st.sampled_from(["*.tmp", "x"]), max_size=0),
        "tracking.tensorboard": st.booleans(),
        "tracking.sample_prompts": st.lists(st.text("가나 :#'\"\n", max_size=5), max_size=3),
    },
)


@pytest.mark.parametrize("options", [[], ["--changed"]])
def test_a_recipe_that_is_shown_reads_back(options: list[str], tmp_path: Path) -> None:
    shown = tmp_path / "shown.yaml"
    shown.write_text(kogpt2("recipe", "show", "small_cpu", "training.num_steps=7", *options).stdout, encoding="utf-8")
    assert load_recipe(str(shown)) == load_recipe("small_cpu", ["training.num_steps=7"])
    assert ("keep_best" in shown.read_text(encoding="utf-8")) == (not options)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_changed_keys_of_a_shipped_recipe_make_it_again(path: Path) -> None:
    recipe = load_recipe(str(path))
    assert parse_recipe(yaml.safe_load(to_yaml(changed_keys(recipe)))) == recipe


@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_changed_keys_are_those_that_differ_from_the_defaults(changes: dict[str, object]) -> None:
    plain: dict[str, dict[str, object]] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        plain.setdefault(section, {})[name] = value
    recipe = parse_recipe(plain)
    assert parse_recipe(changed_keys(recipe)) == recipe
    found = differences(recipe, Recipe())
    assert all(own != other for own, other in found.values())
    assert set(found) <= set(changes)
    assert differences(recipe, recipe) == {}


def test_differences_name_keys_and_values(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(kogpt2("recipe", "show", "small_cpu", "model.dropout=0.2", "name=mine").stdout, encoding="utf-8")
    assert kogpt2("recipe", "diff", "small_cpu", mine).stdout.splitlines() == [
        "name           small_cpu -> mine",
        "model.dropout  0 -> 0.2",
    ]
    found = json.loads(kogpt2("recipe", "diff", "small_cpu", mine, "--json").stdout)
    assert found["model.dropout"] == {"first": 0.0, "second": 0.2}
    assert kogpt2("recipe", "diff", mine, mine).stdout == "they do not differ\n"


def test_every_recipe_is_checked_before_the_verdict(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("model: {units: 7, num_heads: 2}\ntraining: {beta1: 1}\n")
    result = kogpt2("recipe", "check", bad, "small_cpu", tmp_path / "none.yaml", code=2)
    assert result.stdout == "small_cpu: good\n"
    assert "model.units=7 is not divisible" in result.stderr and "training.beta1 must be below 1" in result.stderr
    assert "none.yaml: no such file" in result.stderr
    assert result.stderr.endswith("2 recipes of 3 cannot be used\n")


def test_keys_of_a_section() -> None:
    assert kogpt2("recipe", "keys", "model").stdout == kogpt2("train", "--keys", "model").stdout
    assert "not a section of a recipe" in refused("recipe", "keys", "modle", code=2)
