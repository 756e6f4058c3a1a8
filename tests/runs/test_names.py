"""Names of runs: as short as they can be, and different where the runs are."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.names import names_of, short_names
from kogpt2_gluon.runs.run_folder import RunFolder
from kogpt2_gluon.wording import width_of

NAMES = st.lists(
    st.lists(st.text("가ab12_-", min_size=1, max_size=9), min_size=1, max_size=4).map("/".join), max_size=12
)


def run_at(path: str) -> RunFolder:
    return RunFolder(Path(path), Recipe(), [], path)


def test_names_are_the_ends_of_paths_that_differ():
    assert names_of([run_at("/x/hour/runs/reviews"), run_at("/x/hour2/runs/reviews")]) == [
        "hour/runs/reviews",
        "hour2/runs/reviews",
    ]
    assert names_of([run_at("/x/a"), run_at("/x/b")]) == ["a", "b"]


def test_what_all_names_have_is_an_ellipsis():
    assert short_names(["hour/runs/reviews_hour", "hour2/runs/reviews_hour"], 12) == ["hour/…", "hour2/…"]
    assert short_names(["reviews_hour_lr1e-3", "reviews_hour_lr1e-4"], 12) == ["…hour_lr1e-3", "…hour_lr1e-4"]
    assert short_names(["a_reviews_hour_base", "b_reviews_hour_base"], 12) == ["a_reviews_h…", "b_reviews_h…"]
    assert short_names(["demo", "reviews_hour"], 12) == ["demo", "reviews_hour"]
    assert short_names(["a_very_long_name_of_a_run"], 12) == ["a_very…a_run"]


def test_names_that_differ_in_the_middle_alone_are_numbered():
    names = [f"aaaaaaaaaaaa{middle}bbbbbbbbbbbbbb" for middle in "xyz"]
    assert [name.partition("…")[0] for name in short_names(names, 12)] == ["1", "2", "3"]


@given(NAMES, st.integers(8, 24))
def test_short_names_fit_and_differ(names, columns):
    found = short_names(names, columns)
    assert all(width_of(name) <= columns for name in found)
    assert len(set(found)) == len(set(names))
    assert all((one == other) == (a == b) for one, a in zip(found, names) for other, b in zip(found, names))
