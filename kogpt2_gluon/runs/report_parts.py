"""The parts that the sections of a run's page are made of, and the style sheet that only this page needs."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kogpt2_gluon.pages.page import scrolling
from kogpt2_gluon.runs.environment import hide_users
from kogpt2_gluon.runs.metrics import printable

HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
CODE = re.compile(r"`([^`\n]+)`")

STYLE_OF_REPORT = """
.jumps { display: flex; flex-wrap: wrap; gap: 2px 18px; margin-top: 14px; font-size: 14px; }
a { color: var(--train); }
.cards + .glance { margin-top: 0; }
.glance { display: grid; grid-template-columns: max-content 1fr; margin: 0; border-bottom: 1px solid var(--rule); }
.glance dt, .glance dd { margin: 0; padding: 9px 0; border-top: 1px solid var(--rule); }
.glance dt { padding-right: 28px; color: var(--soft); font-size: 13px; line-height: 23px; }
.glance dd { max-width: 100ch; overflow-wrap: anywhere; }
.promise { margin-top: 36px; padding: 16px 22px 18px; border: 1px solid var(--rule); border-radius: 8px; }
.promise > h2 { margin-bottom: 2px; font-size: 15px; }
.promise > .meta { margin: 0 0 10px; }
.promised { display: grid; grid-template-columns: max-content 1fr; gap: 4px 22px; margin: 0; font-size: 14px; }
.promised dt { color: var(--soft); }
.promised dd { margin: 0; overflow-wrap: anywhere; }
.promised p { margin: 0; }
code, .command { font: 13px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.command { padding-left: 2ch; text-indent: -2ch; overflow-wrap: anywhere; }
section > h3 { margin: 26px 0 8px; font-size: 15px; font-weight: 620; }
.explained { margin: 6px 0 0; color: var(--soft); font-size: 13px; line-height: 1.45; max-width: 92ch; }
.low { max-height: 380px; overflow: auto; margin-top: 6px; }
.low thead th { position: sticky; top: 0; background: var(--paper); }
.low table { font-size: 13px; } .logbook .low td { padding: 3px 0 3px 16px; text-align: right; white-space: nowrap;
  color: inherit; } .low th { overflow-wrap: normal; }
.logbook .low td:first-child { padding-left: 0; text-align: left; color: inherit; }
.low th:last-child, .logbook .low td:last-child { min-width: 30ch; text-align: left; white-space: normal; }
.logbook details { margin: 0; } .logbook summary { padding: 0; color: inherit; }
.logbook .warning td:last-child { border-left: 3px solid var(--heldout); padding-left: 13px; }
.moment { white-space: nowrap; }
.groups { display: block; columns: 2; column-gap: 16px; } .groups > div { break-inside: avoid; margin-bottom: 16px; }
.words { display: grid; grid-template-columns: max-content 1fr; gap: 6px 24px; margin: 0; font-size: 14px; }
.words dt { font-weight: 620; } .words dd { margin: 0; color: var(--soft); max-width: 92ch; }
@media (max-width: 760px) { .cards { grid-template-columns: 1fr 1fr; column-gap: 18px; margin-top: 26px; }
  .cards > div { padding: 10px 0 12px; } .cards p { font-size: 25px; }
  .groups { columns: 1; } figcaption span { display: block; margin-left: 0; line-height: 1.4; }
  .glance, .promised, .words, .facts { grid-template-columns: 1fr; gap: 0; }
  .glance dt { padding: 9px 0 0; line-height: 1.3; } .glance dd { padding: 1px 0 9px; border-top: 0; }
  .promised dd, .facts dd, .words dd { margin-bottom: 8px; } .promise { padding: 14px 16px; }
  .logbook, .logbook > tbody, .logbook > tbody > tr, .logbook > tbody > tr > td { display: block; width: 100%; }
  .logbook > tbody > tr { padding: 7px 0; border-bottom: 1px solid var(--rule); }
  .logbook > tbody > tr > td { padding: 0; border: 0; display: inline; }
  .logbook > tbody > tr > td + td:nth-child(2) { padding-left: 10px; }
  .logbook > tbody > tr > td:last-child { display: block; }
  .logbook .warning td:last-child { padding-left: 10px; border-left: 3px solid var(--heldout); } }
"""


def safe(text: str) -> str:
    """Escapes text for HTML, and removes control characters, and names and passwords in addresses."""
    return html.escape(hide_users(printable(text)))


def with_code(text: str) -> str:
    """Escapes text for HTML; what is between backticks becomes code."""
    return CODE.sub(r"<code>\1</code>", safe(text))


def language_of(text: str) -> str:
    """Returns the attribute that says that a text is Korean; "" for a text without Hangul."""
    return ' lang="ko"' if HANGUL.search(text) else ""


def section(title: str, content: str, place: str) -> str:
    """Returns a section of the page, to which a link to #`place` leads."""
    return f'<section id="{place}"><h2>{safe(title)}</h2>{content}</section>'


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], label: str = "", low: bool = False) -> str:
    """Returns a table of texts in a box that scrolls if it is too wide or, if `low`, too long.

    `label` is the name of the box for those who do not see it; without one it is the first title.
    """
    head = "".join(f'<th scope="col">{safe(title)}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    box = scrolling(whole, label or titles[0])
    return box.replace('class="scroll"', 'class="scroll low"', 1) if low else box


def groups(content: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns lists of names and values in boxes, one for each group that has any."""
    parts = []
    for title, group in content.items():
        rows = "".join(f"<dt>{safe(str(key))}</dt><dd>{safe(value_text(value))}</dd>" for key, value in group.items())
        if rows:
            parts.append(f'<div><h3>{safe(title)}</h3><dl class="facts">{rows}</dl></div>')
    return f'<div class="groups">{"".join(parts)}</div>'


def value_text(value: Any) -> str:
    """Returns a recorded value in words."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def preformatted(text: str, label: str) -> str:
    """Returns text as it is, in a box that scrolls and has a name."""
    return f'<pre tabindex="0" role="region" aria-label="{safe(label)}">{safe(text)}</pre>'


def folded(summary: str, content: str) -> str:
    """Returns content that is shown when a reader opens it."""
    return f"<details><summary>{safe(summary)}</summary>{content}</details>"


def placeholder(text: str) -> str:
    """Returns words for what is not there."""
    return f'<p class="nothing">{safe(text)}</p>'


def remark(text: str) -> str:
    """Returns a line that explains what is above it."""
    return f'<p class="explained">{safe(text)}</p>' if text else ""


def mapping_in(plain: Any, key: str) -> Mapping[str, Any]:
    """Returns a section of plain data; empty if it is not a mapping."""
    found = plain.get(key) if isinstance(plain, Mapping) else None
    return found if isinstance(found, Mapping) else {}
