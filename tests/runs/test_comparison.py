"""Several runs on one page, figures as files, and runs whose records are in S3."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.comparison import render_comparison
from kogpt2_gluon.runs.exports import write_csv, write_pictures
from kogpt2_gluon.runs.remote import opened, runs_below
from kogpt2_gluon.runs.run_folder import open_run
from tests.helpers import kogpt2
from tests.runs.test_report import Page, numbers_in_svg
from tests.runs.tracking_helpers import HOSTILE
from tests.storage.conftest import no_real_account, store
from tests.storage.s3_helpers import BUCKET

__all__ = ["no_real_account", "store"]


def make_run(path: Path, steps: int = 60, floor: float = 3.0, settings: tuple[str, ...] = ()) -> Path:
    """A folder with the record of a run, written by hand."""
    recipe = load_recipe("demo", [f"tracking.run_dir={path}", f"training.num_steps={steps}", *settings])
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(recipe.to_yaml())
    with (path / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            common = {"step": step, "time": 1.7e9 + step, "seconds": 0.5 * step}
            figures = {"loss": floor + 6 / step, "tokens": 100 * step, "tokens_per_second": 200.0, "data_wait": 0.01}
            file.write(json.dumps({"kind": "train", **common, **figures}) + "\n")
            if step % 20 == 0:
                figures = {"loss": floor + 7 / step, "perplexity": 9.0, "bits_per_byte": (floor + 7 / step) / 3}
                file.write(json.dumps({"kind": "evaluation", **common, **figures}) + "\n")
    (path / "log.txt").write_text(
        f"2026-11-30 00:00:00 demo: {recipe.model.units:,} parameters; 4 worker(s) on gpu(0)\n"
        "2026-11-30 00:00:30 ended: done\n"
    )
    return path


def test_curves_over_each_other_and_what_differs(tmp_path):
    runs = [
        open_run(make_run(tmp_path / "a")),
        open_run(make_run(tmp_path / "b", floor=2.0, settings=("model.dropout=0.25", "tracking.log_interval=7"))),
    ]
    text = render_comparison(runs)
    page = Page(text)
    words = " ".join(page.texts)
    assert page.tags.count("svg") == 6  # held-out and training, by tokens, time and operations; no price is known
    assert page.references == [] and "script" not in page.tags
    assert not any(re.search("nan|inf", numbers) for numbers in numbers_in_svg(text))
    assert "model.dropout" in words and "0.25" in words and "tracking.log_interval" in words
    assert "training.learning_rate" not in words and "run_dir" not in words
    assert f"{(2 + 7 / 60) / 3:#.4g}" in words  # the last of b
    assert render_comparison(runs, [12.0, 12.0]).count("<svg") == 8


def test_fifty_runs_of_many_points_make_a_small_page(tmp_path):
    runs = [
        open_run(make_run(tmp_path / f"{number:02}", 1000, 2 + number / 50, (f"training.seed={number}",)))
        for number in range(50)
    ]
    text = render_comparison(runs, [1.0] * 50)
    assert len(text.encode()) < 10_000_000
    Page(text)


def test_gpus_of_a_known_kind_have_a_price(tmp_path):
    run = make_run(tmp_path / "a")
    (run / "env.json").write_text(json.dumps({"host": {"gpus": ["NVIDIA A100-SXM4-40GB, 40960 MiB, 535"]}}))
    text = render_comparison([open_run(run)])
    assert "dollars" in text and f"{4 * 32.7726 / 8 * 30 / 3600:.4g}" in text


def test_hostile_names_and_records_stay_text(tmp_path):
    run = make_run(tmp_path / "a<b>&'\"", settings=(f"name={HOSTILE.replace(chr(0), '').replace(chr(0xD800), '')}",))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "evaluation", "step": 60, "loss": {}, "<script>": 1e999}) + "\n")
        file.write(json.dumps({"kind": "train", "step": 61, "loss": None, "tokens": "many", "seconds": []}) + "\n")
    other = make_run(tmp_path / "other")
    text = render_comparison([open_run(run), open_run(other)])
    assert "<script" not in text and "a<b>" not in text
    Page(text)


def test_rows_of_figures(tmp_path):
    runs = [open_run(make_run(tmp_path / name)) for name in ("a", "b")]
    path = write_csv(runs, ["a", "b"], tmp_path / "figures.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 63 and {row["run"] for row in rows} == {"a", "b"}
    last = [row for row in rows if row["run"] == "b" and row["kind"] == "evaluation"][-1]
    assert math.isclose(float(last["bits_per_byte"]), (3 + 7 / 60) / 3) and last["tokens"] == ""


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_pictures(tmp_path, kind):
    paths = write_pictures(open_run(make_run(tmp_path / "a")), kind)
    assert {path.stem for path in paths} == {"loss", "speed", "waiting-for-data"}
    for path in paths:
        head = path.read_bytes()[:300]
        assert head.startswith(b"\x89PNG") if kind == "png" else b'xmlns="http://www.w3.org/2000/svg"' in head
        assert b"var(--" not in path.read_bytes()


def test_png_without_its_package_is_one_line(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(RecipeError, match=r"pip install 'kogpt2-gluon\[pictures\]'"):
        write_pictures(open_run(make_run(tmp_path / "a")), "png")


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        make_run(tmp_path / name)
    assert kogpt2("report", "a").stdout == "a/report.html\n"
    assert kogpt2("report", "a", "b", "--dollars-per-hour", "3").stdout == "comparison.html\n"
    assert kogpt2("report", "a", "b", "--format", "csv", "--out", "x.csv").stdout == "x.csv\n"
    assert "a/report/loss.svg" in kogpt2("report", "a", "--format", "svg").stdout
    refused = kogpt2("report", "a", "--format", "png", "--out", "x", code=2)
    assert "takes no --out" in refused.stderr
    (tmp_path / "b" / "metrics.jsonl").write_text("not json\nat all\n")
    assert "line 1 is not a JSON object" in kogpt2("report", "a", "b", code=3).stderr


def upload(store, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.put_object(Bucket=BUCKET, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


def test_runs_in_s3(tmp_path, store):
    for name in ("a", "deep/b"):
        run = make_run(tmp_path / "runs" / name)
        (run / "checkpoints" / "step-00000060").mkdir(parents=True)
        (run / "checkpoints" / "step-00000060" / "recipe.yaml").write_text("name: x\n")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "recipe.yaml").write_text("model: 1\n")
    (tmp_path / "runs" / "broken" / "log.txt").write_text("2026-11-30 00:00:00 x\n")
    upload(store, tmp_path / "runs", "my/runs")
    store.put_object(Bucket=BUCKET, Key="my/runs/../../escape/recipe.yaml", Body=b"name: x\n")
    with runs_below(Path(f"s3://{BUCKET}/my/runs")) as (found, faults):
        assert [run.place for run in found] == [f"s3://{BUCKET}/my/runs/a", f"s3://{BUCKET}/my/runs/deep/b"]
        assert [run.state for run in found] == ["done", "done"] and found[0].step == 60
        assert len(faults) == 1
    with opened([Path(f"s3://{BUCKET}/my/runs/a"), tmp_path / "runs" / "deep" / "b"]) as runs:
        assert "s3://" not in render_comparison(runs)
        assert runs[0].final == runs[1].final and runs[0].place == f"s3://{BUCKET}/my/runs/a"
    with pytest.raises((DataError, RecipeError)), opened([Path("s3://no-such-bucket-here/x")]):
        pass
