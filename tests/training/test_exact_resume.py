"""A run that resumes at any of its steps ends with the bytes of a run that was never interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.shards.sharding import shard_corpus
from kogpt2_gluon.training.loop import train
from tests.helpers import CHUNK_BYTES
from tests.ops.ops_helpers import PRECISIONS
from tests.training.run_helpers import FILES

STEPS = 12


@pytest.mark.parametrize("precision", [*PRECISIONS, "float16"])
def test_at_any_step(tiny: list[str], shards: Path, tmp_path: Path, precision: str) -> None:
    """With dropout, two sets of shards, two micro steps an update, and the edge of an epoch."""
    options = [
        *tiny,
        f"training.precision={precision}",
        f"data.train=[{shards / 'test'}, {_second(shards, tmp_path)}]",
        "data.test=",
        "training.batch_size=16",
        "training.total_batch_size=32",
        f"training.num_steps={STEPS}",
        "checkpoint.interval=1",
        "checkpoint.keep=0",
    ]
    straight = load_recipe("debug_cpu", options)
    assert straight.model.dropout > 0 and straight.accumulate(1) == 2
    train(straight)
    folders = sorted(straight.ckpt_dir.glob("step-*"))
    records = [json.loads(line) for line in (straight.run_dir / "metrics.jsonl").read_text().splitlines()]
    epochs = {record["step"]: record["epoch"] for record in records if record["kind"] == "train"}
    assert len(folders) == STEPS == len(epochs) and epochs[STEPS] > 1
    edge = max(step for step, epoch in epochs.items() if epoch < 1)
    for saved in sorted({1, edge, edge + 1, STEPS - 1}):
        again = load_recipe("debug_cpu", [*options, f"tracking.run_dir={tmp_path / f'again-{saved}'}"])
        shutil.copytree(folders[saved - 1], again.ckpt_dir / folders[saved - 1].name)
        train(again)
        for name in FILES:
            mine, theirs = (recipe.ckpt_dir / folders[-1].name / name for recipe in (again, straight))
            assert mine.read_bytes() == theirs.read_bytes(), (saved, name)


def _second(shards: Path, folder: Path) -> Path:
    """Another small set, with the tokenizer of the first."""
    write_sample_corpus(folder / "text.txt", num_bytes=20_000, seed=9)
    clean([folder / "text.txt"], folder / "corpus", "line")
    shard_corpus(folder / "corpus", shards / "tokenizer.model", folder / "second", "train", chunk_bytes=CHUNK_BYTES)
    return folder / "second"
