"""A source that loses too much ends the cleaning; what is left out inside documents is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.clean import clean as clean_command
from kogpt2_gluon.corpus.cleaning import PAGE_FILE, SAMPLES_FILE, clean, load_options, parts
from kogpt2_gluon.corpus.cleaning.losses import heavy_losses
from kogpt2_gluon.corpus.cleaning.report import CleaningReport, Count, SourceReport, Tally
from kogpt2_gluon.corpus.formats import KINDS
from kogpt2_gluon.corpus.formats.lines import Lines
from kogpt2_gluon.corpus.left_out import MOST_NAMES, OTHER_NAMES, LeftOut, add_counts
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection
from kogpt2_gluon.errors import DataError, RecipeError


def source(name: str, kept: int, **dropped: int) -> SourceReport:
    count = Count(kept + sum(dropped.values()), Counter(train=kept), Counter(dropped))
    return SourceReport(name, 1, count, count)


def lost(*sources: SourceReport, max_dropped: float = 0.5, blank_is_record: bool = False) -> list[tuple[str, int]]:
    report = CleaningReport(sources=list(sources))
    report.add_up()
    return [(loss.name, loss.lost) for loss in heavy_losses(report, max_dropped, blank_is_record)]


@pytest.mark.parametrize(
    ("one", "heavy"),
    [
        (source("a", 50, length=50), False),  # half is not more than half
        (source("a", 49, length=51), True),
        (source("a", 0, hangul_share=10), True),
        (source("a", 0, hangul_share=9), False),  # fewer than ten
        (source("a", 1, bad_json=2), True),  # but that they could be read
        (source("a", 0, bad_utf8=1), True),
        (source("a", 0, another_reason_of_a_reader=3), True),
        (source("a", 5, namespace=100, redirect=200, not_wikitext=3), False),
        (source("a", 5, namespace=100, bad_markup=6), True),
        (source("a", 0, duplicate=60, near_duplicate=40), False),
        (source("a", 0, duplicate=60, bad_json=40), False),
        (source("a", 3, empty=1000), False),  # blank lines
        (source("a", 3, empty=1000, length=20), True),
        (source("a", 0), False),
    ],
)
def test_what_is_a_heavy_loss(one: SourceReport, heavy: bool) -> None:
    assert bool(lost(one)) is heavy
    assert lost(one, source("b", 1000)) == lost(one)
    assert lost(one, max_dropped=1) == []
    report = CleaningReport(sources=[one])
    for loss in heavy_losses(report, 0.5):  # the advice works
        assert lost(one, max_dropped=loss.admitted_by) == []


def test_small_sources_are_judged_together() -> None:
    short = [source(f"{n}", 0, length=1) for n in range(6)]
    assert lost(*short) == []
    assert lost(*short, *[source(f"k{n}", 1) for n in range(6)]) == []
    assert lost(*short, *[source(f"k{n}", 1) for n in range(5)]) == [("11 sources of fewer than 10 records", 6)]
    assert lost(*short, source("bad", 3, bad_utf8=4), source("large", 10)) == [
        ("7 sources of fewer than 10 records", 10),
        ("bad", 4),
    ]


def test_records_without_text_are_a_loss_where_they_are_not_blank_lines() -> None:
    assert lost(source("a", 0, empty=20)) == []
    assert lost(source("a", 0, empty=20), blank_is_record=True) == [("a", 20)]
    assert lost(source("a", 1, empty=20), blank_is_record=True) == []


def test_lines_that_could_not_be_read_count_as_well() -> None:
    """Documents of several lines stay when most of their lines go."""
    documents = Count(20, Counter(train=20))
    heavy = SourceReport("a", 1, documents, Count(100, Counter(train=40), Counter(bad_utf8=60)))
    light = SourceReport("b", 1, documents, Count(100, Counter(train=60), Counter(bad_utf8=40)))
    assert lost(heavy, light) == [("a", 60)]


def write_source(folder: Path, good: int, bad: int) -> Path:
    rows = [json.dumps({"text": f"글 {n}"}) for n in range(good)] + ["{broken"] * bad
    (folder / "a.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "a.jsonl"


def test_the_cleaning_ends_and_goes_on_from_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_source(tmp_path, 20, 30)
    command = [str(file), "--documents", "text", "--out", str(tmp_path / "out"), "--processes", "1"]
    with pytest.raises(DataError) as caught:
        CliRunner().invoke(clean_command, command, catch_exceptions=False)
    words = str(caught.value)
    assert caught.value.exit_code == 3 and "\n" not in words
    assert f"{file}: 30 of 50 records dropped (60%; bad_json)" in words and "--max-dropped 0.6 goes" in words
    page = tmp_path / "out.work" / PAGE_FILE
    assert str(page) in words and "bad_json" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "out").exists()

    monkeypatch.setattr(Lines, "read_blocks", None)
    read: list[str] = []
    monkeypatch.setattr(
        "kogpt2_gluon.corpus.cleaning.pipeline.read_blocks", lambda *_: iter(read.append("again") or ())
    )
    result = CliRunner().invoke(clean_command, [*command, "--max-dropped", "0.6"], catch_exceptions=False)
    assert result.exit_code == 0 and not read
    about = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    assert about["counts"]["documents"]["dropped"] == {"bad_json": 30}
    assert not (tmp_path / "out.work").exists()


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none(tmp_path: Path, share: float) -> None:
    with pytest.raises(RecipeError, match="--max-dropped"):
        clean([write_source(tmp_path, 1, 0)], tmp_path / "out", "text", max_dropped=share)


# --- what is left out inside documents


class Marked(Lines):
    """Lines of which what is in angle brackets is left out, under that name."""

    name = "marked"

    def texts_at_once(self, block: Block) -> None:
        return None

    def parse_block(self, block: Block) -> Iterator[Item]:
        for item in super().parse_block(block):
            assert not isinstance(item, Rejection)
            text, _, name = item.text.partition("<")
            left_out = LeftOut()
            if name:
                left_out.add(f"template {name}", f"<{name}> 010-1234-5678")
            yield Document(text, item.source, item.line, item.offset, left_out=left_out if name else None)


def test_what_is_left_out_is_counted_by_source_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "marked", Marked())
    rows = [f"문장 {n}<{'자주' if n % 4 else f'드묾{n}'}" for n in range(0, 80)]
    for name, chosen in (("a.txt", rows[:30]), ("b.txt", rows[30:])):
        (tmp_path / name).write_text("\n".join(chosen) + "\n", encoding="utf-8")
    sources = [tmp_path / "a.txt", tmp_path / "b.txt"]
    options = load_options(None, ["phone=true"])
    report = clean(sources, tmp_path / "out", "marked", options=options)
    assert report.left_out["template 자주"] == 60 and sum(report.left_out.values()) == 80
    assert [sum(one.left_out.values()) for one in report.sources] == [30, 50]
    assert "left out inside documents: 60 template 자주, 1 template" in report.summary()
    about = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    assert next(iter(about["counts"]["left_out"].items())) == ("template 자주", 60)
    assert [source["counts"]["left_out"]["template 자주"] for source in about["sources"]] == [22, 38]
    page = (tmp_path / "out" / PAGE_FILE).read_text(encoding="utf-8")
    assert page.index("template 자주") < page.index("template 드묾") and "&lt;자주&gt; &amp;tel-num&amp;" in page
    samples = [json.loads(row) for row in (tmp_path / "out" / SAMPLES_FILE).read_text(encoding="utf-8").splitlines()]
    assert sum(row["reason"] == "template 자주" for row in samples) <= 3
    monkeypatch.setattr(parts, "PART_BYTES", 10)
    monkeypatch.setattr("kogpt2_gluon.corpus.records.BLOCK_BYTES", 100)
    again = clean(sources, tmp_path / "parts", "marked", options=options, processes=1)
    assert again.left_out == report.left_out


@pytest.mark.parametrize("names", [10, MOST_NAMES, 5 * MOST_NAMES])
def test_names_are_bounded_and_their_sum_exact(names: int) -> None:
    left_out, total = LeftOut(), Counter[str]()
    tally = Tally()
    for number in range(names):
        left_out.add(f"template {number}", "x")
        add_counts(total, Counter({f"template {number}": 1, "template often": 2}))
        tally.add(Tally(left_out=Counter({f"template {number}": 1})))
    assert sum(left_out.counts.values()) == sum(tally.left_out.values()) == names
    assert sum(total.values()) == 3 * names and total["template often"] == 2 * names
    assert max(len(left_out.counts), len(left_out.examples)) <= MOST_NAMES + 1
    assert len(total) <= 2 * MOST_NAMES + 1
    assert (total[OTHER_NAMES] > 0) == (names >= 2 * MOST_NAMES)
    assert Tally.from_dict(json.loads(json.dumps(tally.to_dict()))) == tally
