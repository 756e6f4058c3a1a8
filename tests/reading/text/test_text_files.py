"""The list of text files: dealt out evenly, the same on every worker."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.files import TextFiles, list_text_files
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
    one, other = on_workers(2, lambda worker: list_text_files([str(tmp_path)], "line", worker))
    assert one == other and os.fsencode(one.sources[0].name) == name and len(one.fingerprint) == 32


def test_files_are_looked_into_at_the_start_and_not_on_resume(tmp_path: Path) -> None:
    (tmp_path / "news.txt").write_bytes("오늘은 날씨가 맑다\n".encode("cp949") * 20)
    with pytest.raises(DataError, match="CP949"):
        list_text_files([str(tmp_path)], "line", Worker())
    assert list_text_files([str(tmp_path)], "line", Worker(), look_inside=False).count == "1 text file"
