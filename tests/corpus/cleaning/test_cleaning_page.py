"""The page about a cleaning: its bars are as long as the counts say, and what a name or a sample says stays text."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import pytest

from kogpt2_gluon.corpus.cleaning.page import NAME_WIDTH, SOURCES_SHOWN, VALUE_WIDTH, WIDTH, _tail, render_cleaning
from kogpt2_gluon.corpus.cleaning.report import CleaningReport, Count, SourceReport, sample_row

ROOM = WIDTH - NAME_WIDTH - VALUE_WIDTH - 16


def make_report(count: int) -> CleaningReport:
    """Sources of 100 documents of which 40 and a few more are dropped."""
    reasons = ["duplicate", "empty", *(f"reason {number}" for number in range(9))]
    sources = []
    for number in range(count):
        dropped = Counter({reason: 30 - 3 * rank for rank, reason in enumerate(reasons[:2])})
        dropped[reasons[2 + number % 9]] += 1
        kept = Counter(train=100 - sum(dropped.values()))
        documents, lines = Count(100, kept, dropped), Count(100, kept, dropped)
        sources.append(SourceReport(f"news/<{number:03d}>.txt", 1000, documents, lines, Counter(url=number)))
    report = CleaningReport(sources=sources, samples=[sample_row("url", "a", before="<b>&", after="\ud800")])
    report.add_up()
    return report


def drawings(page: str) -> dict[str, ElementTree.Element]:
    found = [ElementTree.fromstring(text) for text in re.findall(r'<svg viewBox="0 0 1072.*?</svg>', page, re.DOTALL)]
    return {svg.attrib["aria-label"]: svg for svg in found}


@pytest.mark.parametrize("count", [1, 3, SOURCES_SHOWN + 5])
def test_bars_are_as_long_as_the_counts_say(count: int) -> None:
    report = make_report(count)
    page = render_cleaning(report, "corpus")
    drawn = drawings(page)
    rows: dict[str, list[ElementTree.Element]] = {}
    for bar in drawn["kept and dropped by source"].iter("rect"):
        rows.setdefault(bar.attrib["y"], []).append(bar)
    assert len(rows) == min(count, SOURCES_SHOWN + 1)
    for bars in rows.values():
        widths = [float(bar.attrib["width"]) for bar in bars]
        assert sum(widths) == pytest.approx(ROOM, abs=0.1)
        assert widths[0] == pytest.approx(ROOM * 0.42, abs=0.1)  # 42 of 100 are kept
        assert [bar.attrib["class"] for bar in bars[:3]] == ["kept", "r0", "r1"]
    longest = next(drawn["dropped by reason"].iter("rect"))
    assert float(longest.attrib["width"]) == pytest.approx(ROOM, abs=0.1)
    assert f"{30 * count:,} documents, {30 * count:,} lines" in page
    assert (f"{count - SOURCES_SHOWN} more" in page) == (count > SOURCES_SHOWN)


def test_labels_have_room_beside_the_bars() -> None:
    """At 12 px a digit is at most 7 px wide, other letters 6 on average, Hangul at 13 px as wide as high."""
    report = make_report(1)
    large = Counter({"near_duplicate": 120_000_000})
    report.documents, report.lines = Count(250_000_000, Counter(), large), Count(2_000_000_000, Counter(), large)
    value = re.search(r"120,000,000 documents, [\d,]+ lines", render_cleaning(report, "corpus"))
    assert value is not None
    assert sum(7 if char.isdigit() else 6 for char in value[0]) <= VALUE_WIDTH
    for name in (
        "신문/경제_2020년_상반기_기사_모음_최종.txt",
        "s3://bucket/" + "a" * 60 + ".jsonl",
        "가" * 18,
        "a" * 36,
    ):
        shown = _tail(name)
        assert sum(13 if char > "\u1100" and char != "…" else 7 for char in shown) <= NAME_WIDTH - 12
        assert name.endswith(shown.lstrip("…")) and len(shown) >= 17
        assert shown.startswith("…") == (shown != name)
    assert _tail("가" * 18) == "가" * 18 and _tail("a" * 37) == "…" + "a" * 35


def test_names_and_samples_stay_text() -> None:
    page = render_cleaning(make_report(2), "<script>")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "news/&lt;001&gt;.txt" in page and "&lt;b&gt;&amp;" in page
    page.encode("utf-8", "replace")


def test_nothing_dropped() -> None:
    report = CleaningReport(sources=[SourceReport("a", 1, Count(1, Counter(train=1)), Count(1, Counter(train=1)))])
    report.add_up()
    assert "nothing was dropped" in render_cleaning(report, "corpus")
    assert "nothing was dropped" in render_cleaning(CleaningReport(), "corpus")
