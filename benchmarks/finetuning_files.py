"""The files of `finetuning_speed.py`: a network with random weights in both forms, and the rows for both sides."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.convert.names import parameters_of
from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.runs.checkpoint import save_checkpoint
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer
from kogpt2_gluon.tasks.encoding import Examples, encode
from kogpt2_gluon.tasks.loading import open_task, read_split
from kogpt2_gluon.tasks.order import Order
from kogpt2_gluon.tasks.task import Row, Task
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.tokens.training import train_tokenizer
from kogpt2_gluon.training.finetune_plan import TUNED, Plan
from kogpt2_gluon.training.task_objective import training_rows
from kogpt2_gluon.wording import silent

TASK = "nsmc"
CHECKPOINT, FOLDER, WHOLE, RUN = "checkpoint", "transformers", "data", "run"  # below the folder of the benchmark
STEPS_FILE, TRAIN_FILE, TEST_FILE = "steps.jsonl", "train.jsonl", "test.jsonl"
DEVIATION, OF_POSITIONS = 0.02, 0.01  # of random weights


def recipe_of(work: Path, data: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe that `kogpt2 finetune` makes of the same arguments."""
    plan = Plan(work / CHECKPOINT, TASK, str(data), overrides=[*overrides, f"tracking.run_dir={work / RUN}"])
    (recipe,) = plan.recipes(silent)[TUNED]
    return recipe


def make_network(work: Path, model: str, sizes: Sequence[str], tokenizer: Path) -> None:
    """Saves a checkpoint with random weights, and converts it to a transformers folder."""
    recipe, draw = load_recipe(model, ["data.seq_length=32", *sizes]), np.random.default_rng(0)
    arrays = {}
    for each in parameters_of(recipe.model):
        kind = each.name.rpartition(".")[2]
        if kind == "weight":
            deviation = OF_POSITIONS if each.name.startswith("_pos_embed") else DEVIATION
            arrays[each.name] = draw.standard_normal(each.shape, np.float32) * np.float32(deviation)
        else:
            arrays[each.name] = np.full(each.shape, float(kind == "gamma"), np.float32)
    save_checkpoint(work / CHECKPOINT, {"step": 1}, arrays, {}, recipe, stored_tokenizer(tokenizer))
    source, _ = open_source(work / CHECKPOINT)
    convert_to("huggingface", source, work / FOLDER)


def make_tokenizer(work: Path, text: Path, pieces: int) -> Path:
    """Trains a tokenizer on a text, a document a line."""
    clean([text], work / "corpus", "line")
    train_tokenizer(work / "corpus", work / "tokenizer.model", pieces, unused=4)
    return work / "tokenizer.model"


def make_rows(work: Path, data: Path, overrides: Sequence[str], windows: int) -> dict[str, Any]:
    """Writes the rows that our timed steps are made of, for Trainer; returns what is known of them.

    These are all rows of `windows` windows of our order, after a first one that the warm-up steps are from.
    """
    recipe = recipe_of(work, data, overrides)
    task, tokenizer = open_task(TASK), Tokenizer.load(open_source(work / CHECKPOINT)[0].tokenizer_path)
    rows, _ = training_rows(task, recipe, say)
    examples = encode(task, rows, tokenizer, recipe.data.seq_length, cut=True)
    batch_size = recipe.training.total_batch_size
    order = Order(examples.lengths, batch_size, recipe.training.seed)
    updates = [order.update(number) for number in range(order.window, (1 + windows) * order.window)]
    used = np.concatenate(updates)
    write_rows(work / STEPS_FILE, task, [rows[row] for row in used])
    lengths = examples.lengths[used]
    padded = sum(batch_size * int(examples.lengths[update].max()) for update in updates)
    return {
        "window": order.window,
        "steps": len(updates),
        "ids": checksum(examples, used),
        "tokens_per_row": float(lengths.mean()),
        "padded_tokens_per_row": padded / len(used),
    }


def make_whole(work: Path, data: Path, train_rows: int, test_rows: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Writes the first rows of both files as our data, and the rows that ours trains on and answers, for Trainer."""
    task, folder = open_task(TASK), work / WHOLE
    folder.mkdir()
    for split, count in (("train", train_rows), ("test", test_rows)):
        rows = read_split(task, data, split, say)[:count]
        lines = [f"{number}\t{row.texts[0]}\t{task.labels.index(row.label)}" for number, row in enumerate(rows)]
        text = "\n".join(["id\tdocument\tlabel", *lines, ""])
        (folder / Path(task.splits[split].files[0]).name).write_text(text, encoding="utf-8")
    recipe = recipe_of(work, folder, overrides)
    trained, _ = training_rows(task, recipe, say)
    test = read_split(task, folder, "test", say)
    write_rows(work / TRAIN_FILE, task, trained)
    write_rows(work / TEST_FILE, task, test)
    tokenizer = Tokenizer.load(open_source(work / CHECKPOINT)[0].tokenizer_path)
    examples = encode(task, trained, tokenizer, recipe.data.seq_length, cut=True)
    return {"train": len(trained), "test": len(test), "ids": checksum(examples, np.arange(len(examples)))}


def write_rows(path: Path, task: Task, rows: Sequence[Row]) -> None:
    lines = [json.dumps({"text": row.texts[0], "label": task.labels.index(row.label)}) for row in rows]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def checksum(examples: Examples, rows: np.ndarray) -> list[int]:
    """Tokens of the rows, and the sum of their ids."""
    ids = np.concatenate([examples.tokens[examples.ends[row] : examples.ends[row + 1]] for row in rows])
    return [len(ids), int(ids.sum())]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
