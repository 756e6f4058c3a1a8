"""Files to which lines are added: each is there whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.growing_lines import GrowingLines
from tests.helpers import enlarge, small_disk


@settings(max_examples=60, deadline=None)
@given(
    first=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))),
    part=st.binary(max_size=200_000).map(lambda line: line.replace(b"\n", b"")),
    then=st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b""))),
)
def test_a_part_of_a_line_is_removed_and_the_rest_kept(tmp_path_factory, first, part, then):
    path = tmp_path_factory.mktemp("lines") / "new" / "lines"
    with GrowingLines(path) as lines:
        for line in first:
            lines.add(line)
    before = path.read_bytes()
    path.write_bytes(before + part)
    with GrowingLines(path) as lines:
        assert list(lines.lines()) == first
        for line in then:
            lines.add(line)
    assert path.read_bytes() == before + b"".join(line + b"\n" for line in then)


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "lines"
    with (
        GrowingLines(path),
        pytest.raises(RecipeError, match=r"lines: another process adds lines to it; wait for it, or name another"),
    ):
        GrowingLines(path)
    with GrowingLines(path):  # it is free again
        pass


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path):
    with small_disk(tmp_path / "disk", 16 << 10) as disk:
        path = disk / "lines"
        with GrowingLines(path) as lines:
            lines.add(b"a" * 5000)
            with pytest.raises(OSError, match="No space") as caught:
                lines.add(b"b" * 50_000)
            assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
            assert path.read_bytes() == b"a" * 5000 + b"\n"
            enlarge(disk, 1 << 20)
            lines.add(b"b" * 50_000)
        assert path.read_bytes() == b"a" * 5000 + b"\n" + b"b" * 50_000 + b"\n"


def test_a_process_that_is_killed_leaves_whole_lines_and_at_most_a_part(tmp_path):
    path = tmp_path / "lines"
    code = """
import sys
from pathlib import Path
from kogpt2_gluon.storage.growing_lines import GrowingLines
with GrowingLines(Path(sys.argv[1])) as lines:
    number = sum(1 for _ in lines.lines())
    while True:
        lines.add((str(number) + ",") .encode() * 3000)
        number += 1
"""
    for _ in range(2):
        before = path.stat().st_size if path.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        try:
            while not path.exists() or path.stat().st_size <= before + 20_000:
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    with GrowingLines(path) as lines:
        for number, line in enumerate(lines.lines()):
            assert line == f"{number},".encode() * 3000
    assert Path(path).stat().st_size
