"""A window of a browser that shows the service's page, and what a person does in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

__all__ = ["FIRST", "PROMPT", "SECOND", "Tab", "expect"]

PROMPT = "오늘 날씨는"
FIRST, SECOND = ".column:nth-child(1) ", ".column:nth-child(2) "


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

    def check_access(self, schemes: Sequence[str] = ("light", "dark")) -> None:
        """Nobody is shut out, in the light or in the dark: names, roles, contrast and more, by axe-core's rules."""
        for scheme in schemes:
            self.page.emulate_media(color_scheme=scheme)
            self.page.wait_for_timeout(200)  # colours change slowly, and axe would measure one in between
            found = Axe().run(self.page)
            assert found.violations_count == 0, found.generate_report()


VISIBLE_FOCUS = """() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
}"""
