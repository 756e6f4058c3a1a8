"""The page of `kogpt2 serve` in a real browser: all that a person does with it, by keyboard, pointer and finger."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service needs it")
pytest.importorskip("playwright", reason="drives the browser")
pytest.importorskip("axe_playwright_python", reason="checks accessibility")

from benchmarks.browser import CHROMIUM
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.serving.page_helpers import POSITIONS, Served, serve
from tests.serving.page_tab import FIRST, PROMPT, SECOND, expect

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Debian's chromium-headless-shell is one")

TOKEN = "a-token-of-the-tests"
LOOKS = [(390, "dark"), (1280, "light")]  # check_access() sees each width in both
LINE = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}  # bytes a second; -1: any


def percent(log_probability: float) -> float:
    return 100 * math.exp(log_probability)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_text_is_written_and_rewritten_by_keyboard(page_service: Served, tab: Any, width: int, scheme: str) -> None:
    window = tab(page_service, width, scheme).open()
    page, keyboard = window.page, window.page.keyboard
    window.tab_to("#prompt")
    keyboard.insert_text(PROMPT)
    window.set({"Seed": 3, "Most new tokens": 12})
    page.locator("#prompt").focus()
    window.tab_to("#write")
    keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("12 tokens, as many as asked for.")
    expected = page_service.post(prompt=PROMPT, seed=3, max_new_tokens=12, alternatives=8)["texts"][0]
    assert window.text() == [token["text"] for token in expected["tokens"]]
    assert page.locator(FIRST + ".text").inner_text().replace("·", "") == PROMPT + expected["text"]

    # To the tokens, along them, and down to what could be there instead.
    window.tab_to(".token")
    keyboard.press("ArrowRight")
    keyboard.press("ArrowRight")
    panel = page.locator(FIRST + ".alternatives")
    expect(panel).to_be_visible()
    shown = [float(each.rstrip("%")) for each in panel.locator(".percent").all_text_contents()]
    token = expected["tokens"][2]
    assert shown[:8] == [pytest.approx(percent(each[1]), abs=0.06) for each in token["alternatives"]]
    assert f"{percent(token['log_probability']):.1f}" in panel.locator(".chosen").inner_text()
    box, inside = panel.bounding_box(), page.viewport_size["width"]
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= inside
    window.check_access()

    place = next(place for place, each in enumerate(token["alternatives"]) if each[2] != token["id"])
    for _ in range(1 + place):
        keyboard.press("ArrowDown")
    keyboard.press("Enter")
    window.wait()
    kept = [*[each["id"] for each in expected["tokens"][:2]], token["alternatives"][place][2]]
    seed = int(page.locator(FIRST + ".seed input[type=number]").input_value())
    after = page_service.post(prompt=PROMPT, written=kept, seed=seed, max_new_tokens=12)
    assert "".join(window.text()) == after["text"] + after["texts"][0]["text"]

    page.locator("#stop").focus()
    window.tab_to("#undo")
    keyboard.press("Enter")
    assert window.text() == [each["text"] for each in expected["tokens"]]
    window.check()


def test_a_text_that_is_stopped_stays_and_goes_on(page_service: Served, tab: Any) -> None:
    window = tab(page_service).open()
    page = window.page
    window.set({"Most new tokens": POSITIONS - 20, "Seed": 1})
    page.fill("#prompt", PROMPT)
    line = page.context.new_cdp_session(page)
    # A slow line: on a busy machine the whole text may else be there before a key is pressed.
    line.send("Network.emulateNetworkConditions", {**LINE, "downloadThroughput": 10_000})
    page.keyboard.press("Control+Enter")
    expect(page.locator(".token").nth(2)).to_be_visible()
    mark = "getComputedStyle(document.querySelector('.tokens'), '::after').animationName"
    assert page.evaluate(mark) == "blink"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(mark) == "none"
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    line.send("Network.emulateNetworkConditions", LINE)
    before = window.text()
    assert 3 <= len(before) < POSITIONS - 20
    expected = page_service.post(prompt=PROMPT, seed=1, max_new_tokens=len(before))["texts"][0]["tokens"]
    assert before == [token["text"] for token in expected]

    window.set({"Most new tokens": 3})
    page.click("text=Continue")
    window.wait()
    written = [token["id"] for token in expected]
    after = page_service.post(prompt=PROMPT, seed=1, max_new_tokens=3, written=written)["texts"][0]
    assert window.text() == [*before, *[token["text"] for token in after["tokens"]]]
    window.check()


def test_a_pointer_and_a_finger_open_the_alternatives(page_service: Served, tab: Any) -> None:
    window = tab(page_service, 390, "light", has_touch=True).open()
    window.set({"Seed": 3, "Most new tokens": 12})
    window.page.fill("#prompt", PROMPT)
    window.write()
    panel = window.page.locator(FIRST + ".alternatives")
    names = window.page.locator(".token").evaluate_all("all => all.map((each) => each.getAttribute('aria-label'))")
    window.page.locator(".token").nth(4).hover()
    expect(panel).to_be_visible()
    assert names[4].endswith(panel.locator(".chosen span").inner_text())
    panel.locator("button").first.hover()  # it stays while the pointer is in it
    window.page.wait_for_timeout(400)
    expect(panel).to_be_visible()
    window.page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    window.page.locator("h1").hover()
    window.page.locator(".token").nth(5).tap()
    expect(panel).to_be_visible()
    window.page.locator("h1").hover()
    window.page.wait_for_timeout(400)
    expect(panel).to_be_visible()  # a finger has no place to stay at
    panel.locator("button:not([aria-current])").first.tap()
    expect(panel).to_be_hidden()
    window.wait()
    assert window.page.locator(".token").nth(5).get_attribute("aria-label") != names[5]
    window.check()


def test_two_settings_and_two_checkpoints_are_compared(page_service: Served, tab: Any) -> None:
    window = tab(page_service).open()
    page = window.page
    window.set({"Seed": 5, "Most new tokens": 20})
    page.click("#compare")
    page.select_option(SECOND + ".checkpoint", "a")
    window.set({"Temperature": 0, "Seed": 5, "Most new tokens": 20}, SECOND)
    page.fill("#prompt", PROMPT)
    window.write()
    for column, model, temperature in ((FIRST, "a", 1), (SECOND, "a", 0)):
        text = page_service.post(prompt=PROMPT, model=model, seed=5, max_new_tokens=20, temperature=temperature)[
            "texts"
        ][0]
        assert "".join(window.text(column)) == text["text"]
    assert window.text(FIRST) != window.text(SECOND)

    page.select_option(SECOND + ".checkpoint", "b")
    window.write()
    text = page_service.post(prompt=PROMPT, model="b", seed=5, max_new_tokens=20, temperature=0)["texts"][0]["text"]
    assert "".join(window.text(SECOND)) == text
    for width, beside, below in ((1280, True, False), (390, False, True)):
        page.set_viewport_size({"width": width, "height": 844})
        one, other = page.locator(FIRST + "h2").bounding_box(), page.locator(SECOND + "h2").bounding_box()
        assert (one["y"] == other["y"], one["x"] == other["x"]) == (beside, below)
        window.check()
    window.check_access(("dark",))
    page.click("#compare")
    assert page.locator(".column").count() == 1


def test_values_out_of_bounds_are_not_sent(page_service: Served, tab: Any) -> None:
    window = tab(page_service, 390).open()
    window.set({"Top-p": 3})
    window.page.locator(FIRST + "summary").click()
    sent = len(window.requests)
    window.page.locator("#prompt").press("Control+Enter")
    field = window.page.get_by_label("Top-p, as a number")
    expect(field).to_be_focused()
    assert len(window.requests) == sent
    window.set({"Top-p": 0})  # in the browser's eyes it is good
    window.page.locator("#prompt").press("Control+Enter")
    trouble = window.page.locator(FIRST + ".trouble")
    expect(trouble).to_contain_text("op_p")
    window.page.fill("#prompt", "오늘 날씨는\n" * POSITIONS)
    window.set({"Top-p": 1})
    window.page.locator("#prompt").press("Control+Enter")
    expect(trouble).to_contain_text(f"the network's {POSITIONS} positions")
    expect(trouble).to_be_in_viewport()
    expect(window.page.get_by_role("status")).to_have_text("Nothing written.")
    window.faults.clear()  # the browser reports each answer of 400 and more
    window.check()


def test_parts_of_characters_and_the_end_are_tokens(
    page_service: Served, page_networks: tuple[Path, Path], tab: Any
) -> None:
    tokenizer = Tokenizer.load(page_networks[1] / "tokenizer.model")
    asked = {"prompt": PROMPT, "model": "b", "max_new_tokens": 40, "alternatives": 8}

    def is_part(spelling: str) -> bool:
        return spelling.startswith("bytes:")

    def choices(tokens: list[dict[str, Any]], is_wanted: Callable[[str, int], bool]) -> Iterator[tuple[int, int, int]]:
        """(place, number of the alternative, its id) of alternatives that another token was chosen over."""
        for place, token in enumerate(tokens):
            for number, (spelling, _, each) in enumerate(token["alternatives"]):
                if each != token["id"] and is_wanted(spelling, each):
                    yield place, number, each

    seed, tokens, to_part, to_end = next(
        (seed, text["tokens"], to_part, to_end)
        for seed in range(60)
        if (text := page_service.post(**asked, seed=seed)["texts"][0])["finish_reason"] == "stop"
        and any(is_part(token["spelling"]) for token in text["tokens"])
        and (to_part := next(choices(text["tokens"], lambda spelling, _: is_part(spelling)), None))
        and (to_end := next(choices(text["tokens"], lambda _, each: each == tokenizer.eos_id), None))
    )
    window = tab(page_service).open()
    page = window.page
    page.select_option(FIRST + ".checkpoint", "b")
    window.set({"Seed": seed, "Most new tokens": 40})
    page.fill("#prompt", PROMPT)
    window.write()
    expect(page.get_by_role("status")).to_contain_text("ended by itself")
    labels = page.locator(".token").evaluate_all("all => all.map((each) => each.getAttribute('aria-label'))")
    assert labels[-1].startswith("end of the text")
    for token, label in zip(tokens, labels):
        assert label.startswith("part of a character (") is is_part(token["spelling"])
    expect(page.locator(FIRST + "[data-do=continue]")).to_have_attribute("aria-disabled", "true")

    # The end as the alternative: the text ends there, and nothing is asked for.
    place, number, _ = to_end
    sent = len(window.requests)
    page.locator(".token").nth(place).click()
    page.locator(FIRST + ".alternatives button").nth(number).click()
    assert page.locator(".token").count() == place + 1
    assert page.locator(FIRST + ".outcome").inner_text() == "ended by you"
    assert len(window.requests) == sent
    page.click("#undo")
    assert page.locator(".token").count() == len(tokens)

    # A part as the alternative: what follows is decoded together with it.
    place, number, part = to_part
    page.locator(".token").nth(place).click()
    page.locator(FIRST + ".alternatives button").nth(number).click()
    window.wait()
    drawn = int(page.locator(FIRST + ".seed input[type=number]").input_value())
    kept = [*[token["id"] for token in tokens[:place]], part]
    after = page_service.post(**asked, written=kept, seed=drawn)["texts"][0]["tokens"]
    ids = [token["id"] for token in after if token["id"] != tokenizer.eos_id]
    whole = tokenizer.decode([*tokenizer.encode(PROMPT), *kept, *ids])
    assert "".join(window.text()) == whole[len(tokenizer.decode(tokenizer.encode(PROMPT))) :]
    window.check()


def test_a_service_that_refuses_is_busy_or_goes_away(page_networks: tuple[Path, Path], tab: Any) -> None:
    slow = ("--ops", "stock")  # else a text is done before the others have asked
    with serve(page_networks[0], "--slots", 1, "--queue", 0, *slow, token=TOKEN) as service:
        writing, refused = tab(service), tab(service, 390, "dark")
        for window in (writing, refused):
            page = window.page
            page.goto(service.url)
            for token in ("wrong-token-of-the-tests", TOKEN):
                expect(page.get_by_label("The service asks for its token")).to_be_focused()
                expect(page.locator("#trouble")).to_contain_text("token")
                page.keyboard.insert_text(token)
                page.keyboard.press("Enter")
            expect(page.locator(".column")).to_be_visible()
            expect(page.locator("#trouble")).to_be_empty()
            page.fill("#prompt", PROMPT)
            window.set({"Most new tokens": 5, "Seed": 2})
            window.write()
            assert len(window.text()) == 5
        page.click("text=Copy as curl")
        assert TOKEN not in page.locator(".command pre").inner_text()
        assert "$KOGPT2_TOKEN" in page.locator(".command pre").inner_text()

        # One of them takes the only place, for long. The other says so, and keeps its text.
        writing.set({"Most new tokens": POSITIONS - 20})
        writing.page.click("#write")
        expect(writing.page.locator(".token").nth(5)).to_be_visible()
        before, trouble = refused.text(), page.locator(FIRST + ".trouble")
        refused.write()
        expect(trouble).to_contain_text(re.compile(r"The service is busy: .*\. Try again in \d+ seconds?\."))
        service.process.send_signal(signal.SIGTERM)  # what has begun goes on, nothing else begins
        expect(trouble).to_contain_text("busy")
        while "busy" in trouble.inner_text():
            refused.write()
        expect(trouble).to_contain_text("The service takes no new texts: the service is stopping.")

        service.process.kill()
        expect(writing.page.locator(FIRST + ".trouble")).to_contain_text("broke off in the middle of the text")
        writing.wait()
        broken = writing.text()
        assert len(broken) > 5
        for window in (writing, refused):
            window.write()
            expect(window.page.locator(FIRST + ".trouble")).to_contain_text("The service does not answer.")
        assert writing.text() == broken
        assert refused.text() == before
    assert all("Failed to load resource" in fault for fault in writing.faults + refused.faults)


def test_a_service_that_is_gone_when_the_page_begins(page_service: Served, tab: Any) -> None:
    """The page can be used once it is there, as after a restart of the service."""
    window = tab(page_service)
    window.page.route("**/about", lambda route: route.abort())
    window.page.goto(page_service.url)
    expect(window.page.locator("#trouble")).to_contain_text("The service does not answer.")
    window.page.unroute("**/about")
    window.page.fill("#prompt", PROMPT)
    window.page.click("#write")
    expect(window.page.locator(".token").first).to_be_visible()
    expect(window.page.locator("#trouble")).to_be_empty()
    assert window.page.locator("#prompt").input_value() == PROMPT


def test_another_service_at_the_address_is_noticed(page_service: Served, tab: Any) -> None:
    """After a restart with another checkpoint, ids and paths mean something else."""

    def answer(route: Any) -> None:
        about = route.fetch()
        models = [{**model, "name": "other/step-00000001"} for model in about.json()["models"]]
        route.fulfill(response=about, json={**about.json(), "models": models})

    window = tab(page_service).open()
    window.set({"Seed": 3, "Most new tokens": 5})
    window.page.fill("#prompt", PROMPT)
    window.write()
    before = window.text()
    window.page.route("**/about", answer)
    window.write()
    expect(window.page.locator(FIRST + ".trouble")).to_contain_text("Reload the page")
    assert len(before) == 5
    assert window.text() == before
    window.check()
