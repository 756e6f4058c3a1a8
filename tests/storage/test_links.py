"""No path and no link leads out of a folder, and nothing waits for a pipe in it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from kogpt2_gluon.convert.transformers_folder import TransformersFolder
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.runs.report import render_report
from kogpt2_gluon.shards.format import Manifest
from kogpt2_gluon.storage.links import file_in, leads_out, read_file
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import run


def test_links_within_a_folder_are_followed_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for path in (tmp_path / "secret", folder / "file", folder / "below" / "file"):
        path.write_text("x", encoding="utf-8")
    links = {"within": "file", "below-it": "below/file", "out": "../secret", "far": "/etc/hostname", "gone": "nowhere"}
    links.update(ring="ring", over="../folder/file")
    for name, target in links.items():
        (folder / name).symlink_to(target)
    assert [name for name in links if leads_out(folder / name)] == ["out", "far", "ring"]
    assert not leads_out(folder / "file") and not leads_out(folder / "missing")
    (tmp_path / "elsewhere").symlink_to(folder)  # the folder itself may have been linked by its user
    assert not leads_out(tmp_path / "elsewhere" / "within") and leads_out(tmp_path / "elsewhere" / "out")


NAMES = ["", ".", "..", "../secret", "/etc/hostname", "a/b", "a\0b", "x" * 5000, "missing", "dir"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_file_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    (folder / "dir").mkdir(parents=True)
    (tmp_path / "secret").touch()
    (folder / "한국어.bin").touch()
    assert file_in(folder, name) is None
    assert file_in(folder, "한국어.bin") == folder / "한국어.bin"


def test_a_file_is_read_whole_or_in_part(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("a")
    assert read_file(tmp_path / "a") == read_file(tmp_path / "link") == b"0123456789"
    assert read_file(tmp_path / "a", 4) == b"0123"
    for path, told in ((tmp_path, "Is a directory"), (tmp_path / "b", "No such file"), (Path("/dev/zero"), "a device")):
        with pytest.raises(OSError, match=told) as caught:
            read_file(path)
        assert str(caught.value.filename) == str(path)


READERS = {
    "manifest.json": (Manifest.load, open_checkpoint),
    "config.json": (TransformersFolder,),
    "corpus.json": (Corpus.open,),
    "metrics.jsonl": (read_metrics, render_report),
    "tokenizer.model": (lambda folder: Tokenizer.load(folder / "tokenizer.model"),),
}


@pytest.mark.parametrize("name", READERS)
def test_nothing_waits_for_a_pipe_that_has_the_name_of_a_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "test").mkdir()
    for read in READERS[name]:
        ended: list[BaseException] = []

        def run(read=read, ended=ended) -> None:  # type: ignore[no-untyped-def]
            try:
                read(tmp_path)
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(30)
        if thread.is_alive():  # let it go, so that no thread is left waiting
            os.close(os.open(tmp_path / name, os.O_WRONLY | os.O_NONBLOCK))
        assert ended and isinstance(ended[0], KoGPT2Error) and str(tmp_path) in str(ended[0]), ended


def test_a_small_file_takes_little_memory_however_much_is_admitted(tmp_path: Path) -> None:
    """Python's own read(n) takes n bytes before it looks at the file."""
    content = bytes(range(256)) * 5000  # more than a piece
    (tmp_path / "small").write_bytes(content)
    for most in (-1, 0, 1, len(content) - 1, len(content), len(content) + 1, 1 << 20):
        assert read_file(tmp_path / "small", most) == (content if most < 0 else content[:most])
    code = "import pathlib, resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)); "
    code += "from kogpt2_gluon.storage.links import read_file; print(len(read_file(pathlib.Path(sys.argv[1]), 2**30)))"
    assert run(sys.executable, "-c", code, tmp_path / "small").stdout.strip() == str(len(content))
