"""Targets: what a run and a launch leave on disk or send, and what people write: recipe, hosts, plan."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.reading.place import find_place
from kogpt2_gluon.reading.text.files import TextFiles
from kogpt2_gluon.reading.text.saved import TextSettings, note_on_length, saved_files
from kogpt2_gluon.reading.text.tokens import Cursor
from kogpt2_gluon.recipe import Recipe, load_recipe, parse_recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from kogpt2_gluon.runs.report import render_report
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.storage.tokenizer_file import StoredTokenizer
from kogpt2_gluon.training.loss_scale import loss_scale_for
from kogpt2_gluon.training.resume import restore_state
from kogpt2_gluon.training.saved_records import check_records
from kogpt2_launch.host.link import proof
from kogpt2_launch.hosts import parse_hosts, read_hostfile
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.plan.plan_file import load_plan
from kogpt2_launch.run.control import Control
from kogpt2_launch.run.status import describe, read_status
from tests.fuzz.mutate import dump, mutate_bytes, mutate_json, mutate_plain, text_mutator
from tests.fuzz.sets import write_set
from tests.fuzz.target import Target

RECIPE = {"name": "fuzz", "model": {"units": 16, "num_heads": 2, "num_layers": 1, "max_length": 32}}
RECIPE["data"] = {"train": {"a": 1, "b": 0.5}, "seq_length": 16}
ARRAYS = {"_embed.weight": np.ones((7, 3), "float32"), "b": np.zeros(5, "float32")}
MOMENTS = {f"{name}:{k}": array for name, array in ARRAYS.items() for k in (0, 1)}
READER = {"lanes": 2, "seq_length": 16, "course": 0, "consumed": 8, "skipped": 0, "epochs_before": 0.0}
BEST = {"step": 3, "loss": 1.5, "held_out": "h", "seq_length": 16, "sequences": 4}
STATE = {"step": 3, "loss_scale": None, "reader": READER, "best": BEST, "evaluation": None, "epoch_perplexity": None}


def checkpoint_in(folder: Path) -> Path:
    tokenizer = StoredTokenizer("tokenizer.model", b"the bytes of a tokenizer")
    return save_checkpoint(folder / "checkpoints", STATE, ARRAYS, MOMENTS, parse_recipe(RECIPE), tokenizer)


def read_checkpoint(path: Path) -> None:
    checkpoint = open_checkpoint(path.parent)
    checkpoint.verify()
    checkpoint.state()


def place_checkpoint(path: Path, data: bytes) -> None:
    """Puts the other files of a checkpoint next to its manifest."""
    if not (path.parent / "model.params").exists():
        made = checkpoint_in(path.parent)
        for file in made.iterdir():
            if file.name != path.name:
                file.rename(path.parent / file.name)


def manifest_seeds(folder: Path) -> list[bytes]:
    plain = json.loads((checkpoint_in(folder) / "manifest.json").read_bytes())
    older = {"format_version": 1, "files": {**plain["files"]}}
    older["files"] = {name: {**facts, "xxh3_128": facts["xxh3_128"][0]} for name, facts in plain["files"].items()}
    return [dump(plain), dump(older)]


def state_seeds(folder: Path) -> list[bytes]:
    write_set(folder / "set")
    with ShardSet(folder / "set") as shards:
        recipe = parse_recipe({"data": {"train": "a", "seq_length": 8}, "model": RECIPE["model"]})
        mix, _ = find_place([shards], recipe, 1, None, "", {})
        reader = {**mix.state(0), "skipped": 0, "epochs_before": 0.0, "epoch_ended": False}
    scale = {"scale": 65536.0, "clean_updates": 3, "skipped_at_smallest": 0}
    evaluation = {"step": 3, "attempt": 4, "loss": 1.5, "perplexity": 4.5}
    whole = {**STATE, "skipped": 1, "evaluation": evaluation, "stop_rule_met": False, "loss_scale": scale}
    changes = [{"step": 2, "key": "training.total_batch_size", "from": 8, "to": 16}]
    files = {**STATE_OF_TEXT, "history": [[0, FILES.fingerprint, 1, 9]]}
    return [dump({**whole, "reader": reader, "changes": changes}), dump({**whole, "reader": files}), dump({"step": 1})]


STATE_OF_TEXT = {
    "version": 1, "source": "text", "consumed": 8, "epoch": 0, "share_read": 0.5, "unread": 0.0, "epoch_ended": False,
    "reported": 0, "history": [[0, "", 1, 9]], "history_hash": "h", "files": [["a.txt", 9, "1"]],
    "settings": {"tokenizer_sha256": "5a", "documents": "line", "bpe_dropout": 0.0, "seq_length": 16, "seed": 0},
    "workers": [[0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 8]],
}  # fmt: skip
FILES = TextFiles((Source("a.txt", 9, "1"),))
OPEN: list[ShardSet] = []


def read_state(path: Path) -> None:
    """Reads a state as a resume does: for a run over shards, and for one over text."""
    saved = Checkpoint(path.parent, {}).state()
    check_records(saved, str(path))
    restore_state(saved)
    loss_scale_for("float16", saved.get("loss_scale"))
    reader = saved.get("reader")
    if reader is None:
        return
    if reader.get("source") == "text":
        settings = TextSettings(**STATE_OF_TEXT["settings"])  # type: ignore[arg-type]
        found = saved_files(reader, settings, 1, FILES, str(path), new_length=True)
        note_on_length(reader, settings)
        found.deal(1)
        Cursor.from_row(reader["workers"][0][:-1])
    else:
        if not OPEN:
            write_set(path.parent / "set")
            OPEN.append(ShardSet(path.parent / "set"))
        recipe = parse_recipe({"data": {"train": str(path.parent / "set"), "seq_length": 8}, "model": RECIPE["model"]})
        find_place(OPEN, recipe, 1, reader, str(path), {})


# ---- the record of a run

TRAIN = {"kind": "train", "step": 10, "time": 1.7e9, "loss": 5.1, "learning_rate": 1e-4, "tokens_per_second": 900.0}
RECORDS = [
    {"kind": "start", "step": 0, "time": 1.7e9, "recipe": "fuzz", "size": 1},
    TRAIN,
    {**TRAIN, "step": 20, "loss": 4.0, "grad_norm": float("nan"), "epoch": 0.5},
    {"kind": "evaluation", "step": 20, "time": 1.7e9, "loss": 4.2, "perplexity": 66.7, "bits_per_byte": 1.9},
    {"kind": "change", "step": 20, "time": 1.7e9, "key": "training.learning_rate", "before": 1, "now": 2},
    {"kind": "checkpoint", "step": 20, "time": 1.7e9, "seconds": 0.5, "path": "checkpoints/step-00000020"},
]


def record_seeds(folder: Path) -> list[bytes]:
    return [b"".join(dump(record) + b"\n" for record in RECORDS)]


def mutate_records(draw: random.Random, data: bytes) -> bytes:
    """Changes the object on a line."""
    lines = data.split(b"\n")
    at = draw.randrange(len(lines))
    if draw.randrange(6) == 0:
        return mutate_bytes(draw, data)
    lines[at] = mutate_json(draw, lines[at])
    if draw.randrange(4) == 0:
        lines.insert(at, draw.choice(lines))
    return b"\n".join(lines)[: 1 << 16]


def environment_seeds(folder: Path) -> list[bytes]:
    packages = {"mxnet": "1.9.1", "numpy": "1.23.5"}
    return [dump({"revision": {"commit": "0" * 40, "modified": False}, "packages": packages, "host": "h1", "cores": 2})]


def place_record(path: Path, data: bytes) -> None:
    (path.parent / "metrics.jsonl").write_bytes(record_seeds(path.parent)[0])


# ---- what people write

YAML_WORDS = ["&a", "*a", "<<: *a", "&a [*a]", "[*a, *a]", "{a: *a}", "!!python/object:os.system x", "!!int x", "!!set"]
YAML_WORDS += ["!!binary =", "1:40", ".inf", "-.inf", ".nan", "1e400", "0x" + "f" * 300, "1_0", "2024-01-01", "0b1"]
YAML_WORDS += ["|", ">", "---", "...", "%YAML 9.9", "? a", "- - -", "{[", "[" * 40, "{a: " * 40, "'", '"', "\\", "~x/y"]
YAML_WORDS += ["s3://b/k", "s3:/", "yes", "off", "=", "<<: 1", "<<: [*a, *a]", "!!timestamp 1", "1" + ":59" * 90]


def recipe_seeds(folder: Path) -> list[bytes]:
    small = yaml.safe_dump(RECIPE)
    whole = parse_recipe(RECIPE).to_yaml()
    anchors = "base: &a {units: 16}\nmodel: *a\ndata:\n  train: [x, y]\n  <<: *a\n"
    return [small.encode(), whole.encode(), anchors.encode(), b"training:\n  learning_rate: 1e-4\n  num_steps: 1_000\n"]


def read_recipe(path: Path) -> Recipe:
    recipe = load_recipe(str(path))
    recipe.fingerprint()
    parse_recipe(yaml.safe_load(recipe.to_yaml()))
    return recipe


HOST_WORDS = ["h1 slots=2", "h2:3", "slots=", "max_slots=9", "10.0.0.1", "[::1]:2", "user@h", "-oProxyCommand=x", "#"]


def host_seeds(folder: Path) -> list[bytes]:
    return [b"h1 slots=2\nh2 slots=4 max_slots=4\n# no more\n", b"h1:8\n\nh2.example.com.:8\n10.0.0.3:1"]


def read_hosts(path: Path) -> None:
    hosts = read_hostfile(path)
    parse_hosts(",".join(f"{host.name}:{host.slots}" for host in hosts))


# ---- plan, status and messages of the launcher


def plan_seeds(folder: Path) -> list[bytes]:
    recipe = folder / "recipe-of-a-plan.yaml"
    plain = {**RECIPE, "data": {"train": "a", "seq_length": 16}, "training": {"total_batch_size": 64}}
    recipe.write_text(yaml.safe_dump(plain), encoding="utf-8")
    plans = [make_plan(str(recipe), (), parse_hosts(hosts)) for hosts in ("localhost:1", "h1:4,h2:4")]
    return [plan.to_json().encode() for plan in plans]


def status_seeds(folder: Path) -> list[bytes]:
    rank = {"rank": 0, "host": "h1", "step": 5, "code": None, "silent": 0.1, "still": 0.2, "process": "running"}
    status = {"state": "running", "attempt": 1, "text": "", "updated": 1.7e9, "num_steps": 9, "ranks": [rank]}
    return [dump({**status, "launcher": {"host": "h0", "pid": 7}, "log": "a line"})]


def read_launch(path: Path) -> None:
    describe(read_status(path.parent.parent))


TOKEN = "a token"
HELLO = {"rank": 0, "host": "h1", "pid": 9, "nonce": "n"}
MESSAGES = [{"kind": "started", "pid": 9}, {"kind": "beat", "step": 1, "beats": 1, "state": "running"}]
MESSAGES += [{"kind": "line", "text": "loss 4"}, {"kind": "network", "text": "NCCL"}, {"kind": "spot", "text": "soon"}]
MESSAGES += [{"kind": "stacks", "text": "x"}, {"kind": "exit", "code": 0, "lines": ["done"]}]


class _Reader:
    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines

    async def readline(self) -> bytes:
        return self.lines.pop(0) + b"\n" if self.lines else b""


class _Writer:
    """Takes the launcher's messages; the proof of the one that greets needs the number in the first."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader

    def write(self, data: bytes) -> None:
        nonce = json.loads(data).get("nonce")
        if nonce and self.reader.lines:
            self.reader.lines[0] = self.reader.lines[0].replace(b'"PROOF"', _quoted(proof(TOKEN, "worker", nonce, "n")))

    def close(self) -> None:
        pass


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()


LOOP: list[asyncio.AbstractEventLoop] = []


def read_messages(path: Path) -> None:
    """Gives a launcher what a supervisor, or any program that found its port, may send."""
    if not LOOP:
        LOOP.append(asyncio.new_event_loop())
        LOOP[0].set_exception_handler(_raise)

    async def serve() -> None:
        reader = _Reader(path.read_bytes().split(b"\n"))
        control = Control(["h1", "h2"], TOKEN, 1.0, lambda line: None)
        await control._serve(cast(Any, reader), cast(Any, _Writer(reader)))

    LOOP[0].run_until_complete(serve())


def _raise(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    raise AssertionError(f"left in the loop: {context}")


def message_seeds(folder: Path) -> list[bytes]:
    return [b"\n".join(map(dump, [{**HELLO, "proof": "PROOF"}, *MESSAGES])), dump({**HELLO, "proof": "0" * 64})]


def mutate_state(draw: random.Random, data: bytes) -> bytes:
    """Changes a state, most of the time below its first level."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(draw, data)
    if isinstance(plain, dict) and isinstance(plain.get("reader"), dict) and draw.randrange(3):
        plain["reader"] = mutate_plain(draw, plain["reader"])
        return dump(plain)
    return mutate_json(draw, data)


def mutate_plan(draw: random.Random, data: bytes) -> bytes:
    new = mutate_json(draw, data)
    return b'{"format": "kogpt2-launch-plan-' + new if draw.randrange(50) == 0 else new


TARGETS = [
    Target(
        "checkpoint-manifest", "manifest.json", manifest_seeds, read_checkpoint, mutate_json, place_checkpoint, share=20
    ),
    Target("state-json", "state.json", state_seeds, read_state, mutate_state, share=20),
    Target("record", "metrics.jsonl", record_seeds, lambda path: render_report(path.parent), mutate_records, share=4),
    Target(
        "env-json", "env.json", environment_seeds, lambda path: render_report(path.parent), mutate_json, place_record, 4
    ),
    Target("recipe", "recipe.yaml", recipe_seeds, read_recipe, text_mutator(YAML_WORDS), share=4),
    Target("hostfile", "hosts", host_seeds, read_hosts, text_mutator(HOST_WORDS), share=40),
    Target("plan", "plan.json", plan_seeds, load_plan, mutate_plan, share=10),
    Target("status", "launch/status.json", status_seeds, read_launch, mutate_json, share=40),
    Target("messages", "messages", message_seeds, read_messages, mutate_records, share=20),
]
