"""The file of a space: values as a recipe takes them, and one line for what it does not."""

from __future__ import annotations

import math
import warnings

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import create_trial

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe, parse_recipe
from kogpt2_gluon.search.space import Dimension, overrides, read_space


def read(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return read_space(path, load_recipe("demo"))


def test_values_are_those_of_a_recipe(tmp_path):
    space = read(
        tmp_path,
        "training.learning_rate: {low: 1e-5, high: 1e-2, log: true}\n"
        "training.batch_size: [8, 16]\n"
        "model.num_layers: {low: 2, high: 6, step: 2}\n"
        "model.dropout: {low: 0, high: 0.3, step: 0.1}\n"
        "training.schedule: [linear, cosine]\n"
        "data.train: [a, {a: 1, b: 3}]\n",
    )
    rate, batch, layers, dropout, schedule, train = space.dimensions
    assert (rate.low, rate.high, rate.log, rate.values) == (1e-5, 1e-2, True, None)
    assert batch.choices == (8, 16) and layers.values == [2, 4, 6]
    assert dropout.values == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert schedule.choices == ("linear", "cosine")
    assert train.choices == ("a", '{"a": 1.0, "b": 3.0}')
    assert space.size == math.inf
    changes = overrides({"data.train": train.choices[1], "training.learning_rate": 1e-5, "training.schedule": "cosine"})
    assert space.notes and "training.final_learning_rate is above" in space.notes[0]  # of the lowest rate, in the demo
    recipe = parse_recipe(load_recipe("demo").to_dict(), [*changes, "training.final_learning_rate=0"])
    assert recipe.data.train == {"a": 1.0, "b": 3.0} and recipe.training.learning_rate == 1e-5


def test_a_range_that_ends_before_its_high_says_so(tmp_path, recwarn):
    path = tmp_path / "space.yaml"
    path.write_text("model.dropout: {low: 0, high: 0.35, step: 0.1}\n")
    space = read_space(path, load_recipe("demo"))
    assert space.notes == ("note: model.dropout: its largest value is 0.3; steps of 0.1 do not end at 0.35",)
    assert not recwarn, "Optuna's own warning is silent"


def test_a_finite_space_knows_its_combinations(tmp_path):
    space = read(tmp_path, "model.num_layers: {low: 1, high: 3}\ntraining.schedule: [linear, cosine]\n")
    assert space.size == 6 == len(list(space.combinations()))


@settings(deadline=None, max_examples=50)
@given(
    decimals=st.integers(0, 6),
    low=st.integers(-300, 300),
    step=st.integers(1, 300),
    count=st.integers(1, 40),
    beyond=st.sampled_from((0.0, 0.5)),
    seed=st.integers(0, 99),
)
def test_the_values_of_a_stepped_range_are_those_that_optuna_draws_and_takes(decimals, low, step, count, beyond, seed):
    unit = 10.0**-decimals
    low, step, high = low * unit, step * unit, (low + (count + beyond) * step) * unit
    dimension = Dimension("x", low=low, high=high, step=step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a range that ends between two steps
        kinds, values = {"x": dimension.distribution}, dimension.values
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        drawn = {study.ask(kinds).params["x"] for _ in range(20)}
        for value in values:
            create_trial(
                value=0.0, params={"x": value}, distributions=kinds
            )  # ValueError for one that it does not take
    assert len(set(values)) == len(values) == dimension.size and max(values) <= high and values[0] == low
    assert drawn <= set(values)


def test_a_range_with_more_values_than_memory_holds_is_counted_and_not_listed(tmp_path):
    space = read(
        tmp_path, "training.seed: {low: 0, high: 1000000000000}\nmodel.dropout: {low: 0, high: 0.9, step: 1e-1}\n"
    )
    assert space.size == 10 * 1_000_000_000_001


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("training.learning_rat: [1e-3]", "did you mean training.learning_rate"),
        ("training.num_steps: [10, 20]", "decides how runs are compared"),
        ("evaluation.interval: [1, 2]", "decides how runs are compared"),
        ("training.learning_rate: 1e-3", "a list of values is expected"),
        ("training.learning_rate: []", "a list of values is expected"),
        ("training.learning_rate: [fast]", "training.learning_rate"),
        ("training.learning_rate: {low: 1e-3}", "both low and high"),
        ("training.learning_rate: {low: 1e-2, high: 1e-3}", "is not below"),
        ("training.learning_rate: {low: 1e-5, high: 1e-3, base: 2}", "base is not one of"),
        ("training.learning_rate: {low: 1e-5, high: 1e-3, log: maybe}", "true or false"),
        ("training.learning_rate: {low: 0, high: 1e-3, log: true}", "low > 0"),
        ("model.num_layers: {low: 1, high: 8, step: 0.5}", "whole numbers"),
        ("model.num_layers: {low: 1, high: 8, step: -1}", "above 0"),
        ("model.num_layers: {low: 1, high: 8, step: .inf}", "above 0"),
        ("model.num_layers: {low: 1, high: 8, step: .nan}", "above 0"),
        ("model.dropout: {low: 0, high: 0.5, step: .inf}", "above 0"),
        ("model.dropout: {low: 0, high: 0.5, step: fine}", "above 0"),
        ("model.dropout: {low: 0, high: 0.5, step: 1e-12}", "too fine"),
        ("model.num_layers: {low: 1, high: 8.5}", "model.num_layers"),
        ("training.schedule: {low: linear, high: cosine}", "not a number"),
        ("model.num_layers: [2, 2]", "twice"),
        ("model.dropout: [0.1, 1.5]", "model.dropout"),
        ("- a\n- b", "a mapping of sections is expected"),
    ],
)
def test_a_bad_space_is_one_line(tmp_path, text, words):
    with pytest.raises(RecipeError, match=words) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
