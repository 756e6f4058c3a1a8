"""Plots of pages as SVG files of their own: with colours, a white ground, and room for long labels at the right."""

from __future__ import annotations

import re

from kogpt2_gluon.pages.page import STYLE

LABEL_ROOM = 60  # units at the right, more than a page's plots have, for end labels
# The style sheet's variables, on light paper: outside of a page there is nobody to set them.
LIGHT = dict(re.findall(r"--(\w+): (#\w+)", STYLE.partition("@media")[0]))


def page_colours() -> str:
    """Returns those rules of the pages' style sheet that are about plots, with the colours of light paper."""
    style = re.sub(r"@media.*?\} \}", "", STYLE, flags=re.DOTALL)
    rules = [
        rule for rule in re.findall(r"[^{}]+\{[^{}]*\}", style) if re.search(r"svg|path|circle|\.grid|\.event", rule)
    ]
    return re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], " ".join(" ".join(rules).split()))


def standalone(plot: str, sheet: str = "") -> str:
    """Returns the text of an .svg file for an inline <svg> of :mod:`.plot`.

    `sheet` is CSS; without it the plot has the colours of the pages.
    """
    box = re.search(r'viewBox="0 0 (\d+) (\d+)"', plot)
    assert box
    width, height = int(box[1]) + LABEL_ROOM, int(box[2])
    head = f'xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    style = f"<style>text {{ font-family: sans-serif; }} {sheet or page_colours()}</style>"
    ground = f'{style}<rect width="100%" height="100%" fill="#fff"/>'
    return re.sub(r'viewBox="[^"]*"([^>]*)>', lambda found: f"{head}{found[1]}>{ground}", plot, count=1) + "\n"
