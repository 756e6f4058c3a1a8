"""One HTML page about a cleaning: what every source and every reason lost, with samples; no script, no other file."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from unicodedata import east_asian_width

from kogpt2_gluon.corpus.cleaning.report import CleaningReport, SourceReport, by_frequency
from kogpt2_gluon.corpus.left_out import MOST_NAMES, OTHER_NAMES
from kogpt2_gluon.pages.page import PAGE, STYLE
from kogpt2_gluon.pages.plot import short

WIDTH = 1072
NAME_WIDTH, VALUE_WIDTH = 280, 260  # to the left and right of the bars: 36 and 38 characters
ROW = 26
SOURCES_SHOWN = 40  # the largest; the others are one row
REASONS_SHOWN = 7  # that have their own colour; the others share one
SAMPLES_SHOWN = 4  # for each reason
LEFT_OUT_SHOWN = 50  # names, the most frequent first

# The colours of Okabe and Ito, which colour-blind readers can tell apart; kept documents are in the page's grey.
CLEANING_STYLE = """
.kept { fill: var(--edge); opacity: 0.35; } .bar { fill: var(--train); } .bar.lines { opacity: 0.45; }
.r0 { fill: #0072b2; } .r1 { fill: #e69f00; } .r2 { fill: #009e73; } .r3 { fill: #cc79a7; } .r4 { fill: #d55e00; }
.r5 { fill: #56b4e9; } .r6 { fill: #b5a900; } .r7 { fill: #7d7d7d; }
svg text.name { fill: var(--ink); font-size: 13px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 14px; padding: 0; list-style: none; font-size: 13px; }
.key svg { display: inline-block; width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px; }
td { overflow-wrap: anywhere; } table.texts :is(th, td) { text-align: left; vertical-align: top; }
table.texts td:first-child { white-space: nowrap; overflow-wrap: normal; }
"""


def render_cleaning(report: CleaningReport, name: str) -> str:
    """Returns the page as text; `name` is the corpus's."""
    body = [
        f'<header><p class="eyebrow">Cleaning report</p><h1>{_safe(name)}</h1></header>',
        _cards(report),
        _section("What was dropped, and why", _reasons(report)),
        _section("By source", _sources(report)),
        _section("Sources that were not simply read", _intake(report)),
        _section("What was changed", _changes(report)),
        _section("What was left out inside documents", _left_out(report)),
        _section("Samples", _samples(report)),
    ]
    return PAGE.format(title=f"{_safe(name)}: cleaning report", style=STYLE + CLEANING_STYLE, body="\n".join(body))


def _safe(text: object) -> str:
    return html.escape(str(text))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>" if content else ""


def _share(count: int, total: int) -> str:
    return f"{count / max(1, total):.2%}"


def _cards(report: CleaningReport) -> str:
    kept, lines = (sum(count.kept.values()) for count in (report.documents, report.lines))
    held_out = report.documents.kept["test"]
    cards = [
        (
            "Documents read",
            short(report.documents.read),
            f"from {len(report.sources):,} source{'s' * (len(report.sources) != 1)}",
        ),
        ("Documents kept", short(kept), _share(kept, report.documents.read)),
        ("Lines kept", short(lines), f"{_share(lines, report.lines.read)} of {report.lines.read:,}"),
        ("Text kept", f"{short(sum(report.bytes_kept.values()))}B", f"{short(report.bytes_read)}B read, as stored"),
        ("Held out", short(held_out), f"documents, {_share(held_out, kept)} of the kept"),
    ]
    parts = (f"<div><h2>{name}</h2><p>{value}</p><small>{note}</small></div>" for name, value, note in cards)
    return f'<div class="cards">{"".join(parts)}</div>'


def _reasons(report: CleaningReport) -> str:
    """Returns two bars for each reason: its shares of all documents and of all lines."""
    documents, lines = report.documents, report.lines
    reasons = sorted({*documents.dropped, *lines.dropped}, key=lambda name: (-documents.dropped[name], name))
    if not reasons:
        return '<p class="nothing">nothing was dropped</p>'
    rows = []
    for name in reasons:
        gone, gone_lines = documents.dropped[name], lines.dropped[name]
        bars = [("bar", gone / max(1, documents.read)), ("bar lines", gone_lines / max(1, lines.read))]
        rows.append((name, bars, f"{gone:,} documents, {gone_lines:,} lines"))
    key = [("bar", "share of all documents"), ("bar lines", "share of all lines")]
    return _key(key) + _bars(rows, "dropped by reason")


def _changes(report: CleaningReport) -> str:
    read = max(1, report.documents.read)
    rows = [(name, [("bar", count / read)], f"{count:,} documents") for name, count in report.changed.most_common()]
    return _bars(rows, "changed by filter") if rows else ""


def _bars(rows: Sequence[tuple[str, list[tuple[str, float]], str]], title: str) -> str:
    """Draws rows of (name, [(CSS class, share)], value), a row's bars below each other; the longest fills the width."""
    largest = max((share for _, bars, _ in rows for _, share in bars), default=0) or 1
    room = WIDTH - NAME_WIDTH - VALUE_WIDTH - 16
    parts = [_open_svg(len(rows), title)]
    for row, (name, bars, value) in enumerate(rows):
        top = row * ROW
        height = 16 / len(bars)
        parts.append(_text(NAME_WIDTH - 12, top, "end", name, "name"))
        for number, (style, share) in enumerate(bars):
            width = max(share / largest * room, 1.0 if share else 0.0)
            parts.append(
                f'<rect class="{style}" x="{NAME_WIDTH}" y="{top + 5 + number * height:.1f}" width="{width:.1f}" '
                f'height="{height:.1f}"><title>{share:.3%}</title></rect>'
            )
        parts.append(_text(WIDTH, top, "end", value))
    return "".join([*parts, "</svg>"])


def _sources(report: CleaningReport) -> str:
    """Returns a bar of the same width for each source: the share kept, and the share dropped for each reason."""
    total = report.documents.dropped
    coloured = {name: f"r{rank}" for rank, (name, _) in enumerate(total.most_common(REASONS_SHOWN))}
    sources = sorted(report.sources, key=lambda source: -source.documents.read)
    rows = [_source_row(source.name, [source], coloured) for source in sources[:SOURCES_SHOWN]]
    rest = sources[SOURCES_SHOWN:]
    if rest:
        rows.append(_source_row(f"{len(rest):,} more", rest, coloured))
    parts = [_open_svg(len(rows), "kept and dropped by source")]
    room = WIDTH - NAME_WIDTH - VALUE_WIDTH - 16
    for row, (name, segments, value) in enumerate(rows):
        left = float(NAME_WIDTH)
        label = _text(NAME_WIDTH - 12, row * ROW, "end", _tail(name), "name")
        parts.append(f"<g><title>{_safe(name)}</title>{label}</g>")
        for style, share, note in segments:
            parts.append(
                f'<rect class="{style}" x="{left:.2f}" y="{row * ROW + 5}" width="{share * room:.2f}" height="16">'
                f"<title>{_safe(note)}</title></rect>"
            )
            left += share * room
        parts.append(_text(WIDTH, row * ROW, "end", value))
    key = [("kept", "kept"), *((style, name) for name, style in coloured.items())]
    if len(total) > len(coloured):
        key.append((f"r{REASONS_SHOWN}", "other reasons"))
    return _key(key) + "".join([*parts, "</svg>"])


def _intake(report: CleaningReport) -> str:
    """Returns a list of what became of the sources: encodings, files passed over, all that are damaged."""
    intake = replace(report.intake, damaged={})
    faults = report.intake.damaged.values()
    lines = [*intake.lines(), *(f"skipped, or its rest: {fault}" for fault in faults)]
    return "<ul>" + "".join(f"<li>{_safe(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _source_row(
    name: str, sources: Sequence[SourceReport], coloured: dict[str, str]
) -> tuple[str, list[tuple[str, float, str]], str]:
    read = sum(source.documents.read for source in sources)
    kept = sum(sum(source.documents.kept.values()) for source in sources)
    dropped: Counter[str] = Counter()
    for source in sources:
        dropped.update(source.documents.dropped)
    segments = [("kept", kept / max(1, read), f"kept: {kept:,}")]
    for reason, count in sorted(dropped.items(), key=lambda item: _rank(item[0], coloured)):
        style = coloured.get(reason, f"r{REASONS_SHOWN}")
        segments.append((style, count / max(1, read), f"{reason}: {count:,} ({_share(count, read)})"))
    return name, segments, f"{_share(kept, read)} of {short(read)} documents"


def _rank(reason: str, coloured: dict[str, str]) -> int:
    """Returns the position of a reason, the same in every row: the largest over all sources comes first."""
    return list(coloured).index(reason) if reason in coloured else len(coloured)


def _samples(report: CleaningReport) -> str:
    rows, shown = [], Counter[str]()
    for sample in report.samples:
        reason = str(sample["reason"])
        shown[reason] += 1
        if shown[reason] <= SAMPLES_SHOWN and "before" in sample and not sample.get("left_out"):
            after = sample.get("after") or sample.get("kept", "")
            rows.append(f"<tr><td>{_safe(reason)}</td><td>{_safe(sample['before'])}</td><td>{_safe(after)}</td></tr>")
    head = "<tr><th>reason</th><th>before</th><th>after, or the document it resembles</th></tr>"
    return f'<table class="texts">{head}{"".join(rows)}</table>' if rows else ""


def _left_out(report: CleaningReport) -> str:
    """Returns a table of the pieces that readers left out, the most frequent first, with a sample of each."""
    if not report.left_out:
        return ""
    samples = {str(row["reason"]): row["before"] for row in reversed(report.samples) if row.get("left_out")}
    ranked = by_frequency(report.left_out)
    rows = [
        f"<tr><td>{_safe(reason)}</td><td>{count:,}</td><td>{_safe(samples.get(reason, ''))}</td></tr>"
        for reason, count in ranked[:LEFT_OUT_SHOWN]
    ]
    rest = ranked[LEFT_OUT_SHOWN:]
    if rest:
        rows.append(f"<tr><td>{len(rest):,} more names</td><td>{sum(count for _, count in rest):,}</td><td></td></tr>")
    note = f"The names of templates, links and tags beyond the {MOST_NAMES} or so most frequent are counted together as"
    head = "<tr><th>what</th><th>times</th><th>sample</th></tr>"
    return f'<table class="texts">{head}{"".join(rows)}</table><p>{note} <i>{OTHER_NAMES}</i>.</p>'


def _open_svg(rows: int, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {rows * ROW}" role="img" aria-label="{_safe(title)}">'


def _text(x: float, top: float, anchor: str, text: str, style: str = "") -> str:
    return f'<text class="{style}" x="{x}" y="{top + 18}" text-anchor="{anchor}">{_safe(text)}</text>'


def _tail(name: str, columns: int = 36) -> str:
    """Returns the end of a long name, in which files of one folder differ; Hangul is two columns wide."""
    left = columns
    for start in range(len(name) - 1, -1, -1):
        left -= 2 if east_asian_width(name[start]) in "WF" else 1
        if left < (start > 0):  # one for the ellipsis
            return "…" + name[start + 1 :]
    return name


def _key(entries: Sequence[tuple[str, str]]) -> str:
    items = (
        f'<li><svg viewBox="0 0 12 12"><rect class="{style}" width="12" height="12"/></svg>{_safe(name)}</li>'
        for style, name in entries
    )
    return f'<ul class="key">{"".join(items)}</ul>'
