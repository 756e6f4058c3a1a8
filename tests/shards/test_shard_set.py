"""Reading shards: many threads, few descriptors, reads that fail now and then, files that change under the reader."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards import shard_set
from kogpt2_gluon.shards.file_pool import PAUSES, FilePool, available_memory
from kogpt2_gluon.shards.shard_set import CorruptChunkError, ShardSet
from tests.shards.shard_helpers import flip, parts_of, read_back, write_documents

LENGTHS = [100] * 130  # three shards of 8 chunks of 512 tokens, and a short one
SECOND = "train-00001.ktok"


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    write_documents(tmp_path / "set", LENGTHS)
    return tmp_path / "set"


def tokens_of(folder: Path) -> np.ndarray:
    payloads = [parts_of(path)[3] for path in sorted(folder.glob("*.ktok"))]
    return np.frombuffer(b"".join(payloads), "<u2")


def open_files(folder: Path) -> int:
    """Descriptors of this process that are files of `folder`."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(entry.readlink())
        except FileNotFoundError:
            continue
    return sum(folder in link.parents for link in links)


# --- what is read


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=40),
    dtype=st.sampled_from(["<u2", "<u4"]),
    chunk_bytes=st.sampled_from([32, 64, 128]),
    chunks_a_shard=st.integers(1, 4),
    max_open=st.integers(1, 3),
    drop=st.booleans(),
    data=st.data(),
)
def test_any_chunks_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    dtype: str,
    chunk_bytes: int,
    chunks_a_shard: int,
    max_open: int,
    drop: bool,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("any") / "set"
    tokens = write_documents(folder, lengths, chunk_bytes, chunks_a_shard * chunk_bytes, dtype)
    with ShardSet(folder, drop_behind=drop, max_open=max_open) as shards:
        out = np.zeros(shards.chunk_tokens + 5, dtype)
        for chunk in data.draw(st.lists(st.integers(0, shards.num_chunks - 1), max_size=12)):
            out[:] = 7
            start = chunk * shards.chunk_tokens
            expected = tokens[start : start + shards.chunk_tokens]
            assert shards.read_into(chunk, out, verify=data.draw(st.booleans())) == len(expected)
            assert np.array_equal(out[: len(expected)], expected)
            assert (out[shards.chunk_tokens :] == 7).all()  # the rest of the buffer is the caller's
            assert open_files(folder) <= max_open
        for chunk in (-1, shards.num_chunks):
            with pytest.raises(IndexError):
                shards.read_into(chunk, out)
    assert open_files(folder) == 0
    shutil.rmtree(folder)


def test_a_chunk_is_hashed_on_its_first_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    plain = shard_set.xxhash.xxh3_64_intdigest
    monkeypatch.setattr(shard_set.xxhash, "xxh3_64_intdigest", lambda data: hashed.append(len(data)) or plain(data))
    with ShardSet(folder) as shards:
        out = np.empty(shards.chunk_tokens, shards.dtype)
        counts = []
        for verify in (False, False, True, False):
            hashed.clear()
            shards.read_into(3, out, verify)
            counts.append(hashed.count(1024))
        assert counts == [1, 0, 1, 0]


def test_a_damaged_chunk_says_where(folder: Path) -> None:
    flip(folder / SECOND, 5 * 1024 + 3)
    with ShardSet(folder) as shards:
        out = np.empty(shards.chunk_tokens, shards.dtype)
        for _ in range(2):  # and it stays damaged
            with pytest.raises(CorruptChunkError) as caught:
                shards.read_into(13, out)
        error = caught.value
        assert (error.folder, error.shard, error.chunk, error.within, error.offset) == (folder, SECOND, 13, 5, 5120)
        assert error.path == folder / SECOND and "chunk 5 at byte 5120" in str(error) and SECOND in str(error)
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) and again.chunk == 13 and again.exit_code == 3
        assert shards.read_into(14, out) == 512


def test_damage_after_the_first_read_shows_when_asked_for(folder: Path) -> None:
    with ShardSet(folder) as shards:
        out = np.empty(shards.chunk_tokens, shards.dtype)
        shards.read_into(8, out)
        with (folder / SECOND).open("r+b") as file:  # in place: the same file
            file.write(b"\xff\xff")
        with pytest.raises(CorruptChunkError):
            shards.read_into(8, out, verify=True)


def test_a_file_that_was_replaced_is_checked_again(folder: Path, tmp_path: Path) -> None:
    with ShardSet(folder, max_open=1) as shards:
        assert len(read_back(shards)) == 13000
        shutil.copy(folder / SECOND, tmp_path / "other")
        flip(tmp_path / "other", 100)
        (tmp_path / "other").replace(folder / SECOND)
        with pytest.raises(CorruptChunkError, match=SECOND):
            read_back(shards)
    with ShardSet(folder, max_open=1) as shards:
        (folder / SECOND).write_bytes((folder / "train-00000.ktok").read_bytes())
        with pytest.raises(DataError, match=SECOND):
            read_back(shards)


def test_truncated_under_the_reader(folder: Path) -> None:
    with ShardSet(folder) as shards:
        read_back(shards)
        os.truncate(folder / SECOND, 3000)
        out = np.empty(shards.chunk_tokens, shards.dtype)
        assert shards.read_into(8, out) == 512
        with pytest.raises(CorruptChunkError, match="chunk 2 at byte 2048"):
            shards.read_into(10, out)


def test_many_document_ends_are_left_to_verify(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Document ends can be more bytes than all the tokens that a worker reads of a shard."""
    flip(folder / SECOND, 8192 + 3)
    with ShardSet(folder) as shards, pytest.raises(DataError, match=r"ends are damaged \(from byte 8192"):
        read_back(shards)
    monkeypatch.setattr(shard_set, "MAX_CHUNK_BYTES", 64)
    with ShardSet(folder) as shards:
        assert np.array_equal(read_back(shards), tokens_of_unchecked(folder))


def tokens_of_unchecked(folder: Path) -> np.ndarray:
    sizes = [8192, 8192, 8192, 1424]
    payloads = [path.read_bytes()[:size] for path, size in zip(sorted(folder.glob("*.ktok")), sizes)]
    return np.frombuffer(b"".join(payloads), "<u2")


# --- threads and descriptors


def test_threads_read_at_once_with_few_descriptors(tmp_path: Path) -> None:
    tokens = write_documents(tmp_path / "set", [50] * 2000, chunk_bytes=256, shard_bytes=1024)
    with ShardSet(tmp_path / "set", max_open=3) as shards:
        assert shards.num_shards > 150

        def read(seed: int) -> int:
            out = np.empty(shards.chunk_tokens, shards.dtype)
            order = np.random.RandomState(seed).permutation(shards.num_chunks)[:250].tolist()
            for chunk in order:
                count = shards.read_into(chunk, out)
                assert np.array_equal(out[:count], tokens[chunk * 128 : chunk * 128 + count])
            return len(order)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(read, range(8))) == 2000
        assert open_files(tmp_path / "set") <= 3
    assert open_files(tmp_path / "set") == 0


def test_no_descriptor_is_closed_while_it_is_read_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()
    plain = os.preadv
    slow: list[int] = []

    def preadv(descriptor: int, buffers: list, offset: int) -> int:
        if threading.current_thread().name == "slow" and len(buffers[0]) == 1024 and not go_on.is_set():
            slow.append(descriptor)
            reading.set()
            assert go_on.wait(30)
            os.fstat(descriptor)  # EBADF if it was closed meanwhile
        return plain(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with ShardSet(folder, max_open=1) as shards:
        shards.read_chunk(0)
        results: list[np.ndarray] = []
        thread = threading.Thread(target=lambda: results.append(shards.read_chunk(1)), name="slow")
        thread.start()
        assert reading.wait(30)
        for chunk in (9, 17, 10, 18):  # other files push it out
            shards.read_chunk(chunk)
        shards.close()
        go_on.set()
        thread.join(30)
        assert slow and np.array_equal(results[0], tokens_of(folder)[512:1024])
        assert open_files(folder) == 0  # its last user closed it


# --- a file system that fails now and then


class Stumbling:
    """os.preadv that fails `times` times with an error number, for one descriptor's file."""

    def __init__(self, number: int, times: int) -> None:
        self.number, self.left, self.descriptors = number, times, []
        self._plain = os.preadv

    def __call__(self, descriptor: int, buffers: list, offset: int) -> int:
        if len(buffers[0]) == 1024:
            self.descriptors.append(descriptor)
            if self.left:
                self.left -= 1
                raise OSError(self.number, os.strerror(self.number))
        return self._plain(descriptor, buffers, offset)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO])
@pytest.mark.parametrize("times", [1, len(PAUSES)])
def test_a_passing_failure_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, times: int
) -> None:
    waited: list[float] = []
    opened: list[str] = []
    plain_open = os.open
    monkeypatch.setattr(os, "preadv", Stumbling(number, times))
    monkeypatch.setattr(os, "open", lambda path, flags: opened.append(str(path)) or plain_open(path, flags))
    with ShardSet(folder, sleep=waited.append) as shards, caplog.at_level(logging.WARNING):
        assert np.array_equal(shards.read_chunk(9), tokens_of(folder)[9 * 512 : 10 * 512])
    assert waited == list(PAUSES[:times])
    assert opened.count(str(folder / SECOND)) == times + 1  # with a new descriptor each time
    assert len(caplog.messages) == times
    assert all(SECOND in line and "byte 1024" in line and os.strerror(number) in line for line in caplog.messages)


def test_a_failure_that_lasts_ends_in_a_data_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(os, "preadv", Stumbling(errno.EIO, 100))
    with ShardSet(folder, sleep=waited.append) as shards:
        with pytest.raises(DataError, match=f"{SECOND}: cannot be read at byte 1024 after 5 tries") as caught:
            shards.read_chunk(9)
        assert not isinstance(caught.value, CorruptChunkError)  # an outage is no damage: nothing may be skipped
        assert waited == list(PAUSES)
        monkeypatch.undo()
        assert len(shards.read_chunk(9)) == 512  # and nothing is half-open


def test_other_failures_are_not_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    with ShardSet(folder, sleep=waited.append) as shards:
        (folder / SECOND).unlink()
        with pytest.raises(DataError, match=f"{SECOND}.*No such file"):
            shards.read_chunk(9)
        monkeypatch.setattr(os, "preadv", Stumbling(errno.EACCES, 100))
        with pytest.raises(DataError, match="Permission denied"):
            shards.read_chunk(0)
    assert waited == []


def test_a_stale_file_name_is_opened_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, failures = os.open, [OSError(errno.ESTALE, "Stale file handle")]

    def stale_once(path: object, flags: int) -> int:
        if failures and path == folder / SECOND:
            raise failures.pop()
        return plain(path, flags)  # type: ignore[arg-type]

    waited: list[float] = []
    monkeypatch.setattr(os, "open", stale_once)
    with ShardSet(folder, sleep=waited.append) as shards:
        assert len(shards.read_chunk(9)) == 512
    assert waited == [PAUSES[0]]


# --- what the kernel is asked to do


@pytest.mark.parametrize(("memory", "dropped"), [(10**12, False), (1000, True)])
def test_a_set_that_does_not_fit_in_memory_is_advised_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch, memory: int, dropped: bool
) -> None:
    advice: list[tuple[int, int, int]] = []
    monkeypatch.setattr(shard_set, "available_memory", lambda: memory)
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *rest: advice.append(rest))
    with ShardSet(folder) as shards:
        shards.read_chunk(9)
    assert ((1024, 1024, os.POSIX_FADV_DONTNEED) in advice) == dropped
    assert bool(advice) == dropped


def test_available_memory_is_what_a_machine_has() -> None:
    assert 1 << 20 < available_memory() < 1 << 50


def test_a_pool_reads_to_the_end_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    pool, buffer = FilePool(), bytearray(8)
    assert [pool.read(tmp_path / "file", memoryview(buffer), offset) for offset in (0, 5, 10, 50)] == [8, 5, 0, 0]
    pool.close()
    with pytest.raises(FileNotFoundError):
        pool.read_once(tmp_path / "none", memoryview(buffer), 0)
