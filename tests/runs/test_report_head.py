"""The head of a run's page, its data and its changes: what a newcomer asks first, by what is on record and no more."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path

import pytest

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.runs.report import render_report
from kogpt2_gluon.runs.report_head import promised_rows
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.steps_of_task import with_steps
from tests.runs.report_helpers import Page, make_run
from tests.runs.test_report_health import glance
from tests.training.task_helpers import settings as task_settings
from tests.training.task_helpers import write_task

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def text_of(page: str) -> str:
    return html.unescape(re.sub("<[^>]*>", " ", page))


def part(page: str, place: str) -> str:
    return page.partition(f'<section id="{place}"')[2].partition("</section>")[0]


def facts(page: str, title: str) -> dict[str, str]:
    """The names and values of a box."""
    box = page.partition(f"<h3>{title}</h3>")[2].partition("</dl>")[0]
    return {name: html.unescape(value) for name, value in re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", box)}


def put(run: Path, *lines: dict) -> None:
    """Adds records of evaluations."""
    with (run / "metrics.jsonl").open("a") as file:
        for line in lines:
            file.write(json.dumps({"kind": "evaluation", "time": 1.7e9, "seconds": 1.0, **line}) + "\n")


def evaluation(step: int, loss: float) -> dict:
    return {"step": step, "loss": loss, "perplexity": math.exp(loss), "bits_per_byte": loss * 0.7}


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_what_a_shipped_recipe_promises_has_its_three_rows(path):
    about = load_recipe(str(path)).about
    rows = promised_rows(about)
    assert rows is not None and [name for name, _ in rows] == ["Result", "Time", "Command"]
    assert " ".join(" ".join([name, *lines]) for name, lines in rows).split() == about.split()


def test_a_promise_is_labelled_and_follows_what_the_run_reached(tmp_path):
    page = render_report(make_run(tmp_path / "a"))
    before, _, after = page.partition("<h2>What the recipe promises</h2>")
    promise = after.partition("</section>")[0]
    assert "Held-out perplexity" in before and "about 4,200" not in before
    assert "before this run" in promise and '<p class="command">make demo</p>' in promise
    assert "<code>kogpt2 demo</code>" in promise and "`" not in promise


def test_an_about_without_rows_stays_as_it_is_written(tmp_path):
    run = make_run(tmp_path / "a", settings=("about=a first try\n  with `lr` <b>",))
    page = render_report(run)
    assert '<p class="about">a first try\n  with <code>lr</code> &lt;b&gt;</p>' in page
    assert promised_rows("a first try") is None


def test_the_first_evaluation_is_untrained_only_if_it_was(tmp_path):
    run = make_run(tmp_path / "a")
    assert "at step 20: 9.000" in text_of(render_report(run))
    put(run, evaluation(0, math.log(4188)))
    page = text_of(render_report(run))
    assert "untrained: 4,188" in page and "a guess among all 4,000 pieces: 4,000" in page
    assert f"a guess among all 4,000 pieces: {math.log(4000) * ((3 + 7 / 60) / 3) / (3 + 7 / 60):.3f}" in page
    assert "(untrained) to 3.117 nats per token at step 60" in glance(render_report(run))["Did it learn?"]
    tuned = make_run(tmp_path / "b", settings=("training.init_from=other",))
    put(tuned, evaluation(0, 5.0))
    page = text_of(render_report(tuned))
    assert "before this training: 148.4" in page and "untrained:" not in page


def test_how_far_it_came_and_when(tmp_path):
    run = tmp_path / "a"
    make_run(run, 40)
    (run / "metrics.jsonl").write_text("")
    losses = [10.0, 6.0, 3.0, 2.0, 1.0, 0.5, 0.6]
    put(run, *({**evaluation(10 * n, loss), "seconds": 60.0 * n} for n, loss in enumerate(losses)))
    answer = glance(render_report(run))["Did it learn?"]
    assert answer.startswith("Held-out loss fell from 10.00 (untrained) to 0.6000 nats per token at step 60")
    assert ", 90% of that by step 40 (4m00s)" in answer  # 10 - 0.9 * 9.4 = 1.54
    assert answer.endswith("; the best was 0.5000 at step 50, and it has got worse since")


def test_evaluations_over_a_part_are_marked(tmp_path):
    """By their records, and for older ones by the recipe."""
    run = make_run(tmp_path / "a", settings=("evaluation.max_sequences=256",))
    for case in ("older", "with counts"):
        if case == "with counts":
            counts = read_metrics(run)
            scored = [line for line in counts if line["kind"] == "evaluation"]
            for line in scored:
                line.update({"sequences": 1057 if line is scored[-1] else 256, "sequences_in_all": 1057})
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in counts))
        page = render_report(run)
        over = re.findall(r"<td>([^<]*)</td></tr>", part(page, "evaluations"))
        assert over == ["256", "256", "all" if case == "older" else "all 1,057"]
        wide = page.partition('<svg viewBox="0 0 1072')[2].partition("</svg>")[0]
        assert len(re.findall(r'class="heldout mark"', wide)) == 2
        assert len(re.findall(r'class="heldout whole mark"', wide)) == 1
        assert "over 256 sequences" in wide and "Empty rings" in page
        assert "the evaluations before are over 256" in glance(page)["Did it learn?"]
    all_alike = render_report(make_run(tmp_path / "b"))
    assert "Empty rings" not in all_alike and "heldout whole" not in all_alike


def test_the_caption_counts_what_is_above_the_frame_on_both_curves(tmp_path):
    run = make_run(tmp_path / "a", 400)
    lines = read_metrics(run)
    for line in lines:
        line["loss"] = 3 + 6 * math.exp(-line["step"] / 8) + 0.01 * (line["step"] * 7 % 5)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    put(run, evaluation(0, 9.42), evaluation(2, 8.5))
    page = render_report(run)
    caption = text_of(page.partition("<figcaption>Loss")[2].partition("</figcaption>")[0])
    plots = re.findall(r"<svg[^>]*>.*?</svg>", page.partition("<figcaption>Loss")[2].partition("</figure>")[0], re.S)
    assert len(plots) == 2
    for plot in plots:
        ticks = [float(text) for text in re.findall(r'class="tick" text-anchor="end"[^>]*>([\d.]+)<', plot)]
        for name, kind, noun in (("training", "train", "records"), ("held-out", "evaluation", "evaluations")):
            values = {line["step"]: line["loss"] for line in read_metrics(run) if line["kind"] == kind}
            above = {step: loss for step, loss in values.items() if loss > max(ticks)}
            highest = max(above, key=lambda step: above[step])
            expected = f"{name}, {len(above)} of {len(values)} {noun}, up to {above[highest]:#.4g} at step {highest}"
            assert above and expected in caption, (expected, caption)


def test_one_cleaning_is_one_box(tmp_path):
    run = make_run(tmp_path / "a")
    counts = {"train": 14055, "held-out": 296}
    sets = [{"role": role, "path": f"shards/{role}", "documents": count} for role, count in counts.items()]
    record = {
        "corpus": "corpus", "read": 14417, "dropped": {"duplicate": 66}, "kept": {"train": 14055, "test": 296},
        "changed": {}, "test_share": 0.02, "filters": {"length": {"min_chars": 10}, "repeated": {}},
        "sources": [{"path": "texts/a.txt", "bytes": 3_500_281}], "num_sources": 3,
    }  # fmt: skip
    for cleaning in ("14,417 documents read; dropped: 66 duplicate", record):
        data = {"fingerprint": "f00", "sets": [{**one, "cleaning": cleaning} for one in sets]}
        (run / "data.json").write_text(json.dumps(data))
        page = render_report(run)
        assert page.count("14,417") == 1
        box = facts(page, "cleaning" if isinstance(cleaning, str) else "cleaning: corpus")
        assert list(box.items())[:4] == [
            ("documents read", "14,417"), ("dropped, duplicate", "66"),
            ("kept, train", "14,055"), ("kept, held-out", "296"),
        ]  # fmt: skip
        assert "14,055 documents" in glance(page)["Trained on"]
    assert box["filters"] == "length (min_chars=10); repeated" and box["sources"] == "a.txt (3.5 MB); 2 more"
    (run / "data.json").unlink()
    page = render_report(run)
    assert "not on record" in glance(page)["Trained on"] and "not on record" in part(page, "data")


def test_the_cleaning_of_a_corpus_is_on_record(tiny, tmp_path, shards):
    """The counts are those of corpus.json, where the shards name a corpus that is still there."""
    train(load_recipe("debug_cpu", [*tiny, "training.num_steps=2", "evaluation.max_sequences=4"]))
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    source = Path(json.loads((shards / "train" / "manifest.json").read_text())["source"])
    assert source.is_dir()
    counts = json.loads((source / "corpus.json").read_text())["counts"]["documents"]
    cleanings = [one["cleaning"] for one in data["sets"]]
    assert cleanings[0] == cleanings[1] and len(cleanings) == 2
    assert cleanings[0]["read"] == counts["read"] and cleanings[0]["kept"] == counts["kept"]
    page = render_report(tmp_path / "run")
    assert page.count("<dt>documents read</dt>") == 1
    assert facts(page, f"cleaning: {html.escape(str(source))}")["documents read"] == f"{counts['read']:,}"


def test_a_fine_tuned_run_has_its_rows(shards, tmp_path):
    path = write_task(tmp_path / "task")
    options = task_settings(shards, path, tmp_path / "run")
    train(with_steps(load_recipe("finetune", [*options, "task.epochs=1"])))
    run = tmp_path / "run"
    rows = [line.split("\t")[1] for line in (tmp_path / "task" / "dev.tsv").read_text().splitlines()[1:]]
    share = max(rows.count(label) for label in set(rows)) / len(rows)
    page = render_report(run)
    assert "made, train: 90 rows" in glance(page)["Trained on"]
    assert f"made, held-out: {len(rows)} rows" in glance(page)["Trained on"]
    assert f"the most frequent label for all: {share:#.4g}" in text_of(page)
    plain = {"fingerprint": "f", "sets": [{"role": "task", "path": "task", "name": "made"}]}  # as older runs have it
    (run / "data.json").write_text(json.dumps(plain))
    assert "made, train: 90 rows" in glance(render_report(run))["Trained on"]


def test_the_order_of_the_page_and_its_links(tmp_path):
    run = make_run(tmp_path / "a", settings=("model.dropout=0.25",))
    (run / "env.json").write_text(json.dumps({"command": ["/usr/bin/kogpt2", "train", "a b"], "written": "x+0900"}))
    (run / "samples").mkdir()
    (run / "samples" / "step-00048500.txt").write_text(
        "step 48500\n\n> 오늘은\n날씨\n\n> today\nrain\n", encoding="utf-8"
    )
    text = render_report(run)
    page = Page(text)
    order = [place for place in page.places if not place.startswith("frame")]
    assert order == ["curves", "changes", "data", "evaluations", "samples", "logbook", "environment", "recipe", "words"]
    assert [reference[1:] for reference in page.references][: len(order)] == order
    assert "model.dropout is 0.25, not 0.0" in glance(text)["Changed"]
    assert "kogpt2 train &#x27;a b&#x27;</pre>" in part(text, "changes") and "/usr/bin" not in text
    assert "<h2>Samples at step 48,500</h2>" in text and "UTC+09:00" in part(text, "logbook")
    assert '<dt lang="ko">오늘은</dt><dd lang="ko">날씨</dd><dt>today</dt><dd>rain</dd>' in text
    recipe = part(text, "recipe")
    assert (
        "<details>" in recipe and "dropout: 0.25" in recipe and "\ntask:" not in recipe and "adaptation:" not in recipe
    )
    assert all('aria-label="' in tag for tag in re.findall("<pre[^>]*>", text))


def test_words_on_the_page_are_explained_and_others_are_not(tmp_path):
    run = make_run(tmp_path / "a")
    words = part(render_report(run), "words")
    assert "<dt>perplexity</dt>" in words and "<dt>spike</dt>" in words and "oneDNN" not in words
    with (run / "log.txt").open("a") as file:
        file.write("2026-11-30 00:00:40 matrix products in float32: 432 GFLOP/s measured, 12 by oneDNN, 3 by packed\n")
    assert "<dt>oneDNN, packed</dt>" in part(render_report(run), "words")


def test_values_have_units(tmp_path):
    page = render_report(make_run(tmp_path / "a"))
    plot = page.partition("<figcaption>Waiting for data")[2].partition("</figure>")[0]
    assert ">1.00%</text>" in plot and ">0.0100</text>" not in plot
    speed = page.partition("<figcaption>Speed")[2].partition("</figure>")[0]
    assert ">200/s</text>" in speed and ">smoothed</text>" in speed and "mean</text>" not in page
