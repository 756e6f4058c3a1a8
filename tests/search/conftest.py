from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.search.space import read_space
from kogpt2_gluon.search.study import Plan, Study

PLANTED = [sys.executable, str(Path(__file__).with_name("planted.py"))]
GRID = """
training.learning_rate: [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
model.dropout: [0.0, 0.1, 0.2]
"""


@pytest.fixture
def plan_of(tmp_path):
    """Returns a function that makes the plan of a search over the planted function."""

    def make(space: str = GRID, **options) -> Plan:
        recipe = load_recipe(
            "demo", ["data.test=shards/test", "training.num_steps=90", "training.final_learning_rate=0"]
        )
        path = tmp_path / "space.yaml"
        path.write_text(space)
        usual = {"rule": "asha", "eta": 3, "first": 10, "sampler": "tpe", "seed": 0, "journal": False, "trials": 24}
        return Plan(recipe, read_space(path, recipe), **{**usual, **options})

    return make


@pytest.fixture
def study_of(tmp_path, plan_of):
    """Returns a function that opens the study of such a search."""

    def make(space: str = GRID, folder: str = "study", **options) -> Study:
        return Study(tmp_path / folder, plan_of(space, **options))

    return make
