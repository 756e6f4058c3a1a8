"""The line on what went wrong in a run: its counts are those of the log, and zeros are said too."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.logbook import add_note, read_logbook
from kogpt2_gluon.runs.report import render_report
from kogpt2_gluon.runs.report_health import health_of, in_a_line, spike_in
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.spikes import remember, spike_of
from tests.runs.report_helpers import Page, make_run

START = "demo: 1,000 parameters; 1 worker(s) on cpu(0); 64 tokens a step; 60 steps"
LOG_SPIKES = {"training": {"on_spike": "log", "clip_norm": 1.0, "spike_sigmas": 6.0, "spike_window": 128}}


def glance(page: str) -> dict[str, str]:
    """The answers at the top of a page, by their questions."""
    rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.partition('<dl class="glance">')[2].partition("</dl>")[0])
    return {re.sub("<.*?>", "", question): html.unescape(answer) for question, answer in rows}


def write_log(run_dir: Path, lines: list[str]) -> None:
    text = "".join(f"2026-11-30 00:{n // 60 % 60:02}:{n % 60:02} {line}\n" for n, line in enumerate(lines))
    (run_dir / "log.txt").write_text(text, encoding="utf-8")


figures = st.tuples(st.floats(1e-3, 1e4), st.floats(1e-3, 1e4))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(st.lists(figures, min_size=8, max_size=12), st.integers(0, 1), st.floats(3, 1e6), st.sampled_from("msr"))
def test_the_words_of_training_are_understood(recent, which, times, done):
    """Whatever training/spikes.py says is read back: the figure, how large, how far above, and what was done."""
    kept: list[list[float]] = []
    for each in recent:
        remember(kept, each, 8, 6.0)
    odd = [sum(each[k] for each in kept) / len(kept) for k in (0, 1)]
    odd[which] = times * max(each[which] for each in kept) * 10
    why = spike_of(odd, kept, 8, 1.0)
    if why is None:
        return
    text = {
        "m": f"step 470: {why}; sequences 1 to 8 of the reading order",
        "s": f"update 470 skipped, 3 so far: {why}; sequences 1 to 8 of the reading order",
        "r": f"ended: rolled back from update 470: {why}; update 470 is left out from here on; sequences 1 to 8",
    }[done]
    spike = spike_in(text)
    assert spike is not None
    figure = why.partition(" is ")[0].rpartition(" ")
    assert (spike.figure, spike.value) == (figure[0], figure[2])
    assert spike.deviations == float(re.search(r"is ([\d.]+) deviations", why)[1])
    assert spike.done == {"m": "made", "s": "skipped", "r": "rolled back"}[done] and "sequences 1 to 8" in spike.place
    assert spike.step == {"m": 470, "s": 468, "r": 470}[done]


EVENTS = {  # what a log may have, and what it counts as
    "spike": "step {n}: gradient norm 1.43 is 7.1 deviations above the mean of the last 128, 0.9 (+-0.074); here",
    "loss spike": "step {n}: loss 9.1 is 7.1 deviations above the mean of the last 128, 3.1 (+-0.074); sequences 8",
    "skipped": "update {n} skipped, 1 so far: loss nan, gradient norm nan",
    "overflow": "update {n} skipped, 1 so far: its gradients overflow float16; loss scale 2 -> 1",
    "rollback": f"ended: rolled back from update {{n}}: loss nan; update {{n}} is left out from here on\n{START}",
    "damaged": "train-00000.ktok: chunk {n} at byte 64 is damaged; a neighbour is read in its place (1 skipped so far)",
    "warning": "WARNING: mirror s3://b: cannot be reached",
    "note": "note by kim@host: step 3: gradient norm 9 is 7.1 deviations above the mean of the last 128, 1 (+-0.1)",
    "killed": f"{START}\ngoing on from run/checkpoints/step-00000020",
    "stopped": f"ended: stopped at step 20\n{START}\ngoing on from run/checkpoints/step-00000020",
    "other": "saved step 20",
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(list(EVENTS)), max_size=30))
def test_the_counts_are_those_of_the_log(tmp_path, names):
    texts = [EVENTS[name].format(n=number) for number, name in enumerate(names, 30)]
    lines = [START]
    for text in texts:  # a message's further lines have no time, but a start that follows an end has its own
        first, _, rest = text.partition("\n")
        lines += [first, rest] if rest.startswith(START) else [text]
    write_log(tmp_path, [*lines, "ended: done"])
    health = health_of(read_logbook(tmp_path))
    count = {name: names.count(name) for name in EVENTS}
    assert len(health.spikes) == count["spike"] + count["loss spike"] and health.again == 0
    assert health.skipped == count["skipped"] + count["overflow"] and health.overflows == count["overflow"]
    assert health.rollbacks == count["rollback"] and health.damaged == count["damaged"]
    assert health.warnings == count["warning"] and health.end == "done"
    assert len(health.restarts) == count["killed"] + count["stopped"] and health.from_nothing == 0
    line = in_a_line(health, LOG_SPIKES, 1000)
    said = [
        int(number.replace(",", "")) for number in re.findall(r"(?:^|, )([\d,]+) [a-z]", re.sub(r"\(.*?\)", "", line))
    ]
    expected = [len(health.restarts), health.skipped, len(health.spikes)]
    expected += [health.rollbacks] * bool(health.rollbacks) + [health.damaged, health.warnings]
    assert said == expected, line


def test_a_start_without_a_checkpoint_begins_the_counts_again(tmp_path):
    spike = EVENTS["spike"].format(n=5)
    write_log(tmp_path, [START, spike, spike.replace("step 5", "step 6"), START, spike])
    health = health_of(read_logbook(tmp_path))
    assert (len(health.restarts), health.from_nothing, len(health.spikes), health.end) == (1, 1, 1, "")
    resumed = [START, spike, f"{START}\ngoing on from x", spike]
    write_log(tmp_path, resumed)
    health = health_of(read_logbook(tmp_path))
    assert (len(health.restarts), health.from_nothing, len(health.spikes), health.again) == (1, 0, 2, 1)
    assert "1 of them met again after a restart" in in_a_line(health, LOG_SPIKES, 100)


def test_a_page_without_events_says_zeros_and_one_without_a_log_that_it_is_not_known(tmp_path):
    run = make_run(tmp_path / "a")
    answer = glance(render_report(run))["What went wrong"]
    assert answer == "0 restarts, 0 updates skipped, 0 spikes, 0 damaged chunks, 0 warnings"
    recipe = (run / "recipe.yaml").read_text().replace("on_spike: log", "on_spike: 'off'")
    (run / "recipe.yaml").write_text(recipe)
    assert "spikes are not looked for (training.on_spike=off)" in glance(render_report(run))["What went wrong"]
    (run / "log.txt").unlink()
    page = render_report(run)
    assert glance(page)["What went wrong"].startswith("not known: there is no log.txt")
    assert "nothing is known of restarts" in page


@pytest.mark.parametrize("action", ["log", "skip"])
def test_the_spikes_of_a_training_are_on_its_page(tiny, tmp_path, action):
    """The page has as many as the log; it says what was done, marks them at the norm, and folds them in their place."""
    often = [
        "training.spike_window=4",
        "training.spike_sigmas=1",
        f"training.on_spike={action}",
        "training.num_steps=24",
    ]
    train(load_recipe("debug_cpu", [*tiny, *often]))
    run_dir = tmp_path / "run"
    add_note(run_dir, "after all", "kim@host")
    logged = [line for line in (run_dir / "log.txt").read_text().splitlines() if "deviations above the mean" in line]
    assert len(logged) > 3
    page = render_report(run_dir)
    answer = glance(page)["What went wrong"]
    counted = re.search(r"([\d,]+) (?:gradient |loss )?spikes? \(", answer)
    assert counted and int(counted[1]) == len(logged), (answer, logged)
    skipped = len(logged) if action == "skip" else 0
    assert f"{skipped} updates skipped" in answer
    assert (f"{skipped} skipped" in answer.partition("spike")[2]) if skipped else ("none skipped" in answer)
    assert f"training.on_spike={action}: the update is" in html.unescape(page)
    assert page.count('<path class="spike"') == 2  # the plot is there for wide and for narrow windows
    kept, known = page.partition('<section id="logbook"')[2], sum("gradient norm" in line for line in logged)
    if known > 3:
        assert f"{known} spikes of the gradient norm" in kept
    assert kept.index(" spikes of the ") < kept.index("after all")
    Page(page)


def test_many_events_of_a_kind_are_folded_in_their_place(tmp_path):
    run = make_run(tmp_path / "a")
    spikes = [EVENTS["spike"].format(n=n).replace("7.1", f"{7 + n / 10:.1f}") for n in range(1, 1501)]
    write_log(run, [START, *spikes, "WARNING: disk nearly full", EVENTS["spike"].format(n=1600), "ended: done"])
    page = render_report(run)
    kept = html.unescape(page.partition('<section id="logbook"')[2].partition("</section>")[0])
    above = "furthest above the mean of its time, by 157 standard deviations: 1.43 at step 1,500"
    summary = f"1,500 spikes of the gradient norm, step 1 to step 1,500; {above}"
    assert summary in kept
    assert kept.index(summary) < kept.index("disk nearly full") < kept.index("step 1600: gradient norm")
    assert kept.count("<tr>") <= 201 and "log.txt has all" in kept
