"""Helpers for the tests of all rooms: the checkout, real text, and running commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL_TEXT = ROOT.parent / "shared" / "korean"
# A test process knows by it what it has started: tests/conftest.py makes it the last folder of PATH, which does not
# exist, since the launcher hands few other variables on to the engines.
MARK = f"/kogpt2-test-{uuid.uuid4().hex}"
CHUNK_BYTES = 4096  # far below what `kogpt2 shard` chooses, so that little text has many chunks


def run(*argv: object, code: int = 0, timeout: float = 300, **variables: str) -> subprocess.CompletedProcess:
    """Runs a command and checks its exit code; both outputs are in the message if it is another."""
    done = subprocess.run(
        [str(part) for part in argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **variables},
        check=False,
    )
    assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def kogpt2(*arguments: object, code: int = 0, **variables: str) -> subprocess.CompletedProcess:
    """The installed command, as a user runs it."""
    return run(sys.executable, "-m", "kogpt2_gluon.cli.main", *arguments, code=code, **variables)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of its own of `size` bytes, mounted on a new folder; skips the test where that is not allowed."""
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(disk: Path, size: int) -> None:
    """Gives a disk of `small_disk` another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def make_shards(work: Path) -> Path:
    """Makes a folder with train/ and test/ shards of the package's own sentences; vocabulary 1200, 4 KiB chunks."""
    from kogpt2_gluon.corpus.cleaning import clean
    from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
    from kogpt2_gluon.shards.sharding import shard_corpus
    from kogpt2_gluon.tokens.training import train_tokenizer

    work.mkdir(exist_ok=True)
    write_sample_corpus(work / "text.txt", num_bytes=400_000, seed=3)
    clean([work / "text.txt"], work / "corpus", "line", test_share=0.05)
    train_tokenizer(work / "corpus", work / "tokenizer.model", 1200, unused=4)
    for split in ("train", "test"):
        shard_corpus(work / "corpus", work / "tokenizer.model", work / split, split, chunk_bytes=CHUNK_BYTES)
    return work


def tiny_settings(shards: Path, run_dir: Path) -> list[str]:
    """Overrides that turn any recipe into a tiny one on these shards, with this run folder."""
    return [
        "model.units=32",
        "model.num_heads=2",
        "model.num_layers=2",
        "model.max_length=32",
        "model.vocab_size=1200",
        "model.dropout=0.1",
        f"data.train={shards / 'train'}",
        f"data.test={shards / 'test'}",
        "data.seq_length=32",
        "training.batch_size=4",
        "training.total_batch_size=8",
        "training.num_steps=8",
        "training.learning_rate=1e-3",
        "training.threads=1",
        "evaluation.max_sequences=16",
        "checkpoint.interval=3",
        "tracking.log_interval=1",
        "tracking.tensorboard=false",
        "tracking.sample_prompts=[]",
        f"tracking.run_dir={run_dir}",
    ]
