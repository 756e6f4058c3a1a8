"""Every byte of a checkpoint and of a set of shards is changed, and every file cut at every length.

What reads it must refuse it, or take an older checkpoint and say so. It may also find what was written: some bits make
no difference, such as those of a number that is only an upper limit.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.training_data import training_tokenizer
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, save_checkpoint
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.verify import verify
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer
from kogpt2_gluon.training.resume_point import find_resume_point
from tests.chaos.scenario import Chance, Scenario, Trial
from tests.chaos.world import World, check_same_end, record_of
from tests.runs.checkpoint_helpers import RECIPE, save
from tests.runs.checkpoint_helpers import arrays as few_arrays

REFUSED, OLDER, SAME = "refused", "an older one, said", "the same content"
Damage = Callable[[bytearray], None]
Read = Callable[[], Any]


def flip(place: int, bit: int) -> Damage:
    def damage(content: bytearray) -> None:
        content[place] ^= 1 << bit

    return damage


def cut(length: int) -> Damage:
    def damage(content: bytearray) -> None:
        del content[length:]

    return damage


def try_all(path: Path, damages: Iterable[tuple[str, Damage]], read: Callable[[], str]) -> Counter[str]:
    """Damages a file in each way in turn; returns how often `read` gave which outcome. `read` raises what is wrong."""
    whole = path.read_bytes()
    outcomes: Counter[str] = Counter()
    for name, damage in damages:
        content = bytearray(whole)
        damage(content)
        path.write_bytes(content)
        try:
            outcomes[read()] += 1
        except DataError as error:
            assert str(error).strip() and "\n" not in str(error), f"{path.name}, {name}: not one line: {error}"
            outcomes[REFUSED] += 1
        except Exception as error:
            raise AssertionError(f"{path.name}, {name}: {type(error).__name__}: {error}") from error
    path.write_bytes(whole)
    return outcomes


def damages(size: int, chance: Chance, name: str, short: int, long: int | None = None) -> Iterator[tuple[str, Damage]]:
    """Yields a flip for each byte, of a bit drawn by chance, and a cut at each length; or a sample of both."""
    draw = chance.draw(name)
    for place in chance.sample(f"{name} flips", range(size), short, long):
        bit = draw.randrange(8)
        yield f"byte {place}, bit {bit}", flip(place, bit)
    for length in chance.sample(f"{name} cuts", range(size), short // 2, long):
        yield f"cut to {length} bytes", cut(length)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def content_of(checkpoint: Checkpoint) -> list[Any]:
    """All that a resume uses of a checkpoint."""
    arrays = {**checkpoint.model_arrays(), **checkpoint.optimizer_arrays()}
    named = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
    recipe = checkpoint.recipe().to_dict()
    return [checkpoint.path.name, checkpoint.state(), recipe, checkpoint.tokenizer_path.read_bytes(), named]


class Resume:
    """Looks for the checkpoint to resume from, as a training does, and compares it with what was saved."""

    def __init__(self, ckpt_dir: Path) -> None:
        self._ckpt_dir, self._expected = ckpt_dir, None
        found, warnings = self._find()
        assert found and not warnings
        self._expected = content_of(found)
        self.newest = found.path

    def _find(self) -> tuple[Checkpoint | None, list[str]]:
        return find_resume_point("auto", self._ckpt_dir, Worker())

    def __call__(self) -> str:
        found, warnings = self._find()
        assert found, "no checkpoint was found"
        if found.path != self.newest:
            assert any(self.newest.name in line for line in warnings), f"{found.path.name} was taken in silence"
            return OLDER
        assert content_of(found) == self._expected, "other content was taken in silence"
        return SAME


def _checkpoint_trials(world: World, chance: Chance) -> Iterator[Trial]:
    def prepared(folder: Path) -> Resume:
        for step in (2, 3):
            save(folder / "checkpoints", step)
        return Resume(folder / "checkpoints")

    names = ["manifest.json", "model.params", "optimizer.params", "recipe.yaml", "state.json", "tokenizer.model"]
    for name in [*names, "../latest"]:

        def run(folder: Path, name: str = name) -> Counter[str]:
            resume = prepared(folder)
            path = (resume.newest / name).resolve()
            return try_all(path, damages(path.stat().st_size, chance, name, 40), resume)

        yield Trial(Path(name).name, run)

    def missing(folder: Path) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        for name in names:
            (folder / name).mkdir()
            resume = prepared(folder / name)
            (resume.newest / name).unlink()
            outcomes[resume()] += 1
        return outcomes

    yield Trial("missing", missing)
    yield Trial("large", lambda folder: _large(folder, chance))


def _large(folder: Path, chance: Chance) -> Counter[str]:
    """A file of several blocks: its first and last bytes, those around the edges of blocks, and a sample."""
    numbers = (1 << 22 if chance.short else 5 << 22) + 7
    tokenizer = stored_tokenizer(save(folder / "checkpoints", 1) / "tokenizer.model")
    big = {"_embed.weight": np.random.RandomState(0).randn(numbers).astype("float32")}
    for step in (2, 3):
        save_checkpoint(folder / "checkpoints", {"step": step}, big, few_arrays(1), RECIPE, tokenizer)
    resume = Resume(folder / "checkpoints")
    path = resume.newest / "model.params"
    size, block = path.stat().st_size, 16 << 20
    edges = [place for edge in range(0, size, block) for place in (edge - 1, edge) if 0 <= place < size]
    draw = chance.draw("large")
    places = [*edges, size - 1, *(draw.randrange(size) for _ in range(3 if chance.short else 150))]
    outcomes: Counter[str] = Counter()
    for place in places:
        _change(path, place)
        outcomes[resume()] += 1
        _change(path, place)
    assert resume() == SAME
    for length in [edge for edge in edges if edge] + [size - 1]:
        with path.open("r+b") as file:
            file.seek(length)
            tail = file.read()
            file.truncate(length)
            outcomes[resume()] += 1
            file.seek(length)
            file.write(tail)
    assert resume() == SAME
    return outcomes


def _change(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))


# ---- shards ----------------------------------------------------------------------------------------------------------


def read_set(world: World, folder: Path) -> list[Any]:
    """All that a training reads of a set. Its fingerprint is that of the manifest but for `source`, a note."""
    with ShardSet(folder) as opened:
        tokens = [opened.read_chunk(chunk).tobytes() for chunk in range(opened.num_chunks)]
        tokenizer = training_tokenizer(load_recipe("debug_cpu", world.settings(folder, f"data.train={folder}")))
        return [tokens, opened.fingerprint, tokenizer.sha256]


def _shard_trials(world: World, chance: Chance) -> Iterator[Trial]:
    for name in ("manifest.json", "test-00000.ktok", "tokenizer.model"):

        def run(folder: Path, name: str = name) -> Counter[str]:
            copy = folder / "set"
            shutil.copytree(world.shards / "test", copy)
            expected = read_set(world, copy)

            def read() -> str:
                faults = verify(copy).faults
                try:
                    found = read_set(world, copy)
                except DataError:
                    assert faults, "kogpt2 verify finds nothing, and a training refuses it"
                    raise
                assert found == expected, "other content was read in silence"
                return f"{SAME}, verify says more" if faults else SAME

            path = copy / name
            size = path.stat().st_size
            return try_all(path, damages(size, chance, name, 20, None if size < 20_000 else 300), read)

        yield Trial(name, run)


# ---- whole trainings -------------------------------------------------------------------------------------------------

STEPS = ("training.num_steps=4", "checkpoint.interval=2", "checkpoint.keep=3", "model.num_layers=1", "data.test=")


def _training_trials(world: World, chance: Chance) -> Iterator[Trial]:
    """The newest checkpoint of a run that goes on is damaged: it must say so, and end with the same bits."""
    longer = (*STEPS, "training.num_steps=6")
    names = ["manifest.json", "model.params", "optimizer.params", "recipe.yaml", "state.json", "tokenizer.model"]
    for name in chance.sample("trainings", names, 1):

        def run(folder: Path, name: str = name) -> str:
            straight, run_dir = world.straight("flipped", *longer), folder / "run"
            shutil.copytree(straight, run_dir)
            shutil.copytree(record_of(straight), record_of(run_dir))
            path = run_dir / "checkpoints" / "step-00000006" / name
            _change(path, chance.draw(name).randrange(path.stat().st_size))
            ended = world.train(run_dir, *longer)
            assert ended.code == 0, ended.output
            assert "WARNING" in ended.output and str(path) in ended.output, ended.output
            check_same_end(run_dir, straight)
            return OLDER

        yield Trial(f"checkpoint-{name}", run)

    def shard(folder: Path) -> str:
        """A damaged chunk ends the run with its name, unless the recipe says otherwise."""
        shutil.copytree(world.shards / "train", folder / "train")
        path = folder / "train" / "train-00000.ktok"
        for place in range(0, 200_000, 4000):
            _change(path, place)
        ended = world.train(folder / "run", *STEPS, f"data.train={folder / 'train'}")
        assert ended.code == DataError.exit_code and str(path) in ended.output, ended
        return REFUSED

    yield Trial("shard", shard)


SCENARIOS = (
    Scenario("checkpoint-bytes", "each byte of a checkpoint changed, each length cut", _checkpoint_trials, at_once=1),
    Scenario("shard-bytes", "each byte of a set of shards changed, each length cut", _shard_trials, at_once=1),
    Scenario("damaged-run", "a training goes on from damaged files", _training_trials),
)
