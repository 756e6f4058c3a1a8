"""Tables of scores: what a new one lacks is not lost."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DiskFullError
from kogpt2_gluon.tasks.score_table import FLOOR, PUBLISHED, Score, ScoreTable
from kogpt2_gluon.training.kept_scores import keep_scores, keep_table
from tests.helpers import small_disk


def table(
    *runs: tuple[str, list[float]], rows: int = 30, split: str = "test", title: str = "made: runs/a"
) -> ScoreTable:
    found = ScoreTable(title)
    for system, scores in runs:
        kind = FLOOR if system == "majority" else "system"
        found.add_runs(system, split, [{"accuracy": each} for each in scores], rows, kind=kind)
    return found


def keep(folder: Path, *tables: ScoreTable) -> list[str]:
    said: list[str] = []
    for each in tables:
        keep_table(each, folder, said.append)
    return said


WIDE = (("fine-tuned", [0.8, 0.9]), ("majority", [0.5]))


@pytest.mark.parametrize(
    ("new", "lacking"),
    [
        (table(("fine-tuned", [0.8]), ("majority", [0.5])), "2 seeds of fine-tuned"),
        (table(("fine-tuned", [0.8, 0.9])), "majority on test"),
        (table(("majority", [0.5])), "fine-tuned on test"),
        (table(("fine-tuned", [0.8])), "2 seeds of fine-tuned, majority on test"),
        (table(*WIDE, rows=31), "another score of fine-tuned on test, another score of majority on test"),
        (table(*WIDE, split="dev"), "fine-tuned on test, majority on test"),
        (table(("fine-tuned", [0.8, 0.8]), ("majority", [0.5])), "another score of fine-tuned on test"),
        (table(("fine-tuned", [0.8, 0.9001]), ("majority", [0.5])), "another score of fine-tuned on test"),
        (table(("fine-tuned", [0.8, math.nan]), ("majority", [0.5])), "another score of fine-tuned on test"),
    ],
)
def test_a_table_that_has_more_is_kept(new: ScoreTable, lacking: str, tmp_path: Path) -> None:
    keep(tmp_path, table(*WIDE))
    before = [(tmp_path / name).read_bytes() for name in ("scores.json", "scores.md")]
    place = tmp_path / "scores.json"
    said = keep(tmp_path, new)
    assert said == [f"{place}: the table from before has {lacking}; it is kept as {tmp_path / 'scores-1.md'}"]
    assert [(tmp_path / name).read_bytes() for name in ("scores-1.json", "scores-1.md")] == before
    assert place.read_text(encoding="utf-8") == new.json()
    assert (tmp_path / "scores.md").read_text(encoding="utf-8") == new.markdown()


@pytest.mark.parametrize(
    "new",
    [
        table(*WIDE),
        table(*WIDE, title="made: /where/ever/runs/a"),
        table(("fine-tuned", [0.8, 0.9 + 1e-7]), *WIDE[1:]),
        table(("fine-tuned", [0.8, 0.9, 0.7]), *WIDE[1:]),
        table(*WIDE, ("the same network, not pretrained", [0.6])),
    ],
)
def test_a_table_that_has_as_much_takes_its_place(new: ScoreTable, tmp_path: Path) -> None:
    old = table(*WIDE)
    old.scores.append(Score("KoGPT-2", "test", "accuracy", 0.899, kind=PUBLISHED))
    assert keep(tmp_path, old, new) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["scores.json", "scores.md"]


def test_a_score_that_does_not_exist_equals_itself(tmp_path: Path) -> None:
    undefined = table(("fine-tuned", [math.nan]))
    assert keep(tmp_path, undefined, undefined) == []


def test_tables_are_numbered_and_none_is_kept_twice(tmp_path: Path) -> None:
    wide, narrow, other = table(*WIDE), table(WIDE[1]), table(("other", [0.1]))
    said = keep(tmp_path, wide, narrow, wide, narrow, other, narrow)
    assert [line.rpartition("as ")[2] for line in said] == [
        str(tmp_path / f"scores-{number}.md") for number in (1, 1, 2, 3)
    ]
    kept = [(tmp_path / f"scores-{number}.json").read_text(encoding="utf-8") for number in (1, 2, 3)]
    assert kept == [wide.json(), narrow.json(), other.json()]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"scores": [{"system": "a"}]}', '{"scores": 5}', "[" * 100_000])
def test_what_is_no_table_is_kept_too(content: str, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(content, encoding="utf-8")
    (line,) = keep(tmp_path, table(*WIDE))
    assert "has what cannot be read as one; it is kept as" in line
    assert (tmp_path / "scores-1.json").read_text(encoding="utf-8") == content


def test_many_things_are_counted(tmp_path: Path) -> None:
    (line,) = keep(tmp_path, table(*((f"system {number}", [0.5]) for number in range(6))), table(*WIDE))
    assert "has system 0 on test, system 1 on test, system 2 on test and 3 more; it is kept" in line


def test_scores_of_a_run_say_what_they_replace(tmp_path: Path) -> None:
    said: list[str] = []
    for rows in (30, 30, 31):
        keep_scores(tmp_path, {"rows": rows, "scores": {"accuracy": 0.5}}, said.append)
    assert said == [f'{tmp_path}/scores.json: before: {{ "rows": 30, "scores": {{ "accuracy": 0.5 }} }}']
    assert json.loads((tmp_path / "scores.json").read_text())["rows"] == 31


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        (disk / "other").write_bytes(bytes(4096))
        with pytest.raises(DiskFullError, match=r"^.*/disk/scores\.json: the disk is full .*; the scores need room"):
            keep(disk, table(*WIDE))
        assert [each.name for each in disk.iterdir()] == ["other"]
