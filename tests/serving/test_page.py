"""The page of `kogpt2 serve` in a real browser: all that a person does with it, by keyboard, pointer and finger."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="the service needs it")
sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="checks accessibility")

from kogpt2_gluon.tokens.tokenizer import Tokenizer  # noqa: E402
from tests.serving.page_helpers import CHROMIUM, POSITIONS, Served, make_network, serve  # noqa: E402

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Debian's chromium-headless-shell is one")

expect = sync_api.expect
PROMPT = "오늘 날씨는"
TOKEN = "a-token-of-the-tests"
LOOKS = [(390, "dark"), (1280, "light")]  # check_access() sees each width in both
FIRST = ".column:nth-child(1) "
SECOND = ".column:nth-child(2) "


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that goes on writing, and one of bytes that soon ends."""
    folder = tmp_path_factory.mktemp("networks")
    return make_network(folder / "one", "nmt_nfkc"), make_network(folder / "other", "lossless", end_scale=3.0)


@pytest.fixture(scope="module")
def served(networks: tuple[Path, Path]) -> Iterator[Served]:
    with serve(networks[0], "--compare", networks[1]) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Tab:
    """A page in a window of its own, and what happened in it."""

    def __init__(self, browser: Any, url: str, width: int, scheme: str, **options: Any) -> None:
        height = 844 if width < 600 else 800
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-US", **options
        )
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.origin = url
        self.page.on("console", lambda line: self.faults.append(f"{line.type}: {line.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, fragment: str = "") -> Tab:
        self.page.goto(self.origin + fragment)
        expect(self.page.locator(".column").first).to_be_visible()
        return self

    def set(self, numbers: dict[str, float], column: str = FIRST) -> None:
        """Sets settings as a person does, by the names that they have."""
        if self.page.locator(column + ".settings").get_attribute("open") is None:
            self.page.locator(column + "summary").click()
        for name, value in numbers.items():
            label = name if name == "Seed" else f"{name}, as a number"
            self.page.locator(column).get_by_label(label, exact=True).fill(str(value))

    def text(self, column: str = FIRST) -> list[str]:
        """The texts of the new tokens."""
        return self.page.locator(column + ".token").all_text_contents()

    def write(self, key: str = "Control+Enter") -> None:
        self.page.locator("#prompt").press(key)
        self.wait()

    def wait(self) -> None:
        """Until nothing is being written."""
        expect(self.page.locator("#write")).to_have_attribute("aria-disabled", "false", timeout=60_000)

    def tab_to(self, selector: str) -> None:
        """Presses the Tab key until an element has the focus; all on the way must show that they have it."""
        for _ in range(80):
            self.page.keyboard.press("Tab")
            assert self.page.evaluate(VISIBLE_FOCUS), self.page.evaluate("document.activeElement.outerHTML")
            if self.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"the Tab key does not get to {selector}")

    def check(self) -> None:
        """Nothing is wider than the window, nothing was asked of another origin, nothing failed unseen."""
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.page.viewport_size["width"]
        assert {url.startswith(self.origin) for url in self.requests} == {True}
        assert self.faults == []

    def check_access(self) -> None:
        """Nobody is shut out, in the light or in the dark: names, roles, contrast and more, by axe-core's rules."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            self.page.wait_for_timeout(200)  # colours change slowly, and axe would measure one in between
            found = axe.Axe().run(self.page)
            assert found.violations_count == 0, found.generate_report()


VISIBLE_FOCUS = """() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
}"""


@pytest.fixture
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function that opens windows; they are closed after the test."""
    opened: list[Tab] = []

    def make(served: Served, width: int = 1280, scheme: str = "light", **options: Any) -> Tab:
        opened.append(Tab(browser, served.url, width, scheme, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.context.close()


def percent(log_probability: float) -> float:
    return 100 * math.exp(log_probability)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_text_is_written_and_rewritten_by_keyboard(served: Served, tab: Any, width: int, scheme: str) -> None:
    window = tab(served, width, scheme).open()
    page, keyboard = window.page, window.page.keyboard
    window.tab_to("#prompt")
    keyboard.insert_text(PROMPT)
    window.set({"Seed": 3, "Most new tokens": 12})
    page.locator("#prompt").focus()
    window.tab_to("#write")
    keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("12 tokens, as many as asked for.")
    expected = served.post(prompt=PROMPT, seed=3, max_new_tokens=12, alternatives=8)["texts"][0]
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
    after = served.post(prompt=PROMPT, written=kept, seed=seed, max_new_tokens=12)
    assert "".join(window.text()) == after["text"] + after["texts"][0]["text"]

    page.locator("#stop").focus()
    window.tab_to("#undo")
    keyboard.press("Enter")
    assert window.text() == [each["text"] for each in expected["tokens"]]
    window.check()


def test_a_text_that_is_stopped_stays_and_goes_on(served: Served, tab: Any) -> None:
    window = tab(served).open()
    page = window.page
    window.set({"Most new tokens": POSITIONS - 20, "Seed": 1})
    page.fill("#prompt", PROMPT)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".token").nth(2)).to_be_visible()
    mark = "getComputedStyle(document.querySelector('.tokens'), '::after').animationName"
    assert page.evaluate(mark) == "blink"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(mark) == "none"
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("stopped.")
    before = window.text()
    assert 3 <= len(before) < POSITIONS - 20
    expected = served.post(prompt=PROMPT, seed=1, max_new_tokens=len(before))["texts"][0]["tokens"]
    assert before == [token["text"] for token in expected]

    window.set({"Most new tokens": 3})
    page.click("text=Continue")
    window.wait()
    written = [token["id"] for token in expected]
    after = served.post(prompt=PROMPT, seed=1, max_new_tokens=3, written=written)["texts"][0]
    assert window.text() == [*before, *[token["text"] for token in after["tokens"]]]
    window.check()


def test_a_pointer_and_a_finger_open_the_alternatives(served: Served, tab: Any) -> None:
    window = tab(served, 390, "light", has_touch=True).open()
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


def test_two_settings_and_two_checkpoints_are_compared(served: Served, tab: Any) -> None:
    window = tab(served).open()
    page = window.page
    window.set({"Seed": 5, "Most new tokens": 20})
    page.click("#compare")
    page.select_option(SECOND + "select", "a")
    window.set({"Temperature": 0, "Seed": 5, "Most new tokens": 20}, SECOND)
    page.fill("#prompt", PROMPT)
    window.write()
    for column, model, temperature in ((FIRST, "a", 1), (SECOND, "a", 0)):
        text = served.post(prompt=PROMPT, model=model, seed=5, max_new_tokens=20, temperature=temperature)["texts"][0]
        assert "".join(window.text(column)) == text["text"]
    assert window.text(FIRST) != window.text(SECOND)

    page.select_option(SECOND + "select", "b")
    window.write()
    text = served.post(prompt=PROMPT, model="b", seed=5, max_new_tokens=20, temperature=0)["texts"][0]["text"]
    assert "".join(window.text(SECOND)) == text
    for width, beside, below in ((1280, True, False), (390, False, True)):
        page.set_viewport_size({"width": width, "height": 844})
        one, other = page.locator(FIRST + "h2").bounding_box(), page.locator(SECOND + "h2").bounding_box()
        assert (one["y"] == other["y"], one["x"] == other["x"]) == (beside, below)
        window.check()
    window.check_access()
    page.click("#compare")
    assert page.locator(".column").count() == 1


def test_an_input_method_keeps_its_keys(served: Served, tab: Any) -> None:
    """While a syllable is composed, nothing is sent. Ctrl+Enter sends when it is whole, so that none is cut off."""
    window = tab(served).open()
    page, prompt = window.page, window.page.locator("#prompt")
    window.set({"Seed": 1, "Most new tokens": 4})
    page.focus("#prompt")
    method = window.context.new_cdp_session(page)

    def compose(text: str) -> None:
        method.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})

    compose("하")
    compose("한")
    expect(prompt).to_have_value("한")
    sent = len(window.requests)
    page.keyboard.press("Enter")  # alone it never sends
    for key, code, is_composing, number in (  # Chrome's, Firefox's, Windows' and Safari's way to report it
        ("Enter", "Enter", True, 13),
        ("Enter", "Enter", True, 229),
        ("Process", "Enter", True, 229),
        ("Enter", "Enter", False, 229),
    ):
        event = {"key": key, "code": code, "ctrlKey": True, "isComposing": is_composing, "keyCode": number}
        prompt.evaluate(
            "(prompt, event) => prompt.dispatchEvent(new KeyboardEvent('keydown', { bubbles: true, ...event }))", event
        )
    page.keyboard.press("Shift")  # the wish is dropped when another key follows
    method.send("Input.insertText", {"text": "한"})
    page.keyboard.press("Escape")
    assert len(window.requests) == sent
    assert page.locator(".token").count() == 0

    prompt.fill("오늘 날씨")
    compose("느")
    compose("는")
    page.keyboard.press("Control+Enter")
    assert len(window.requests) == sent
    method.send("Input.insertText", {"text": "는"})
    expect(page.locator(".token")).to_have_count(4)
    window.wait()
    assert page.locator(FIRST + ".text .prompt").inner_text() == PROMPT
    assert [url.rpartition("/")[2] for url in window.requests[sent:]] == ["about", "generate"]
    window.check()


EVENTS = '\r\n: kept alive\r\n\r\nevent: token\r\ndata:{"text":\r\ndata: "가\u2028😀: "}\r\n\r\n' + (
    'event: end\ndata: {"text": "끝"}\n\nevent: never\ndata: {"text": "cut'
)


def test_events_are_read_wherever_their_stream_is_cut(served: Served, tab: Any) -> None:
    read = """async (bytes) => {
      const { serverSentEvents } = await import("/page/service.js");
      const all = [];
      for (let cut = 0; cut <= bytes.length; cut++) {
        const parts = [bytes.slice(0, cut), bytes.slice(cut)].map((part) => new Uint8Array(part));
        const events = [];
        for await (const event of serverSentEvents(new Blob(parts).stream())) events.push(event);
        const stream = new ReadableStream({ start(to) { parts.forEach((part) => to.enqueue(part)); to.close(); } });
        const again = [];
        for await (const event of serverSentEvents(stream)) again.push(event);
        all.push(events, again);
      }
      return all;
    }"""
    found = tab(served).open().page.evaluate(read, list(EVENTS.encode()))
    assert len(found) == 2 * (len(EVENTS.encode()) + 1)
    assert all(events == [["token", {"text": "가\u2028😀: "}], ["end", {"text": "끝"}]] for events in found)


def test_tokens_keep_their_texts_where_stop_strings_hold_them_back(served: Served, tab: Any) -> None:
    """Text that could become a stop string comes with a later token, and is shown at its own."""
    asked = {"prompt": PROMPT, "seed": 3, "max_new_tokens": 12}
    plain = [token["text"] for token in served.post(**asked)["texts"][0]["tokens"]]
    stops = [plain[place] + plain[place + 1] + "끝" for place in (2, 6)]  # nearly come, and never do
    held = [token["text"] for token in served.post(**asked, stop=stops)["texts"][0]["tokens"]]
    assert held != plain
    assert "".join(held) == "".join(plain)
    window = tab(served).open()
    window.set({"Seed": 3, "Most new tokens": 12})
    window.page.locator(FIRST + ".stop textarea").fill("\n".join(stops))
    window.page.fill("#prompt", PROMPT)
    window.write()
    assert window.text() == plain
    window.check()


def test_hostile_text_is_text(served: Served, tab: Any) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script> &amp; 퉳"
    window = tab(served).open(f"#prompt={quote(hostile)}&max_new_tokens=6&temperature=%22%3Cb%3E%22&nonsense=%7B")
    page = window.page
    assert page.locator("#prompt").input_value() == hostile
    window.set({"Temperature": 1})
    window.write()
    assert page.locator(FIRST + ".text .prompt").inner_text() == hostile
    assert "cannot spell 'i', 'g', 'src=x'" in page.locator(FIRST + ".notes").inner_text()
    assert page.locator("img, script:not([src])").count() == 0
    policy = page.request.get(served.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    window.check()


def test_the_address_keeps_prompt_and_settings(served: Served, tab: Any) -> None:
    window = tab(served).open()
    page = window.page
    page.fill("#prompt", '그는\n물었다: "왜?" #&=')
    page.click("#compare")
    window.set({"Top-k": 7}, SECOND)
    page.locator(SECOND + ".stop textarea").fill("끝\n\\n")
    expect(page).to_have_url(re.compile("b.stop"))
    page.reload()
    expect(page.locator(".column")).to_have_count(2)
    assert page.locator("#prompt").input_value() == '그는\n물었다: "왜?" #&='
    assert page.locator(SECOND).get_by_label("Top-k, as a number").input_value() == "7"
    assert page.locator(FIRST).get_by_label("Top-k, as a number").input_value() == "0"
    assert page.locator(SECOND + ".stop textarea").input_value() == "끝\n\\n"
    assert page.locator(SECOND + "select").input_value() == "b"
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    window.check()


def test_values_out_of_bounds_are_not_sent(served: Served, tab: Any) -> None:
    window = tab(served, 390).open()
    window.set({"Top-p": 3})
    window.page.locator(FIRST + "summary").click()
    sent = len(window.requests)
    window.page.locator("#prompt").press("Control+Enter")
    field = window.page.get_by_label("Top-p, as a number")
    expect(field).to_be_focused()
    assert len(window.requests) == sent
    window.set({"Top-p": 0})  # in the browser's eyes it is good
    window.page.locator("#prompt").press("Control+Enter")
    expect(window.page.locator(FIRST + ".trouble")).to_contain_text("op_p")
    window.faults.clear()  # the browser reports each answer of 400 and more
    window.check()


@pytest.mark.parametrize("prompt", ["-그는 \"왜?\" '그래서' $날씨 `오늘` \\ 끝!\n그 책은"])
def test_copied_commands_write_the_same_text(served: Served, tab: Any, prompt: str, tmp_path: Path) -> None:
    window = tab(served, permissions=["clipboard-read", "clipboard-write"]).open()
    page = window.page
    page.fill("#prompt", prompt)
    window.set({"Most new tokens": 15, "Temperature": 0.7, "Top-k": 30, "Top-p": 0.9, "Seed": 4})
    page.locator(FIRST + ".stop textarea").fill("서울'에\n\\n")
    window.write()
    new = "".join(window.text())
    page.click("text=Copy text")
    expect(page.get_by_role("status")).to_have_text("Text copied.")
    assert page.evaluate("navigator.clipboard.readText()") == prompt + new

    page.click("text=Copy as command line")
    expect(page.get_by_role("status")).to_have_text("Command line for a POSIX shell copied.")
    command = page.evaluate("navigator.clipboard.readText()")
    assert page.locator(FIRST + ".command pre").inner_text() == command
    (tmp_path / "kogpt2").write_text(f'#!/bin/sh\nexec {sys.executable} -m kogpt2_gluon.cli.main "$@"\n')
    (tmp_path / "kogpt2").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    printed = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    ).stdout
    assert printed == prompt.replace("\n", " ") + new + "\n"  # the tokenizer has one kind of space

    if shutil.which("curl"):
        page.click("text=Copy as curl")
        expect(page.get_by_role("status")).to_have_text("curl command for a POSIX shell copied.")
        command = page.evaluate("navigator.clipboard.readText()")
        printed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
        tokens = [json.loads(line[5:]) for line in printed.splitlines() if line.startswith("data:")]
        assert "".join(each.get("text", "") for each in tokens) == new
    window.check()


SIGNS = "\t$HOME `id` $(id) \\ \\n !! * ~ # ;|& \u2028 \x7f"
PROMPTS = ["", "-", "--help", "it's", "''", '"', "a\nb\n", "한글 (글)", SIGNS]


def test_shells_read_every_prompt_as_it_is(served: Served, tab: Any, tmp_path: Path) -> None:
    make = """async (prompts) => {
      const { commandLine } = await import("/page/commands.js");
      const model = { checkpoint: "it's/a run", options: { "--weights": "int8" } };
      return prompts.map((prompt) => commandLine({ prompt, top_k: 0, seed: 7, stop: [prompt + "'"] }, model));
    }"""
    commands = tab(served).open().page.evaluate(make, PROMPTS)
    command = tmp_path / "kogpt2"
    command.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps([*sys.argv[1:], sys.stdin.read()]))\n")
    command.chmod(0o755)
    for prompt, line in zip(PROMPTS, commands):
        variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(["sh", "-c", line], env=variables, capture_output=True, text=True, check=True, input="")
        *words, standard_input = json.loads(done.stdout)
        assert words[-2:] == ["it's/a run", prompt]
        assert standard_input == (prompt if prompt == "-" else "")
        assert words[:7] == ["generate", "--seed", "7", "--stop", prompt + "'", "--weights", "int8"]
        assert ("--" in words) is (prompt == "--help")


def test_a_text_is_copied_where_pages_have_no_clipboard(served: Served, tab: Any) -> None:
    """Browsers give none to a page without https from another machine."""
    window = tab(served)
    window.page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    window.open()
    window.set({"Seed": 3, "Most new tokens": 5})
    window.page.fill("#prompt", PROMPT)
    window.write()
    window.page.click("text=Copy text")
    expect(window.page.get_by_role("status")).to_have_text("Text copied.")
    assert window.page.evaluate("getSelection().toString()") == PROMPT + "".join(window.text())
    window.page.fill("#prompt", "")
    window.page.keyboard.press("Control+v")
    expect(window.page.locator("#prompt")).to_have_value(PROMPT + "".join(window.text()))
    window.check()


def test_parts_of_characters_and_the_end_are_tokens(served: Served, networks: tuple[Path, Path], tab: Any) -> None:
    tokenizer = Tokenizer.load(networks[1] / "tokenizer.model")
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
        if (text := served.post(**asked, seed=seed)["texts"][0])["finish_reason"] == "stop"
        and any(is_part(token["spelling"]) for token in text["tokens"])
        and (to_part := next(choices(text["tokens"], lambda spelling, _: is_part(spelling)), None))
        and (to_end := next(choices(text["tokens"], lambda _, each: each == tokenizer.eos_id), None))
    )
    window = tab(served).open()
    page = window.page
    page.select_option(FIRST + "select", "b")
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
    after = served.post(**asked, written=kept, seed=drawn)["texts"][0]["tokens"]
    ids = [token["id"] for token in after if token["id"] != tokenizer.eos_id]
    whole = tokenizer.decode([*tokenizer.encode(PROMPT), *kept, *ids])
    assert "".join(window.text()) == whole[len(tokenizer.decode(tokenizer.encode(PROMPT))) :]
    window.check()


def test_a_service_that_refuses_is_busy_or_goes_away(networks: tuple[Path, Path], tab: Any) -> None:
    with serve(networks[0], "--slots", 1, "--queue", 0, token=TOKEN) as service:
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

    # Ids and paths of another checkpoint are others.
    with serve(networks[1], port=service.port, token=TOKEN):
        writing.write()
        expect(writing.page.locator(FIRST + ".trouble")).to_contain_text("Reload the page")
        assert writing.text() == broken
    assert all("Failed to load resource" in fault for fault in writing.faults + refused.faults)


def test_a_service_that_is_gone_when_the_page_begins(served: Served, tab: Any) -> None:
    """The page can be used once it is there, as after a restart of the service."""
    window = tab(served)
    window.page.route("**/about", lambda route: route.abort())
    window.page.goto(served.url)
    expect(window.page.locator("#trouble")).to_contain_text("The service does not answer.")
    window.page.unroute("**/about")
    window.page.fill("#prompt", PROMPT)
    window.page.click("#write")
    expect(window.page.locator(".token").first).to_be_visible()
    expect(window.page.locator("#trouble")).to_be_empty()
    assert window.page.locator("#prompt").input_value() == PROMPT
