"""The pages in Chromium: phone and desktop, light and dark, by keyboard, and by axe-core's rules for accessibility."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="looks at pages in a browser")
pytest.importorskip("axe_playwright_python", reason="checks accessibility")

from axe_playwright_python.sync_playwright import Axe

from benchmarks.browser import CHROMIUM
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.comparison import write_comparison
from kogpt2_gluon.runs.logbook import add_note
from kogpt2_gluon.runs.report import write_report
from kogpt2_gluon.runs.run_folder import open_run
from kogpt2_gluon.search.page import write_page
from kogpt2_gluon.search.searching import search
from kogpt2_gluon.search.space import read_space
from kogpt2_gluon.search.study import Plan, Study
from tests.runs.report_helpers import make_run, make_task_run
from tests.search.conftest import PLANTED
from tests.serving.conftest import browser

__all__ = ["browser"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SIZES = [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]
PAGES = ("report", "comparison", "mixed", "search")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of the pages, with something in every section of them."""
    work = tmp_path_factory.mktemp("pages")
    runs = [
        make_run(work / f"run-{n}", steps, 2 + n / 50, (f"training.learning_rate={1e-3 * (n + 1)}",))
        for n, steps in enumerate((200, 200, 60))
    ]
    tasks = [make_task_run(work / f"of-films-{n}", "nsmc", "accuracy", 0.5, 0.8 + n / 50) for n in range(2)]
    (runs[0] / "samples").mkdir()
    for step in (20, 40, 60):
        (runs[0] / "samples" / f"step-{step:08}.txt").write_text(f"step {step}\n\n> 오늘은\n오늘은 날씨가 맑다.\n")
    with (runs[0] / "log.txt").open("a") as file:
        for step in range(8):
            file.write(f"2026-11-30 00:01:{step:02} step {step}: gradient norm {step}.5 is high\n")
        file.write("2026-11-30 00:02:00 demo: 1,000 parameters; 2 worker(s) on cpu(0)\n")
        file.write("2026-11-30 00:02:01 WARNING: a chunk is damaged\n")
        for step in range(10, 40):
            spike = f"gradient norm {step}.5 is 7.{step} deviations above the mean of the last 128, 1.1 (+-0.02)"
            file.write(f"2026-11-30 00:02:{step} step {step}: {spike}; sequences 1 to 8 of the reading order\n")
    add_note(runs[0], "the disk was changed", "kim@host")
    cleaning = {"corpus": "corpus", "read": 5, "dropped": {"empty": 2}, "kept": {"train": 3}}
    data = {"role": "train", "path": "shards/train", "documents": 3, "cleaning": cleaning}
    (runs[0] / "data.json").write_text(json.dumps({"fingerprint": "f00", "sets": [data]}))
    (runs[0] / "env.json").write_text('{"command": ["kogpt2"], "host": {"name": "h", "gpus": []}}')
    recipe = load_recipe("demo", ["data.test=x", "training.num_steps=90", "training.final_learning_rate=0"])
    (work / "space.yaml").write_text(
        "training.learning_rate: [1e-4, 1e-3, 1e-2]\ntraining.schedule: [linear, cosine]\n"
    )
    plan = Plan(recipe, read_space(work / "space.yaml", recipe), "asha", 3, 10, "tpe", 0, False, 5)
    study = Study(work / "study", plan)
    trials = search(study, 2, PLANTED, lambda line: None)
    return {
        "report": write_report(runs[0]),
        "comparison": write_comparison([open_run(run) for run in runs], work / "comparison.html", [1.0] * 3),
        "mixed": write_comparison([open_run(run) for run in (*runs[1:], *tasks)], work / "mixed.html"),
        "search": write_page(study, trials),
    }


@pytest.fixture
def show(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Opens a page by its name; in the end nothing was asked of anybody, and nothing failed."""
    contexts, requests, faults = [], [], []

    def opened(name: str, width: int = 1280, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(pages[name].as_uri())
        return page

    yield opened
    assert faults == [] and all(url.startswith("file:") for url in requests) and len(requests) == len(contexts)
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_out_of_the_window_and_nobody_is_shut_out(show: Any, name: str, width: int, scheme: str) -> None:
    page = show(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_axis_is_chosen_by_keyboard(show: Any) -> None:
    page = show("comparison")
    assert page.locator("#panel-0").is_visible() and not page.locator("#panel-1").is_visible()
    for _ in range(2):  # past the table
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "axis-0"
    assert page.evaluate("getComputedStyle(document.querySelector('#axis-0 + label')).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-1").is_visible() and not page.locator("#panel-0").is_visible()
    page.get_by_text("by cost", exact=True).click()
    assert page.locator("#panel-3").is_visible()


def test_what_is_folded_opens_by_keyboard(show: Any) -> None:
    page = show("report")
    assert page.locator("details").count() == 5  # two earlier samples, events of one kind, spikes, and the recipe
    for number, text in ((2, "step 7: gradient norm"), (3, "step 39")):
        assert not page.get_by_text(text, exact=number == 3).is_visible()
        page.locator("summary").nth(number).focus()
        page.keyboard.press("Enter")
        assert page.get_by_text(text, exact=number == 3).is_visible()
    spikes = page.get_by_label("Spikes of the gradient norm")
    assert spikes.locator("tbody tr").count() == 30 and spikes.bounding_box()["height"] < 400


def test_the_head_answers_in_the_first_window(show: Any) -> None:
    page = show("report")
    for question in ("Did it learn?", "How fast?", "Trained on", "Changed", "What went wrong"):
        answer = page.get_by_role("link", name=question).bounding_box()
        assert answer["y"] + answer["height"] < 900, question
    page.get_by_role("link", name="What went wrong").click()
    assert page.get_by_role("heading", name="Logbook").bounding_box()["y"] < 900


def test_on_a_phone_plots_fit_and_names_are_above_values(show: Any) -> None:
    page = show("report", 390)
    shown = page.locator("#curves svg:visible")
    assert shown.count() == page.locator("#curves figure:has(svg)").count() > 0
    for box in (shown.nth(number).bounding_box() for number in range(shown.count())):
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] > 200
    size = page.evaluate("() => document.querySelector('svg.narrow text.tick').getBoundingClientRect().height")
    assert size >= 11  # a viewBox that shrinks would shrink its letters
    rows = page.locator(".logbook > tbody > tr")
    date, text = (rows.first.locator("td").nth(place).bounding_box() for place in (0, 2))
    assert date["y"] + date["height"] <= text["y"] + 2 and text["width"] > 300
    name, value = page.locator(".facts dt").first.bounding_box(), page.locator(".facts dd").first.bounding_box()
    assert name["y"] + name["height"] <= value["y"] + 1
    wide = show("report", 1280)
    assert wide.locator("svg.narrow:visible").count() == 0


def test_labels_at_the_right_end_do_not_overlap_ticks(show: Any) -> None:
    """Nor each other, in any plot of any page that is shown."""
    for name in PAGES:
        boxes = show(name).evaluate(
            """() => [...document.querySelectorAll("svg")].map(svg => [...svg.querySelectorAll("text.end, text.tick")]
                .map(text => text.getBoundingClientRect()).filter(box => box.width)
                .map(box => [box.left, box.top, box.right, box.bottom]))"""
        )
        for plot in boxes:
            for number, (left, top, right, bottom) in enumerate(plot):
                for other in plot[number + 1 :]:
                    apart = right <= other[0] or other[2] <= left or bottom <= other[1] + 2 or other[3] <= top + 2
                    assert apart, (name, (left, top, right, bottom), other)


def test_on_a_phone_plots_are_drawn_for_it_and_names_stay_in_sight(show: Any) -> None:
    page = show("comparison", 390)
    assert page.locator("#panel-0 svg.narrow").first.is_visible()
    assert not page.locator("#panel-0 svg.broad").first.is_visible()
    size = page.evaluate("document.querySelector('#panel-0 svg.narrow').getBoundingClientRect().width / 354")
    assert size == pytest.approx(1, abs=0.05), "its letters are not made smaller"
    box = page.get_by_role("region", name="Results")
    name = box.locator("tbody th[scope=row]").first
    before = name.bounding_box()["x"]
    box.evaluate("box => box.scrollTo(1000, 0)")
    assert box.evaluate("box => box.scrollLeft") > 0 and name.bounding_box()["x"] == before
    wide = show("comparison", 1280)
    assert wide.locator("#panel-0 svg.broad").first.is_visible()
    assert not wide.locator("#panel-0 svg.narrow").first.is_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_labels_are_in_the_picture_and_next_to_the_ends_of_their_lines(show: Any, width: int) -> None:
    page = show("comparison", width)
    plots = page.evaluate(
        """() => [...document.querySelectorAll("#panel-0 svg[role=img]")].filter(svg => svg.clientWidth).map(svg => ({
            right: svg.getBoundingClientRect().right,
            labels: [...svg.querySelectorAll("text.end:not(.name)")].map(text => ({
                run: text.getAttribute("class").match(/r[0-9]/)[0], left: text.getBoundingClientRect().left})),
            rights: [...svg.querySelectorAll("text.end")].map(text => text.getBoundingClientRect().right),
            ends: Object.fromEntries([...svg.querySelectorAll("path.run")].map(path => {
                const at = path.getPointAtLength(path.getTotalLength()).matrixTransform(path.getScreenCTM());
                return [path.getAttribute("class").match(/r[0-9]/)[0], at.x]}))}))"""
    )
    assert len(plots) == 2
    for plot in plots:
        assert len(plot["labels"]) == 3 and max(plot["rights"]) <= plot["right"] + 1
        for label in plot["labels"]:
            assert 0 < label["left"] - plot["ends"][label["run"]] < 20
        early, late = plot["ends"]["r2"], plot["ends"]["r0"]
        assert early < late - 50


def test_what_does_not_compare_is_said_first(show: Any) -> None:
    page = show("mixed")
    note = page.locator(".caveat")
    assert note.is_visible() and "accuracy of nsmc: of-films-0, of-films-1" in note.inner_text()
    results = page.get_by_role("region", name="Results")
    assert note.bounding_box()["y"] < results.bounding_box()["y"]
    assert page.locator(".differ").first.is_visible() and not page.get_by_text("tracking.sample_prompts").is_visible()
    page.locator("summary").last.focus()
    page.keyboard.press("Enter")
    assert page.get_by_text("tracking.sample_prompts").is_visible()
