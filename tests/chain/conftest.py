"""A chain of tiny runs, and a way to run its stages in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from kogpt2_gluon.chain import running
from kogpt2_gluon.chain.chain_file import load_chain
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.storage.files import write_file
from tests.helpers import tiny_settings
from tests.training.task_helpers import write_task


@pytest.fixture
def chain_file(shards: Path, tmp_path: Path) -> Path:
    """Pretrain, adapt, distil, score, tune, on the tiny shards."""
    tiny = dict(each.split("=", 1) for each in tiny_settings(shards, tmp_path) if not each.startswith("tracking.run"))
    tiny["tracking.sample_prompts"] = []  # an empty list, not a text
    del tiny["training.threads"]  # as many as this process has
    task = write_task(tmp_path / "task", rows=40)
    taught = {"model.num_layers": 1, "distillation.teacher": "{adapt}", "distillation.init_layers": True}
    few = {"task.epochs": 0, "training.num_steps": 2, "training.batch_size": 4, "training.total_batch_size": 4}
    few |= {"tracking.tensorboard": False, "evaluation.interval": 0, "data.seq_length": 32}
    stages = {
        "pretrain": {"train": "demo", "settings": tiny},
        "adapt": {
            "train": "demo",
            "settings": {**tiny, "training.init_from": "{pretrain}", "adaptation": {"method": "lora", "rank": 2}},
        },
        "distil": {"train": "demo", "settings": {**tiny, **taught}},
        "score": {"evaluate": "{distil}", "data": str(shards / "test")},
        "tune": {
            "finetune": "{distil}",
            "task": str(task),
            "data": str(task.parent),
            "baselines": False,
            "settings": few,
        },
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"folder": str(tmp_path / "chain"), "stages": stages}, sort_keys=False))
    return path


@pytest.fixture
def run_here(monkeypatch, chain_file):
    """Returns a function that runs the chain with its stages in this process, and returns the names of those begun."""
    begun: list[str] = []

    def process(stage, argv, folder):
        from kogpt2_gluon.cli.main import cli

        begun.append(stage.name)
        words = argv[len(running.KOGPT2) :]
        done = CliRunner().invoke(cli, [str(word) for word in words])
        if isinstance(done.exception, KoGPT2Error):
            return done.exception.exit_code, str(done.exception)
        assert done.exit_code == 0, (words, done.output, done.exception)
        if stage.verb == "evaluate":
            folder.mkdir(exist_ok=True)
            write_file(folder / running.SCORES, done.stdout.encode())
        return 0, ""

    monkeypatch.setattr(running, "_process", process)

    def run(*overrides, again=(), say=lambda line: None):
        begun.clear()
        chain = load_chain(str(chain_file), overrides)
        record = running.run_chain(chain, again, (), say)
        return list(begun), running.table(chain, record)

    run.begun = begun
    return run
