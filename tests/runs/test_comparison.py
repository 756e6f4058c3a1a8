"""Several runs on one page, figures as files, and runs whose records are in S3."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.runs.comparison import render_comparison
from kogpt2_gluon.runs.exports import write_csv, write_pictures
from kogpt2_gluon.runs.remote import opened, runs_below
from kogpt2_gluon.runs.report import render_report
from kogpt2_gluon.runs.run_folder import open_run
from tests.helpers import kogpt2
from tests.runs.report_helpers import Page, add_data, make_run, make_task_run, numbers_in_svg
from tests.runs.tracking_helpers import HOSTILE
from tests.storage.conftest import no_real_account, store
from tests.storage.s3_helpers import BUCKET

__all__ = ["no_real_account", "store"]


def plots_in(text: str, style: str = "broad") -> list[str]:
    """The titles of the plots of a page that have a style."""
    return re.findall(rf'<svg class="{style}"[^>]*aria-label="([^"]*)"', text)


def test_curves_over_each_other_and_what_differs(tmp_path):
    runs = [
        open_run(make_run(tmp_path / "a")),
        open_run(make_run(tmp_path / "b", floor=2.0, settings=("model.dropout=0.25", "tracking.log_interval=7"))),
    ]
    text = render_comparison(runs)
    page = Page(text)
    words = " ".join(page.texts)
    # held-out and training, by tokens, time and operations; no price is known
    assert len(plots_in(text)) == len(plots_in(text, "narrow")) == 6
    assert page.references == [] and "script" not in page.tags
    assert not any(re.search("nan|inf", numbers) for numbers in numbers_in_svg(text))
    assert "model.dropout" in words and "0.25" in words and "tracking.log_interval" in words
    assert "training.learning_rate" not in words and "run_dir" not in words
    assert f"{(2 + 7 / 60) / 3:#.4g}" in words  # the last of b
    assert "--dollars-per-hour" in words and "$" not in page.texts
    assert len(plots_in(render_comparison(runs, [12.0, 12.0]))) == 8
    assert "--dollars-per-hour" not in render_comparison(runs, [12.0, 12.0])
    assert "caveat" not in text.partition("<body>")[2], "these runs compare"


def test_figures_of_another_kind_have_axes_of_their_own(tmp_path):
    paths = [
        make_run(tmp_path / "text"),
        make_task_run(tmp_path / "films", "nsmc", "accuracy", 0.5, 0.85),
        make_task_run(tmp_path / "films-2", "nsmc", "accuracy", 0.48, 0.84),
        make_task_run(tmp_path / "likeness", "korsts", "spearman", 0.0, 0.7),
    ]
    text = render_comparison([open_run(path) for path in paths])
    titles = [title.removesuffix(", by tokens") for title in plots_in(text) if title.endswith("by tokens")]
    assert titles == [
        "Held-out bits per byte",
        "Held-out accuracy of nsmc",
        "Held-out spearman of korsts",
        "Training loss, vocabulary of 4,000 tokens",
        "Training loss of nsmc",
        "Training loss of korsts",
    ]
    note = " ".join(Page(text.partition('class="caveat"')[2].partition("</section>")[0].partition(">")[2]).texts)
    assert "accuracy of nsmc: films, films-2; spearman of korsts: likeness" in note
    best = re.findall(r"<strong>([^<]*)</strong>", text)
    assert best == ["0.8500", "0.8500"], "only the two of nsmc compare, and the higher accuracy is the best"
    accuracies = [plot for plot in text.split("<figure>") if "Held-out accuracy of nsmc, by tokens" in plot]
    ticks = [float(tick) for tick in re.findall(r'class="tick" text-anchor="end"[^>]*>([\d.]+)<', accuracies[0])]
    assert min(ticks) >= 0.8 and "below the frame: beginnings from 0.4800 on" in accuracies[0]


def test_a_frame_without_the_untrained_beginning_shows_small_differences(tmp_path):
    paths = []
    for name, floor in (("a", 1.445), ("b", 1.463)):
        paths.append(make_run(tmp_path / name, 200))
        with (paths[-1] / "metrics.jsonl").open("w") as file:
            for step in range(0, 201, 20):
                bits = 2.57 if step == 0 else floor + 2 / step
                line = {"kind": "evaluation", "step": step, "time": 1.0, "seconds": step, "bits_per_byte": bits}
                file.write(json.dumps(line) + "\n")
                file.write(json.dumps({"kind": "train", "step": step, "tokens": 100 * step, "loss": 5.0}) + "\n")
    text = render_comparison([open_run(path) for path in paths])
    (plot,) = [each for each in text.split("<svg ") if 'broad"' in each and "Held-out bits per byte, by tokens" in each]
    ends = [float(path.rpartition(" ")[2]) for path in re.findall(r'<path class="run r\d" d="([^"]*)"', plot)]
    assert abs(ends[0] - ends[1]) > 30, "pixels, of 316"
    assert "above the frame: beginnings of up to 2.570" in text


def test_results_are_grouped_by_held_out_data(tmp_path):
    paths = [
        add_data(make_run(tmp_path / name, floor=floor, settings=("data.test=shards/test",)), size=size)
        for name, floor, size in (("a", 3.0, 5000), ("b", 2.0, 5000), ("c", 1.0, 6000))
    ]
    text = render_comparison([open_run(path) for path in paths])
    groups = re.findall(r'scope="rowgroup"[^>]*><span>([^<]*)<', text)
    assert groups == ["bits per byte on 100 documents of 5,000 bytes", "bits per byte on 100 documents of 6,000 bytes"]
    assert set(re.findall(r"<strong>([^<]*)</strong>", text)) == {f"{(2 + 7 / 60) / 3:#.4g}"}, "of a and b alone"
    words = " ".join(Page(text).texts)
    assert "Different held-out data" in words and "held-out: bytes of text" in words and "6,000" in words
    assert [title for title in plots_in(text) if "Held-out" in title and "by time" in title] == [
        f"Held-out {group.replace(' on ', ': ')}, by time" for group in groups
    ]


def test_what_does_not_matter_is_folded(tmp_path):
    runs = [
        open_run(make_run(tmp_path / "a")),
        open_run(make_run(tmp_path / "b", settings=("tracking.log_interval=7", "model.dropout=0.3", "name=x"))),
    ]
    shown, _, folded = render_comparison(runs).partition("<h2>Differences</h2>")[2].partition("<details>")
    assert "model.dropout" in shown and "tracking.log_interval" not in shown and "tracking.log_interval" in folded


def test_operations_have_their_unit(tmp_path):
    run = make_run(tmp_path / "a")
    text = render_comparison([open_run(run), open_run(make_run(tmp_path / "b"))])
    assert re.search(r"<td>[\d.]+ [GT]FLOP</td>", text) and "FLOP, floating-point operations</text>" in text
    assert ">seconds</text>" in text, "30 of them are no hours"


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
    for words in (["a"], ["a", "b", "--format", "csv"], ["a", "b", "--format", "svg"]):
        refused = kogpt2("report", *words, "--dollars-per-hour", "3", code=2)
        assert "--dollars-per-hour is for the axis of cost" in refused.stderr
    (tmp_path / "b" / "metrics.jsonl").write_text("not json\nat all\n")
    assert "line 1 is not a JSON object" in kogpt2("report", "a", "b", code=3).stderr


def test_a_folder_of_runs_counts_as_these(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("seeds/seed-0", "seeds/seed-1", "alone"):
        make_run(tmp_path / name)
    (tmp_path / "empty").mkdir()
    shown = kogpt2("runs", "compare", "seeds", "alone", "alone", "--json")
    assert [run["run"] for run in json.loads(shown.stdout)["runs"]] == ["seeds/seed-0", "seeds/seed-1", "alone"]
    assert shown.stderr == "kogpt2: seeds: not a run itself; it holds 2 runs, which are taken: seed-0, seed-1\n"
    made = kogpt2("report", "seeds")
    assert made.stdout == "comparison.html\n" and "seed-0, seed-1" in made.stderr
    assert "2 runs" in (tmp_path / "comparison.html").read_text()
    refused = kogpt2("report", "empty", "alone", "nowhere", code=2).stderr
    assert "empty: no recipe.yaml there, nor a run below" in refused and "nowhere: no recipe.yaml there" in refused


def test_passwords_in_addresses_are_on_no_page(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / name, settings=(f"tracking.mlflow=http://kim:geheim@{name}:5000",))
    with opened([tmp_path / "a", tmp_path / "b"]) as runs:
        text = render_comparison(runs)
    assert "geheim" not in text and "http://(hidden)@b:5000" in text
    page = render_report(tmp_path / "a")
    assert "geheim" not in page and "http://(hidden)@a:5000" in page


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
