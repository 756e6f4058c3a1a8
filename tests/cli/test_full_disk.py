"""A full disk under what a verb writes is one line that names the file, and leaves nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import RecipeError
from tests.convert.head_helpers import make_fine_tuned
from tests.helpers import enlarge, kogpt2, small_disk


def refused(*arguments: object) -> str:
    error = kogpt2(*arguments, code=1).stderr
    assert error.count("\n") == 1
    return error


def test_answers(small_tokenizer: bytes, tmp_path: Path) -> None:
    tuned = make_fine_tuned(tmp_path / "tuned", small_tokenizer, "class")
    rows = tmp_path / "rows.txt"
    rows.write_text("왜\n" * 300, encoding="utf-8")
    with small_disk(tmp_path / "disk", 16 << 10) as disk:
        out = disk / "new" / "answers.jsonl"
        predict = ["predict", tuned.path, rows, "--out", out, "--ops", "stock"]
        error = refused(*predict)
        assert error.startswith(f"kogpt2: {out}: the disk is full (0.0 MB free of 0.0 MB); none of the answers is kept")
        assert list(out.parent.iterdir()) == []
        enlarge(disk, 1 << 20)
        kogpt2(*predict)
        assert out.read_bytes().count(b"\n") == 300


def test_a_page_and_a_tokenizer(shards: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 10) as disk:
        line = '{"kind": "train", "step": %d, "time": 1.0, "loss": 2.0}\n'
        (disk / "metrics.jsonl").write_text("".join(line % step for step in range(1, 40)), encoding="utf-8")
        assert refused("report", disk).startswith(f"kogpt2: {disk / 'report.html'}: the disk is full")
        out = disk / "named.model"
        error = refused("tokenizer", "rename", shards / "tokenizer.model", "--token", "<unused0>=리뷰", "--out", out)
        assert error.startswith(f"kogpt2: {out}: the disk is full") and "the tokenizer needs 0.3 MB" in error
        assert [each.name for each in disk.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("rows", [1, 3000])  # the second does not fit into a buffer
def test_standard_output(rows: int, small_tokenizer: bytes, tmp_path: Path) -> None:
    path, texts = make_fine_tuned(tmp_path / "tuned", small_tokenizer, "class").path, tmp_path / "rows.txt"
    texts.write_text("왜\n" * rows, encoding="utf-8")
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "predict", path, texts, "--ops", "stock"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "kogpt2: standard output: No space left on device\n")


def test_a_place_that_takes_nothing_is_refused_first(tmp_path: Path) -> None:
    """Before the checkpoint is opened, which is not there."""
    none, rows = tmp_path / "none", tmp_path / "rows.txt"
    rows.write_text("왜\n", encoding="utf-8")
    files = {"--out": ["predict", none, rows], "--samples": ["lm-eval", none, "--tasks", "none"]}
    folders = {"--export": ["score", none, "--task", "nsmc", "--data", tmp_path]}
    for out, message, verbs in (
        (tmp_path, "is a folder; name a file", files),
        (Path("/dev/null"), "is a device, a pipe or a socket; name a file", files),
        (rows / "below", "cannot be written: Not a directory", {**files, **folders}),
        (tmp_path / ("x" * 300) / "out", "cannot be written: File name too long", {**files, **folders}),
        (Path("/proc/out"), "cannot be written: No such file or directory", {**files, **folders}),
    ):
        for option, verb in verbs.items():
            done = CliRunner().invoke(cli, [*map(str, verb), option, str(out)])
            assert isinstance(done.exception, RecipeError), (verb, out)
            assert str(done.exception) == f"{option} {out}: {message}"
