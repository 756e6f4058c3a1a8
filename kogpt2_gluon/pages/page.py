"""The style sheet, the skeleton and the parts of a page."""

from __future__ import annotations

import html

# Two colours that colour-blind readers tell apart (a blue and an orange), each in a tone for light and for dark.
STYLE = """\
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #16191d; --soft: #5c6570; --rule: #e4e7ea; --edge: #9aa3ad;
  --panel: #f5f6f6; --train: #0067a3; --heldout: #bf4f00; }
@media (prefers-color-scheme: dark) { :root { --paper: #131619; --ink: #e9ecef; --soft: #98a2ad; --rule: #272c32;
  --edge: #59626c; --panel: #1a1e22; --train: #5bb8ee; --heldout: #f0a83c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1136px; padding: 56px 32px 80px; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Apple SD Gothic Neo", "Noto Sans KR", "Noto Sans CJK KR",
  "Malgun Gothic", sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0; font-size: 40px; line-height: 1.15; letter-spacing: -0.02em; font-weight: 650;
  overflow-wrap: anywhere; }
.eyebrow { margin: 0 0 6px; color: var(--soft); font-size: 13px; letter-spacing: 0.09em; text-transform: uppercase; }
.meta { margin: 10px 0 0; color: var(--soft); font-size: 14px; }
.about { margin: 18px 0 0; max-width: 72ch; white-space: pre-line; overflow-wrap: anywhere; }
section { margin-top: 52px; }
section > h2 { margin: 0 0 16px; font-size: 20px; letter-spacing: -0.01em; font-weight: 620; }
.cards { display: grid; grid-template-columns: repeat(5, 1fr); gap: 0; margin-top: 40px;
  border-top: 2px solid var(--ink); border-bottom: 1px solid var(--rule); }
.cards > div { padding: 14px 20px 18px; border-left: 1px solid var(--rule); }
.cards > div:first-child { padding-left: 0; border-left: 0; }
.cards h2 { margin: 0; color: var(--soft); font-size: 13px; font-weight: 500; }
.cards p { margin: 2px 0 4px; font-size: 32px; line-height: 1.2; letter-spacing: -0.02em; font-weight: 600; }
.cards small { display: block; color: var(--soft); font-size: 12.5px; line-height: 1.4; }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: 36px 32px; margin-top: 44px; }
figure { margin: 0; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figcaption { margin-bottom: 8px; font-size: 16px; font-weight: 620; }
figure.wide figcaption { font-size: 20px; letter-spacing: -0.01em; }
figcaption span { margin-left: 8px; color: var(--soft); font-size: 13px; font-weight: 400; letter-spacing: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--rule); } .frame { stroke: var(--edge); }
path { fill: none; stroke-linejoin: round; stroke-linecap: round; }
path.train, path.raw { stroke: var(--train); stroke-width: 2; }
path.raw { stroke-width: 1; opacity: 0.3; }
path.heldout { stroke: var(--heldout); stroke-width: 1.5; stroke-dasharray: 1 5; }
path.spike { stroke: var(--heldout); stroke-width: 1; } svg.narrow { display: none; }
path.solid { stroke-dasharray: none; stroke-width: 2.5; }
rect.bar { fill: var(--train); } .half { max-width: 620px; }
circle.mark { fill: var(--paper); stroke: var(--heldout); stroke-width: 2; }
circle.whole { fill: var(--heldout); }
.event { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 3 3; }
circle.dot { fill: var(--train); } circle.raw.dot { opacity: 0.3; }
svg .end { font-size: 13px; font-weight: 620; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
svg .end.train { fill: var(--train); }
svg .end.heldout { fill: var(--heldout); } svg .end.name { font-size: 11.5px; font-weight: 400; }
.scroll { overflow-x: auto; }
pre, .samples, .groups > div { background: var(--panel); border-radius: 8px; }
pre { margin: 0; padding: 18px 22px; overflow-x: auto; font: 13px/1.6 ui-monospace, "SF Mono", Menlo, Consolas,
  "DejaVu Sans Mono", "Noto Sans Mono CJK KR", monospace; }
.samples { margin: 0; padding: 6px 22px 18px; }
.samples dt { margin-top: 14px; font-weight: 620; overflow-wrap: anywhere; }
.samples dd { margin: 2px 0 0; max-width: 78ch; white-space: pre-wrap; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th, td { padding: 6px 0 6px 16px; border-bottom: 1px solid var(--rule); text-align: right; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { padding-left: 0; text-align: left; }
.logbook td { text-align: left; vertical-align: top; white-space: pre-line; overflow-wrap: anywhere; }
.logbook td:first-child { white-space: nowrap; color: var(--soft); } .logbook td:nth-child(2) { color: var(--soft);
  white-space: nowrap; }
details { margin-top: 10px; } summary { padding: 4px 0; cursor: pointer; color: var(--soft); font-size: 14px; }
.logbook .warning td:last-child, .logbook .note td:last-child { font-weight: 620; }
.groups { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; align-items: start; }
.groups > div { padding: 14px 22px 18px; min-width: 0; }
.groups h3 { margin: 0 0 6px; font-size: 13px; font-weight: 620; color: var(--soft); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; font-size: 13.5px; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.nothing { margin: 0; padding: 20px 0; color: var(--soft); }
@media (max-width: 760px) { body { padding: 32px 18px 56px; } h1 { font-size: 30px; }
  figure.wide { overflow-x: auto; } figure.wide > svg { min-width: 720px; }
  figure.fits > svg { display: none; } figure.fits > svg.narrow { display: block; min-width: 0; max-width: 560px; }
  .cards, .plots, .groups { grid-template-columns: 1fr; } .cards > div { padding-left: 0; border-left: 0; } }
@media print { body { padding: 0; max-width: none; } section, figure { break-inside: avoid; } }
"""

# The policy lets the page load nothing at all: the words of a recipe or a sample stay text.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def figure(title: str, drawn: str, remark: str = "", wide: bool = False, narrow: str = "", about: str = "") -> str:
    """Returns a plot with its caption, or words if there is no plot; a wide one can be scrolled, by keyboard too.

    `narrow` is the same plot of the class ``narrow``, which is shown instead in a narrow window, where nothing is
    scrolled then. `about` is a line below the plot.
    """
    note = f" <span>{html.escape(remark)}</span>" if remark else ""
    attributes = f' class="wide" tabindex="0" aria-label="{html.escape(title)}"' if wide else ""
    if narrow:
        attributes = f' class="{"wide " * wide}fits"'
    shown = drawn + narrow or '<p class="nothing">no values</p>'
    below = f'<p class="explained">{html.escape(about)}</p>' if about else ""
    return f"<figure{attributes}><figcaption>{html.escape(title)}{note}</figcaption>{shown}{below}</figure>"


def scrolling(content: str, label: str) -> str:
    """Returns what may be wider than the window, in a box that is scrolled by mouse, touch or keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">{content}</div>'
