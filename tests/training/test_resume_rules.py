"""docs/training.md says for every key of a recipe when a resume may change it; the code does what it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.recipe import known_keys, load_recipe
from kogpt2_gluon.training.dry_run import check
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.resume_rules import FREELY, IF_ALLOWED, NEVER, PATH, rule_of
from tests.helpers import ROOT

# Another value for every key; those of the tiny recipe are in tests/conftest.py.
OTHER = {
    "name": "another",
    "about": "another",
    "model.units": 64,
    "model.num_layers": 3,
    "model.num_heads": 4,
    "model.max_length": 64,
    "model.vocab_size": 1300,
    "model.dropout": 0.2,
    "model.activation": "gelu_tanh",
    "data.test": "",
    "data.seq_length": 16,
    "data.window": 4,
    "data.max_lanes": 4,
    "data.corrupt": "skip",
    "data.cache": "full",
    "data.cache_dir": "/tmp/another",
    "data.cache_gib": 3,
    "data.source": "shards",
    "data.documents": "blank-line",
    "data.refresh": "epoch",
    "data.encoding": "utf-8",
    "data.include": "['*']",
    "data.exclude": "['*.none']",
    "data.bpe_dropout": 0.2,
    "training.num_steps": 20,
    "training.batch_size": 2,
    "training.total_batch_size": 16,
    "training.optimizer": "lamb",
    "training.learning_rate": 0.5,
    "training.final_learning_rate": 1e-5,
    "training.schedule": "cosine",
    "training.warmup_ratio": 0.5,
    "training.weight_decay": 0.5,
    "training.beta1": 0.5,
    "training.beta2": 0.5,
    "training.epsilon": 0.5,
    "training.clip_norm": 0.5,
    "training.on_nonfinite": "skip",
    "training.on_spike": "rollback",
    "training.spike_window": 8,
    "training.spike_sigmas": 3,
    "training.spike_leave_out": 2,
    "training.most_skipped": 3,
    "training.compare_interval": 3,
    "training.init_from": "nowhere",
    "training.init_positions": "repeat",
    "training.init_vocabulary": "mean",
    "training.init_renamed": "mean",
    "training.seed": 3,
    "training.precision": "auto",
    "training.ops": "stock",
    "training.recompute": "layer",
    "training.device": "cpu",
    "training.threads": 2,
    "evaluation.interval": 3,
    "evaluation.batch_size": 3,
    "evaluation.max_sequences": 3,
    "evaluation.stop_improvement": 0.5,
    "evaluation.patience": 3,
    "checkpoint.interval": 7,
    "checkpoint.keep": 7,
    "checkpoint.keep_every": 7,
    "checkpoint.keep_best": "false",
    "checkpoint.in_background": "false",
    "checkpoint.mirrors": "[/tmp/another]",
    "tracking.log_interval": 7,
    "tracking.tensorboard": "true",
    "tracking.mlflow": "http://localhost:1",
    "tracking.wandb": "offline",
    "tracking.sample_prompts": "[오늘은]",
    "tracking.sample_length": 7,
}
# These have tests of their own; those of a task are in test_task_objective.py, of an adaptation in test_adaptation.py,
# of a teacher in test_distillation.py.
ELSEWHERE = ("tracking.run_dir", "checkpoint.ckpt_dir", "data.train", "data.tokenizer")
ELSEWHERE += tuple(key for key in known_keys() if key.startswith(("task.", "adaptation.", "distillation.")))
FOR_TEXT = ("data.documents", "data.refresh", "data.encoding", "data.include", "data.exclude", "data.bpe_dropout")


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The overrides of two runs of two steps, on shards and on text."""
    work = tmp_path_factory.mktemp("rules")
    (work / "text").mkdir()
    shutil.copy(shards / "text.txt", work / "text" / "text.txt")
    tiny = ["model.units=32", "model.num_heads=2", "model.num_layers=2", "model.max_length=32", "model.vocab_size=1200"]
    tiny += ["data.seq_length=32", f"data.test={shards / 'test'}", "evaluation.max_sequences=4", "training.threads=1"]
    tiny += [
        "training.batch_size=4",
        "training.total_batch_size=8",
        "training.num_steps=2",
        "tracking.tensorboard=false",
    ]
    text = ["data.source=text", f"data.train={work / 'text'}", f"data.tokenizer={shards / 'tokenizer.model'}"]
    found = {
        "shards": [*tiny, f"data.train={shards / 'train'}", f"tracking.run_dir={work / 'shards'}"],
        "text": [*tiny, *text, f"tracking.run_dir={work / 'text-run'}"],
    }
    for overrides in found.values():
        train(load_recipe("debug_cpu", overrides))
    return found


def documented() -> dict[str, str]:
    """{key: rule} of the table; `evaluation.*` stands for all keys of that section."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = text.partition("## What a resume may change")[2].partition("\n\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for row in table.splitlines()[2:]:
        rule, keys = (cell.strip() for cell in row.strip("|").split("|"))
        for name in re.findall(r"`([^`]+)`", keys):
            named = [key for key in known_keys() if key == name or (name[-2:] == ".*" and key.startswith(name[:-1]))]
            assert named, f"{name} is no key"
            assert not found.keys() & named, f"{name} twice"
            found.update(dict.fromkeys(named, rule))
    return found


def test_the_table_is_that_of_the_code() -> None:
    assert documented() == {key: rule_of(key) for key in known_keys()}
    assert {rule_of(key) for key in known_keys()} == {FREELY, PATH, IF_ALLOWED, NEVER}


def test_every_key_is_tried() -> None:
    assert {*OTHER, *ELSEWHERE} == set(known_keys())


@pytest.mark.parametrize("source", ["shards", "text"])
@pytest.mark.parametrize("key", OTHER)
def test_a_resume_does_what_the_table_says(runs: dict[str, list[str]], key: str, source: str) -> None:
    """Through all checks of a start: those of the recipe, and the reader's of its saved state."""
    if (source == "shards" and key in FOR_TEXT) or (source == "text" and key in ("data.window", "data.max_lanes")):
        pytest.skip("of no effect there")
    if source == "text" and key in ("data.cache", "data.cache_dir", "data.cache_gib"):
        pytest.skip("refused there: shards only")
    overrides = [*runs[source], f"{key}={OTHER[key]}"]
    if key == "data.cache":
        overrides.append("data.cache_dir=/tmp/another")
    if key == "data.source":
        other = runs["text" if source == "shards" else "shards"]
        overrides = [*other, f"tracking.run_dir={load_recipe('debug_cpu', runs[source]).run_dir}"]
    recipe = load_recipe("debug_cpu", overrides)
    before = load_recipe("debug_cpu", runs[source])
    assert recipe != before
    if rule_of(key) == FREELY:
        assert any(line.startswith("start              resumes from step 2") for line in check(recipe))
        return
    with pytest.raises(KoGPT2Error) as caught:
        check(recipe)
    assert "\n" not in str(caught.value)
    if rule_of(key) == IF_ALLOWED:
        assert f"--allow-change {key}" in str(caught.value)
        assert any(line.startswith(f"changed since then {key}: ") for line in check(recipe, allow_change=[key]))


def test_data_may_move_and_not_change(runs: dict[str, list[str]], shards: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(shards / "train", tmp_path / "moved"))
    check(load_recipe("debug_cpu", [*runs["shards"], f"data.train={moved}"]))
    with pytest.raises(KoGPT2Error, match="its data had fingerprint"):
        check(load_recipe("debug_cpu", [*runs["shards"], f"data.train={shards / 'test'}"]))
    with pytest.raises(KoGPT2Error, match=r"data\.train: "):
        check(load_recipe("debug_cpu", [*runs["shards"], f"data.train=[{moved}, {shards / 'test'}]"]))
    shutil.copy(shards / "tokenizer.model", tmp_path / "moved.model")
    check(load_recipe("debug_cpu", [*runs["text"], f"data.tokenizer={tmp_path / 'moved.model'}"]))
