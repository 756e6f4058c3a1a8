"""The list of text files: dealt out evenly, the same on every worker."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.files import TextChoice, TextFiles, list_text_files
from tests.machine.thread_workers import on_workers


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 10**12), min_size=1, max_size=60), size=st.integers(1, 8))
def test_files_are_dealt_evenly_and_each_once(sizes: list[int], size: int) -> None:
    files = TextFiles(tuple(Source(f"{number:03d}", value, "") for number, value in enumerate(sizes)))
    if len(sizes) < size:
        with pytest.raises(RecipeError, match="cannot share"):
            files.deal(size)
        return
    shares = files.deal(size)
    assert sorted(index for share in shares for index in share) == list(range(len(sizes)))
    loads = [sum(sizes[index] for index in share) for share in shares]
    assert all(shares) and max(loads) - min(loads) <= max(sizes)
    assert TextFiles.from_state(json.loads(json.dumps(files.to_state()))) == files


def test_a_new_list_is_compared_with_the_old_one() -> None:
    old = TextFiles((Source("a", 1, "1"), Source("b", 1, "1"), Source("c", 1, "1")))
    new = TextFiles((Source("b", 2, "1"), Source("c", 1, "1"), Source("d", 1, "1"), Source("e", 1, "1")))
    assert new.compare(old) == "2 added, 1 gone, 1 changed" and new.compare(new) == ""
    assert len({old.fingerprint, new.fingerprint, TextFiles(old.sources[:2]).fingerprint}) == 3


def test_names_that_are_not_utf8_reach_every_worker(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xb0\xa1.txt"  # a Hangul syllable in EUC-KR
    Path(os.fsdecode(name)).write_text("글\n", encoding="utf-8")
    one, other = on_workers(2, lambda worker: list_text_files(TextChoice((str(tmp_path),), "line"), worker))
    assert one == other and os.fsencode(one.sources[0].name) == name and len(one.fingerprint) == 32


def test_every_file_is_looked_at_at_the_start_new_ones_later_and_none_on_resume(tmp_path: Path) -> None:
    choice = TextChoice((str(tmp_path),), "line")
    for number in range(12):
        (tmp_path / f"news-{number:02d}").write_text(f"{number} 오늘은 날씨가 맑다\n", encoding="utf-8")
    (tmp_path / "z-table").write_bytes(b"PAR1\x15\x04\x15")
    with pytest.raises(DataError, match=r"z-table: a table \(Parquet\); data\.documents=line does not read it"):
        list_text_files(choice, Worker())
    skipped = list_text_files(replace(choice, skip=True), Worker())
    assert skipped.count == "12 text files" and "left out" in skipped.remarks[-1] and "z-table" in skipped.remarks[-1]
    before = list_text_files(replace(choice, exclude=("z-*",)), Worker())
    (tmp_path / "later").write_bytes("내일은 비가 온다\n".encode("cp949"))
    (tmp_path / "blank").write_bytes(b"\n \n")
    after = list_text_files(choice, Worker(), before)
    assert [source.encoding for source in after.sources] == ["cp949"] + ["utf-8"] * 12
    assert any("z-table" in remark for remark in after.remarks) and "white space alone" in str(after.remarks)
    assert TextFiles.from_state(json.loads(json.dumps(after.to_state()))).sources[0].encoding == "cp949"
    assert list_text_files(choice, Worker(), is_resumed=True).count == "15 text files"
