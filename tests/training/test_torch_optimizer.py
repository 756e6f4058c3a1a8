"""A run stopped on MXNet goes on in PyTorch, and comes back, with the optimizer's state."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.training_data import open_training_reader
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.training.torch_optimizer import load_optimizer, save_optimizer
from tests.helpers import kogpt2
from tests.lazy_modules import needed

torch = needed("torch", reason="the other side")
STOP, MORE, BOS = 6, 20, 1
NO_DROPOUT = ["model.dropout=0", f"training.num_steps={STOP + MORE}", "evaluation.interval=0", "checkpoint.keep=0"]


def losses(run_dir):
    return {line["step"]: line["loss"] for line in read_metrics(run_dir) if line["kind"] == "train"}


def train_in_torch(folder, model, steps):
    """Trains on the run's own batches with its clipping and schedule; returns the optimizer and each step's loss."""
    recipe, state = load_recipe(str(folder / "recipe.yaml")), json.loads((folder / "state.json").read_text())
    optimizer, schedule = load_optimizer(folder, model)
    found = []
    with open_training_reader(recipe, Worker(), state["reader"]) as reader:
        for _, update in zip(range(steps), reader):
            tokens = torch.from_numpy(np.concatenate(update).astype(np.int64))
            logits = model(tokens[:, :-1].contiguous()).logits
            labels = tokens[:, 1:].flatten()
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels, reduction="none")
            loss = losses.mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.training.clip_norm)
            optimizer.step()
            schedule.step()
            found.append(losses[labels != BOS].mean().item())  # the log leaves the beginnings of documents out
    return optimizer, found


@pytest.mark.parametrize(
    "name", ["bertadam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adamw", "adam"))]
)
def test_there_and_back(tiny, tmp_path, transformers, name):
    recipe = [*tiny, *NO_DROPOUT, f"training.optimizer={name}", "training.weight_decay=0.1"]
    kogpt2("train", "debug_cpu", *recipe, f"training.num_steps={STOP}")
    shutil.copytree(tmp_path / "run", tmp_path / "stopped")
    kogpt2("train", "debug_cpu", *recipe)
    expected = losses(tmp_path / "run")

    # From MXNet's step 6 on in PyTorch: the schedule is that of the longer run.
    stopped = open_checkpoint(tmp_path / "stopped")
    there = tmp_path / "there"
    convert_to("huggingface", stopped, there, with_optimizer=True)
    longer = (there / "recipe.yaml").read_text().replace(f"num_steps: {STOP}\n", f"num_steps: {STOP + MORE}\n")
    (there / "recipe.yaml").write_text(longer)
    model = transformers.GPT2LMHeadModel.from_pretrained(there).train()
    optimizer, found = train_in_torch(there, model, MORE)
    wanted = [expected[step] for step in range(STOP + 1, STOP + MORE + 1)]
    assert np.abs(np.array(found) - wanted).max() < 1e-3 and found[0] != found[-1]

    # Half of it in PyTorch, and back again on MXNet.
    model = transformers.GPT2LMHeadModel.from_pretrained(there).train()
    optimizer, found = train_in_torch(there, model, MORE // 2)
    save_optimizer(there, model, optimizer, STOP + MORE // 2)
    back = tmp_path / "back"
    convert_to("checkpoint", open_source(there)[0], back, with_optimizer=True)
    assert open_checkpoint(back).state()["step"] == STOP + MORE // 2
    done = kogpt2("train", "debug_cpu", *recipe, f"tracking.run_dir={back}")
    assert "going on from" in done.stdout
    again = losses(back)
    assert sorted(again) == list(range(STOP + MORE // 2 + 1, STOP + MORE + 1))
    assert max(abs(again[step] - expected[step]) for step in again) < 1e-3


@pytest.fixture
def stopped(tiny, tmp_path):
    kogpt2("train", "debug_cpu", *tiny, "training.num_steps=2")
    return open_checkpoint(tmp_path / "run")


def test_a_round_trip_with_the_state_is_bit_identical_and_goes_on(stopped, tiny, tmp_path):
    convert_to("huggingface", stopped, tmp_path / "there", with_optimizer=True)
    convert_to("checkpoint", open_source(tmp_path / "there")[0], tmp_path / "back", with_optimizer=True)
    back = open_checkpoint(tmp_path / "back")
    assert back.state() == stopped.state() and back.recipe().fingerprint() == stopped.recipe().fingerprint()
    for mine, theirs in (
        (back.model_arrays(), stopped.model_arrays()),
        (back.optimizer_arrays(), stopped.optimizer_arrays()),
    ):
        assert mine.keys() == theirs.keys() and all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)
    kogpt2("train", "debug_cpu", *tiny)
    kogpt2("train", "debug_cpu", *tiny, f"tracking.run_dir={tmp_path / 'back'}")
    one, other = (open_checkpoint(tmp_path / name).model_arrays() for name in ("run", "back"))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_weights_alone_are_no_run_to_go_on_from(stopped, tiny, tmp_path):
    convert_to("checkpoint", stopped, tmp_path / "alone")
    error = kogpt2("train", "debug_cpu", *tiny, f"tracking.run_dir={tmp_path / 'alone'}", code=2).stderr
    assert "has weights alone" in error and "--init-from" in error
    fresh = f"tracking.run_dir={tmp_path / 'fresh'}"
    kogpt2("train", "debug_cpu", *tiny, fresh, "--init-from", tmp_path / "alone", "training.num_steps=1")
    assert "안" not in error and kogpt2("generate", tmp_path / "alone", "영화", "--max-new-tokens", 2).stdout


def test_a_training_that_began_in_pytorch_goes_on_here(tiny, shards, tmp_path, transformers):
    config = {"vocab_size": 1200, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config, activation_function="gelu"))
    folder = tmp_path / "theirs"
    model.save_pretrained(folder)
    shutil.copy(shards / "train" / "tokenizer.model", folder / "spiece.model")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.arange(64).reshape(2, 32), labels=torch.arange(64).reshape(2, 32)).loss.backward()
    optimizer.step()
    recipe = load_recipe("debug_cpu", [*tiny, "training.optimizer=adamw"])
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    save_optimizer(folder, model, optimizer, 1, str(tmp_path / "r.yaml"))
    convert_to("checkpoint", open_source(folder)[0], tmp_path / "here", with_optimizer=True)
    done = kogpt2("train", tmp_path / "here" / "recipe.yaml", f"tracking.run_dir={tmp_path / 'here'}")
    assert "does not say how much data was read, so the data begins at its start" in done.stdout
    assert sorted(losses(tmp_path / "here")) == list(range(2, 9))


def test_what_cannot_be_taken_over_is_named(stopped, tmp_path, transformers):
    convert_to("huggingface", stopped, tmp_path / "plain")
    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "plain")
    with pytest.raises(RecipeError, match="recipe"):
        load_optimizer(tmp_path / "plain", model)
    convert_to("huggingface", stopped, tmp_path / "there", with_optimizer=True)
    recipe = (tmp_path / "there" / "recipe.yaml").read_text()
    kind = next(line for line in recipe.splitlines() if line.strip().startswith("optimizer:"))
    (tmp_path / "there" / "recipe.yaml").write_text(recipe.replace(kind, "  optimizer: lamb"))
    with pytest.raises(RecipeError, match="lamb: PyTorch does not have it"):
        load_optimizer(tmp_path / "there", model)
    (tmp_path / "there" / "recipe.yaml").write_text(recipe)
    (tmp_path / "there" / "state.json").write_text("[]")
    with pytest.raises(DataError, match="made by kogpt2 convert --with-optimizer"):
        load_optimizer(tmp_path / "there", model)
