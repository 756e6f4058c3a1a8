"""The page's input and output: composed and hostile text, streams, addresses, copied commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="the service needs it")
pytest.importorskip("playwright", reason="drives the browser")
pytest.importorskip("axe_playwright_python", reason="checks accessibility")

from benchmarks.browser import CHROMIUM
from tests.serving.page_helpers import Served
from tests.serving.page_tab import FIRST, PROMPT, SECOND, expect

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Debian's chromium-headless-shell is one")


def test_an_input_method_keeps_its_keys(page_service: Served, tab: Any) -> None:
    """While a syllable is composed, nothing is sent. Ctrl+Enter sends when it is whole, so that none is cut off."""
    window = tab(page_service).open()
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


def test_events_are_read_wherever_their_stream_is_cut(page_service: Served, tab: Any) -> None:
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
    found = tab(page_service).open().page.evaluate(read, list(EVENTS.encode()))
    assert len(found) == 2 * (len(EVENTS.encode()) + 1)
    assert all(events == [["token", {"text": "가\u2028😀: "}], ["end", {"text": "끝"}]] for events in found)


def test_tokens_keep_their_texts_where_stop_strings_hold_them_back(page_service: Served, tab: Any) -> None:
    """Text that could become a stop string comes with a later token, and is shown at its own."""
    asked = {"prompt": PROMPT, "seed": 3, "max_new_tokens": 12}
    plain = [token["text"] for token in page_service.post(**asked)["texts"][0]["tokens"]]
    stops = [plain[place] + plain[place + 1] + "끝" for place in (2, 6)]  # nearly come, and never do
    held = [token["text"] for token in page_service.post(**asked, stop=stops)["texts"][0]["tokens"]]
    assert held != plain
    assert "".join(held) == "".join(plain)
    window = tab(page_service).open()
    window.set({"Seed": 3, "Most new tokens": 12})
    window.page.locator(FIRST + ".stop textarea").fill("\n".join(stops))
    window.page.fill("#prompt", PROMPT)
    window.write()
    assert window.text() == plain
    window.check()


def test_hostile_text_is_text(page_service: Served, tab: Any) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script> &amp; 퉳"
    window = tab(page_service).open(f"#prompt={quote(hostile)}&max_new_tokens=6&temperature=%22%3Cb%3E%22&nonsense=%7B")
    page = window.page
    assert page.locator("#prompt").input_value() == hostile
    window.set({"Temperature": 1})
    window.write()
    assert page.locator(FIRST + ".text .prompt").inner_text() == hostile
    assert "cannot spell 'i', 'g', 'src=x'" in page.locator(FIRST + ".notes").inner_text()
    assert page.locator("img, script:not([src])").count() == 0
    policy = page.request.get(page_service.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    window.check()


def test_the_address_keeps_prompt_and_settings(page_service: Served, tab: Any) -> None:
    window = tab(page_service).open()
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
    assert page.locator(SECOND + ".checkpoint").input_value() == "b"
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    window.check()


@pytest.mark.parametrize("prompt", ["-그는 \"왜?\" '그래서' $날씨 `오늘` \\ 끝!\n그 책은"])
def test_copied_commands_write_the_same_text(page_service: Served, tab: Any, prompt: str, tmp_path: Path) -> None:
    window = tab(page_service, permissions=["clipboard-read", "clipboard-write"]).open()
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


def test_shells_read_every_prompt_as_it_is(page_service: Served, tab: Any, tmp_path: Path) -> None:
    make = """async (prompts) => {
      const { commandLine } = await import("/page/commands.js");
      const model = { checkpoint: "it's/a run", options: { "--weights": "int8" }, tuned: [] };
      return prompts.map((prompt) => commandLine({ prompt, top_k: 0, seed: 7, stop: [prompt + "'"] }, model));
    }"""
    commands = tab(page_service).open().page.evaluate(make, PROMPTS)
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


def test_a_text_is_copied_where_pages_have_no_clipboard(page_service: Served, tab: Any) -> None:
    """Browsers give none to a page without https from another machine."""
    window = tab(page_service)
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
