"""Training on several sets, on damaged ones, and with state of other data: real processes end to end."""

from __future__ import annotations

import gzip
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.evaluation import evaluate_checkpoint
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from tests.helpers import CHUNK_BYTES, kogpt2, run
from tests.training.run_helpers import HORUN, losses


def parameters(run_dir: Path) -> bytes:
    return (open_checkpoint(run_dir).path / "model.params").read_bytes()


@pytest.fixture()
def mixed(tiny: list[str], shards: Path) -> list[str]:
    """The tiny recipe on two sets with weights."""
    train = f"data.train={{{shards / 'train'}: 7, {shards / 'test'}: 3}}"
    return [train if each.startswith("data.train=") else each for each in tiny]


def two_workers(*arguments: object, code: int = 0) -> str:
    done = run(
        *HORUN, "--gloo", "-np", 2, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", *arguments, code=code
    )
    return done.stdout + done.stderr


def test_a_mix_resumes_exactly_and_is_the_same_for_two_workers(mixed, shards, tmp_path):
    done = kogpt2("train", "debug_cpu", *mixed)
    assert "70.00% of the sequences" in done.stdout and "30.00% of the sequences" in done.stdout
    state = open_checkpoint(tmp_path / "run").state()["reader"]
    assert state["consumed"] == 64 and "version" in state
    again = [*mixed, f"tracking.run_dir={tmp_path / 'again'}"]
    kogpt2("train", "debug_cpu", *again, "--resume", tmp_path / "run" / "checkpoints" / "step-00000006")
    assert parameters(tmp_path / "again") == parameters(tmp_path / "run")
    assert evaluate_checkpoint(tmp_path / "run", shards / "test").tokens > 1000  # its recipe's data is a mapping
    two = [*mixed, f"tracking.run_dir={tmp_path / 'two'}", "model.dropout=0"]
    two_workers("debug_cpu", *two)
    kogpt2("train", "debug_cpu", *mixed, f"tracking.run_dir={tmp_path / 'one'}", "model.dropout=0")
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)


def test_a_run_goes_on_with_its_own_mix_only(mixed, tiny, shards, tmp_path):
    kogpt2("train", "debug_cpu", *mixed, "training.num_steps=3")
    other = f"data.train={{{shards / 'train'}: 7, {shards / 'test'}: 4}}"
    refused = kogpt2("train", "debug_cpu", *mixed, other, code=2).stderr
    assert "data.train: {" in refused and "3.0} -> {" in refused and refused.count("\n") == 1
    assert "data.train: {" in kogpt2("train", "debug_cpu", *tiny, code=2).stderr
    swapped = f"data.train={{{shards / 'test'}: 7, {shards / 'train'}: 3}}"
    refused = kogpt2("train", "debug_cpu", *mixed, swapped, code=3).stderr
    assert "step-00000003: its data had fingerprint" in refused and refused.count("\n") == 1
    moved = tmp_path / "moved"
    shutil.copytree(shards / "train", moved)
    kogpt2("train", "debug_cpu", *mixed, f"data.train={{{moved}: 7, {shards / 'test'}: 3}}")
    assert open_checkpoint(tmp_path / "run").state()["step"] == 8


@pytest.fixture()
def text(tiny: list[str], shards: Path, tmp_path: Path) -> list[str]:
    """The tiny recipe on two files of text; 128 sequences a step are a third of an epoch."""
    lines = (shards / "text.txt").read_text(encoding="utf-8").splitlines()[:700]
    (tmp_path / "text").mkdir()
    for number in range(2):
        part = "\n".join(lines[number::2]) + "\n"
        (tmp_path / "text" / f"wiki_news_corpus_{number}").write_text(part, encoding="utf-8")
    how = ["source=text", f"train={tmp_path / 'text'}", f"tokenizer={shards / 'tokenizer.model'}", "refresh=epoch"]
    return [*tiny, *(f"data.{each}" for each in how), "training.total_batch_size=128", "training.batch_size=64"]


def test_text_is_trained_on_and_resumed_exactly(text, tmp_path):
    """By the stop rule, over an epoch's end,; and again from a checkpoint."""
    rule = ["evaluation.stop_improvement=0.01", "training.learning_rate=0", "training.num_steps=1000"]
    options = ["debug_cpu", *text, *rule, "data.bpe_dropout=0.1", "checkpoint.keep=0"]
    done = kogpt2("train", *options)
    assert "epoch 1: 700 documents of 2 text files; nothing left out" in done.stdout and "stop rule met" in done.stdout
    state = open_checkpoint(tmp_path / "run").state()
    assert state["stop_rule_met"] and state["reader"]["epoch"] == 2
    assert state["reader"]["consumed"] == 128 * state["step"] and state["step"] > 6
    again = [f"tracking.run_dir={tmp_path / 'again'}"]
    kogpt2("train", *options, *again, "--resume", tmp_path / "run" / "checkpoints" / "step-00000003")
    assert open_checkpoint(tmp_path / "again").state() == state
    assert losses(tmp_path / "again") == losses(tmp_path / "run")[3:]


def test_a_fault_of_one_workers_file_ends_all_workers(text, tmp_path):
    """The other worker is in the middle of a step then; the launcher brings the reason back.

    It once aborted there, in one run of eight, and its exit code became the job's: see training/worker.py.
    """
    path = tmp_path / "text" / "wiki_news_corpus_1"
    data = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_suffix(".gz").write_bytes(data[: len(data) // 2])
    done = run(sys.executable, "-m", "launch", "run", "debug_cpu", *text, "--np", 2, code=3)
    assert "wiki_news_corpus_1.gz: " in done.stdout + done.stderr


def test_tokens_on_the_device_are_copies():
    """Memory that Python lends MXNet is given back by MXNet's own threads, and aborts the process if it is ending."""
    from kogpt2_gluon.machine.runtime import mx
    from kogpt2_gluon.training.batches import device_batches

    class Blocks:
        used = 0

        def blocks(self):
            for number in range(2):
                yield np.arange(24, dtype=np.int32).reshape(3, 1, 2, 4) + 100 * number

        def count_update(self):
            self.used += 1

    reader = Blocks()
    updates = []
    for number, (tokens, array) in enumerate(device_batches(reader, mx.cpu()), start=1):
        assert reader.used == number and array.dtype == np.int32
        updates.append((tokens.copy(), array))
        tokens[:] = -1  # lent memory could not be written to, and would show it
    assert len(updates) == 6 and updates[5][0].max() == 123
    for tokens, array in updates:
        assert (array.asnumpy() == tokens).all()


def test_a_run_that_cannot_begin_leaves_no_thread(tiny, tmp_path, monkeypatch):
    from kogpt2_gluon.training import setup

    def fail(*_, **__):
        assert threading.active_count() > before
        raise DataError("no network")

    monkeypatch.setattr(setup, "new_network", fail)
    before = threading.active_count()
    with pytest.raises(DataError, match="no network"):
        setup.set_up(load_recipe("debug_cpu", tiny), "auto")
    assert threading.active_count() == before


def test_the_estimate_names_each_set(mixed, shards):
    done = kogpt2("train", "debug_cpu", *mixed, "--dry-run").stdout
    for folder, share in ((shards / "train", "70.00%"), (shards / "test", "30.00%")):
        (line,) = [line for line in done.splitlines() if line.startswith(f"  {folder}: ") and "passes" in line]
        assert share in line
    listed = f"data.train=[{shards / 'train'}, {shards / 'test'}]"
    passes = [
        line.rsplit(", ", 1)[1]
        for line in kogpt2("train", "debug_cpu", *mixed, listed, "--dry-run").stdout.splitlines()
        if line.endswith(" passes")
    ]
    assert len(passes) == 2 and passes[0] == passes[1]  # one corpus


def test_a_damaged_chunk_is_skipped_if_the_recipe_says_so(tiny, shards, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(shards / "train", bad)
    path = bad / "train-00000.ktok"
    data = bytearray(path.read_bytes())
    data[2 * CHUNK_BYTES + 5] ^= 1
    path.write_bytes(data)
    options = [*tiny, f"data.train={bad}", "model.dropout=0"]
    stopped = kogpt2("train", "debug_cpu", *options, code=3).stderr
    assert f"{path}: chunk 2 at byte {2 * CHUNK_BYTES} is damaged" in stopped
    line = f"{path}: chunk 2 at byte {2 * CHUNK_BYTES} is damaged; a neighbour is read in its place (1 skipped so far)"
    one = [*options, "data.corrupt=skip", f"tracking.run_dir={tmp_path / 'one'}"]
    assert kogpt2("train", "debug_cpu", *one).stdout.count(line) == 1
    two_workers("debug_cpu", *options, "data.corrupt=skip", f"tracking.run_dir={tmp_path / 'two'}")
    for name in ("one", "two"):
        assert (tmp_path / name / "log.txt").read_text().count(line) == 1
        assert open_checkpoint(tmp_path / name).state()["reader"]["skipped"] == 1
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
