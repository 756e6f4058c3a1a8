"""The cleaning as a whole: the same corpus for any number of processes and however often it was interrupted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning import PAGE_FILE, SAMPLES_FILE, clean, load_options, parts, pipeline
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from tests.corpus.cleaning.cleaning_helpers import (
    ALL_STAGES,
    check_counts,
    contents,
    folder_in_memory,
    interrupt,
    small_parts,
    write,
    write_documents,
)
from tests.storage.crash_helpers import Crash, PowerCut, without_clean_up


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 10_000, 50_000)
    for name in "ab":
        write_documents(tmp_path / "in" / f"{name}.txt", 800, seed=ord(name))
    options = load_options("web", ALL_STAGES)
    reports = []
    for processes in (1, 3):
        out = tmp_path / f"out{processes}"
        reports.append(clean([tmp_path / "in"], out, "blank-line", 0.05, options=options, processes=processes))
        check_counts(reports[-1], out)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out3")
    assert reports[0] == reports[1]
    assert {"duplicate", "near_duplicate"} <= set(reports[0].documents.dropped)
    assert {"duplicate_lines", "bad_utf8"} <= set(reports[0].lines.dropped)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out1", "out3"]


def test_parts_and_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_documents(tmp_path / "a.txt", 600)
    options = load_options(None, ALL_STAGES)
    clean([source], tmp_path / "one", "blank-line", 0.1, options=options)
    small_parts(monkeypatch)
    report = clean([source], tmp_path / "many", "blank-line", 0.1, options=options)
    check_counts(report, tmp_path / "many")
    one, many = contents(tmp_path / "one"), contents(tmp_path / "many")
    assert one.keys() == many.keys() and PAGE_FILE in one
    for name in one.keys() - {SAMPLES_FILE, PAGE_FILE}:  # of every block a few samples are offered
        assert one[name] == many[name], name
    assert list(many) and report.lines.dropped["duplicate_lines"]


KILLED = """
import sys, time
from pathlib import Path
from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.cleaning import clean, load_options, parts

def progress(done, total):
    if len(list(Path(sys.argv[2] + ".work").glob("part-*"))) >= 3:
        print("three", flush=True)
        time.sleep(600)

if __name__ == "__main__":
    records.BLOCK_BYTES, parts.PART_BYTES = 2000, 8000
    options = load_options(None, sys.argv[4:])
    clean([Path(sys.argv[1])], Path(sys.argv[2]), "blank-line", 0.1, progress=progress, options=options,
          processes=int(sys.argv[3]))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_cleaning_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    for name in "abcdefghijkl":  # on_read gets the whole size of files as small as these
        write_documents(tmp_path / "in" / f"{name}.txt", 60, seed=ord(name))
    script = write(tmp_path / "run.py", KILLED.encode())
    command = [sys.executable, str(script), str(tmp_path / "in"), str(tmp_path / "out"), str(processes), *ALL_STAGES]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    children: list[psutil.Process] = []
    try:
        assert process.stdout.readline() == "three\n"
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    work = tmp_path / "out.work"
    finished = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in work.glob("part-*")}
    assert len(finished) >= 3 and not (tmp_path / "out").exists()
    small_parts(monkeypatch)
    starts = _record_starts(monkeypatch)
    last = parts.read_parts(work)[-1]
    used = _watch_parts(monkeypatch)
    report = clean([tmp_path / "in"], tmp_path / "out", "blank-line", 0.1, options=load_options(None, ALL_STAGES))
    assert starts[0] == (f"{tmp_path}/in/{'abcdefghijkl'[last.next_place.source]}.txt", last.next_place[1:])
    assert [Path(name).name[0] for name, _ in starts] == list("abcdefghijkl"[last.next_place.source :])
    assert {name: used[name] for name in finished} == finished
    assert not work.exists()
    clean([tmp_path / "in"], tmp_path / "whole", "blank-line", 0.1, options=load_options(None, ALL_STAGES))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    check_counts(report, tmp_path / "out")
    assert len(children) >= processes - 1
    assert not psutil.wait_procs(children, timeout=60)[1]  # workers end with the process that was killed


def _record_starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, int]]]:
    """Where each source is begun from now on."""
    starts: list[tuple[str, tuple[int, int]]] = []
    real = pipeline.read_blocks

    def record(source: Any, kind: Any, on_read: Any, start: tuple[int, int]) -> Iterator[Any]:
        starts.append((source.name, start))
        return real(source, kind, on_read, start)

    monkeypatch.setattr(pipeline, "read_blocks", record)
    return starts


def _watch_parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Inode and time of the parts' folders when the corpus is written."""
    seen: dict[str, tuple[int, int]] = {}
    real = pipeline._assemble

    def watch(work: Path, *arguments: Any) -> Any:
        seen.update((path.name, (path.stat().st_ino, path.stat().st_mtime_ns)) for path in work.glob("part-*"))
        return real(work, *arguments)

    monkeypatch.setattr(pipeline, "_assemble", watch)
    return seen


@settings(deadline=None, derandomize=True, max_examples=10)
@given(st.integers(0, 40), st.sampled_from(["blank-line", "line"]))
def test_broken_anywhere_it_resumes(place: int, documents: str) -> None:
    """A failure at any block: the next run ends with the same bytes."""
    with folder_in_memory() as name, pytest.MonkeyPatch.context() as patch:
        small_parts(patch, 1000, 4000)
        sources = [write_documents(Path(name) / f"{seed}.txt", 40, seed) for seed in range(3)]
        clean(sources, Path(name) / "whole", documents, 0.1)
        real, calls = pipeline.BlockCleaner.clean, iter(range(10_000))

        def fail(self: Any, block: Any) -> Any:
            if next(calls) == place:
                raise OSError("the disk is full")
            return real(self, block)

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(pipeline.BlockCleaner, "clean", fail)
            try:
                clean(sources, Path(name) / "out", documents, 0.1)
            except OSError:
                assert not (Path(name) / "out").exists()
                assert not list(Path(name).glob("out.work/.part*"))
                clean(sources, Path(name) / "out", documents, 0.1)
            else:
                assert next(calls) <= place
        assert contents(Path(name) / "out") == contents(Path(name) / "whole")


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_file_operation_is_made_good(after: bool) -> None:
    """Wherever the power goes: no corpus or a whole one with its page, and the next run makes the same corpus."""
    with folder_in_memory() as name, pytest.MonkeyPatch.context() as patch:
        small_parts(patch, 1000, 4000)
        source = write_documents(Path(name) / "a.txt", 40)
        clean([source], Path(name) / "whole", "blank-line", 0.1)
        whole, out = contents(Path(name) / "whole"), Path(name) / "out"
        assert PAGE_FILE in whole
        for at in range(1, 200):
            with pytest.MonkeyPatch.context() as broken:
                without_clean_up(broken)
                crash = Crash(broken, at, after, PowerCut)
                with contextlib.suppress(PowerCut):
                    clean([source], out, "blank-line", 0.1)
            if (out / "corpus.json").exists():
                assert contents(out) == whole
                shutil.rmtree(out)
            for folder in Path(name).glob(".*"):  # what a run that ended so leaves under temporary names
                shutil.rmtree(folder)
            clean([source], out, "blank-line", 0.1)
            assert contents(out) == whole
            shutil.rmtree(out)
            if crash.calls < at:
                break
        assert 20 < crash.calls < at


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sources a.txt and b.txt and the work folder of an interrupted cleaning."""
    return interrupt(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: {"documents": "line"}, r"--documents line \(it was blank-line\)"),
        (lambda f: {"options": load_options("web")}, r"the option account\.enabled=True \(it was False\); .* more; "),
        (lambda f: {"sources": [f / "a.txt"]}, r"the source \S+b\.txt was left out"),
        (lambda f: {"sources": [f / "b.txt", f / "a.txt"]}, "in this order"),
        (lambda f: {"sources": [write(f / "c.txt", b"c"), f / "a.txt", f / "b.txt"]}, r"c\.txt was named"),
    ],
)
def test_another_plan_needs_a_restart(interrupted: Path, change: Callable[[Path], dict[str, Any]], words: str) -> None:
    arguments = {"sources": [interrupted / "a.txt", interrupted / "b.txt"], "documents": "blank-line"}
    arguments.update(change(interrupted))
    with pytest.raises(RecipeError, match=words + ".*--restart"):
        clean(out=interrupted / "out", **arguments)
    report = clean(out=interrupted / "out", restart=True, **arguments)
    check_counts(report, interrupted / "out")
    assert not (interrupted / "out.work").exists()


def test_what_is_unchanged_is_not_read_again(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = _record_starts(monkeypatch)
    said: list[str] = []
    # The share of held-out documents only matters in the last stage.
    clean([interrupted / "a.txt", interrupted / "b.txt"], interrupted / "out", "blank-line", 0.5, say=said.append)
    assert not starts
    assert (
        re.fullmatch(r"resuming after \d+ finished parts \(\d+ documents\)", said[0])
        and said[-1] == "writing the corpus"
    )
    assert Corpus.open(interrupted / "out").count("test") > 20


def test_work_folders_of_others(interrupted: Path) -> None:
    work, sources = interrupted / "out.work", [interrupted / "a.txt", interrupted / "b.txt"]
    with (work / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RecipeError, match="another kogpt2 clean is at work"):
            clean(sources, interrupted / "out", "blank-line", restart=True)
    (work / "part-00001" / "part.json").write_text("{}")
    with pytest.raises(DataError, match=r"part-00001/part\.json: damaged.*--restart"):
        clean(sources, interrupted / "out", "blank-line")
    (work / "plan.json").write_text("[]")
    with pytest.raises(RecipeError, match=r"plan\.json: damaged.*--restart"):
        clean(sources, interrupted / "out", "blank-line")
    (work / "plan.json").unlink()
    with pytest.raises(RecipeError, match="not a work folder"):
        clean(sources, interrupted / "out", "blank-line", restart=True)
    assert (work / "part-00001").is_dir()


def test_no_open_file_is_in_the_way_on_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS keeps a folder while a file in it is open or mapped."""
    small_parts(monkeypatch)
    source = write_documents(tmp_path / "a.txt", 200)
    real, refused = shutil.rmtree, []

    def remove(path: Path, ignore_errors: bool = False) -> None:
        held = {entry.path for entry in psutil.Process().open_files()}
        held |= {entry.path for entry in psutil.Process().memory_maps(grouped=False)}
        if any(str(path) in name for name in held):
            refused.append(path)
            if not ignore_errors:
                raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))
            for entry in path.rglob("*"):
                if entry.is_file():
                    entry.unlink()
            return
        real(path, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", remove)
    report = clean([source], tmp_path / "out", "blank-line", options=load_options(None, ALL_STAGES))
    check_counts(report, tmp_path / "out")
    assert report.documents.dropped["duplicate"] and report.lines.dropped["duplicate_lines"]
    assert refused and not any("done" in path.name for path in refused)  # the scratch, never the work folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "out"]
