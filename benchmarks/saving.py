"""Measures what a save costs the training: how long the loop stands still, and the memory.

    python benchmarks/saving.py [--rounds 3] [--before DIR] [--steps 12] [--workers 1] [--json] [section.key=value ...]

KoGPT-2 base (124 million parameters, a checkpoint of 1.5 GB) makes steps of 2 x 256 tokens and saves three times, with
--steps steps after each save. `blocked` is the time of the call between two steps and of the copy before the next
update, the median of the second and third save; the first one also takes memory for its copy. `slower` is what the
steps until the checkpoint is on disk take beyond their usual time, and `written` is the time from the call until then.
Memory is the peak of the process. In turn, each in a process of its own: this checkout, this one with
checkpoint.in_background=false, and the checkout DIR. Ratios are made within a round, and the median of the rounds
counts. With --workers 2 two workers of Horovod train, with a core each, and `slower` is the second one's, which writes
nothing; with one, the rounds of cold_start.py follow.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cold_start
from contestants import Contestant, Result, announce, hand_over, peak_memory_mb, speed_conditions
from training_speed import recipe_of, write_tokens

from kogpt2_gluon.machine import runtime

HERE = Path(__file__).resolve().parent
SHAPE = (2, 256)
FIGURES = ("blocked", "slower", "written", "peak_memory_mb")


def run_as_child(arguments: argparse.Namespace) -> Result | None:
    """Trains and saves in this process, with whichever checkout PYTHONPATH names; rank 0 has the result."""
    recipe = recipe_of(SHAPE, SHAPE[0] * arguments.workers, arguments.overrides, arguments.child)
    if arguments.workers == 1:
        runtime.prepare(recipe.training.threads)
    from kogpt2_gluon.training.setup import set_up

    with set_up(recipe, "never") as run:
        save, is_written = _saver(recipe, run)
        copying = Copying(run.update)
        usual = statistics.median(_step(recipe, run) for _ in range(5))
        saves = [_measure_save(recipe, run, usual, save, is_written, copying, arguments.steps) for _ in range(3)]
        while not is_written():
            time.sleep(0.01)
        run.worker.barrier()
        if run.worker.rank:
            return None
        saved = sum(path.stat().st_size for path in sorted(recipe.ckpt_dir.glob("step-*"))[-1].iterdir())
    shutil.rmtree(recipe.run_dir)
    medians = {name: statistics.median(each[name] for each in saves[1:]) for name in saves[0]}
    return {**medians, "peak_memory_mb": peak_memory_mb(), "step": usual, "bytes": saved, "saves": saves}


class Copying:
    """The time that updates wait for the copy of what is not yet saved; none in older checkouts."""

    def __init__(self, update: Any) -> None:
        self.seconds = 0.0
        self._copy = getattr(update, "before_change", lambda: None)
        update.before_change = self._measured

    def _measured(self) -> None:
        began = time.perf_counter()
        self._copy()
        self.seconds += time.perf_counter() - began


def _saver(recipe: Any, run: Any) -> tuple[Any, Any]:
    """Returns a function that saves, and one that says whether all is written."""
    try:
        from kogpt2_gluon.training.saver import Saver
    except ImportError:  # an older checkout, which returns when all is written
        from kogpt2_gluon.training.resume import save_state

        return lambda: save_state(recipe, run), lambda: True
    saver = Saver(recipe, run, print)
    return saver.save, saver.is_written


def _step(recipe: Any, run: Any) -> float:
    from kogpt2_gluon.training.loop import run_step
    from kogpt2_gluon.training.signals import StopRequest

    began = time.perf_counter()
    run_step(recipe, run, StopRequest())
    runtime.mx.nd.waitall()
    return time.perf_counter() - began


def _measure_save(
    recipe: Any, run: Any, usual: float, save: Any, is_written: Any, copying: Copying, steps: int
) -> dict[str, float]:
    began, copied = time.perf_counter(), copying.seconds
    save()
    blocked = written = time.perf_counter() - began
    slower, done = 0.0, is_written()
    for _ in range(steps):
        seconds = _step(recipe, run)
        if not done:
            slower += float(run.worker.gather(seconds - usual)[-1])
            written = time.perf_counter() - began
            done = not run.worker.sum(float(not is_written()))
    assert done, f"not written after {steps} steps; pass more --steps"
    return {"blocked": blocked + copying.seconds - copied, "slower": slower, "written": written}


def benchmark(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs all ways in interleaved rounds."""
    write_tokens(work, recipe_of(SHAPE, SHAPE[0], arguments.overrides, work).model.vocab_size)
    state = speed_conditions(2)
    settings = ["--steps", arguments.steps, "--workers", arguments.workers]
    child = [sys.executable, HERE / "saving.py", *settings, "--child", work, *arguments.overrides]
    if arguments.workers > 1:
        child = [Path(sys.executable).with_name("horovodrun"), "--gloo", "-np", arguments.workers, *child]
    ways = {"ours": Contestant("ours", child)}
    ways["waiting"] = Contestant("waiting", [*child, "checkpoint.in_background=false"])
    if arguments.before:
        ways["before"] = Contestant("before", child, {"PYTHONPATH": str(arguments.before.resolve())})
    rounds: list[dict[str, Result]] = []
    for number in range(1, arguments.rounds + 1):
        rounds.append({name: way.run() for name, way in ways.items()})
        for name, result in rounds[-1].items():
            announce(f"round {number}  {name:<8} " + "  ".join(f"{key} {result[key]:,.3g}" for key in FIGURES))
    medians = {name: {key: statistics.median(each[name][key] for each in rounds) for key in FIGURES} for name in ways}
    ratios = {
        name: {
            key: statistics.median(each["ours"][key] / each[name][key] for each in rounds if each[name][key])
            for key in ("blocked", "peak_memory_mb")
        }
        for name in ways
        if name != "ours"
    }
    result = {"medians": medians, "ours_is": ratios, "rounds": rounds, "conditions": state}
    if arguments.workers == 1:
        place = work / "cold_start"
        result["cold_start"] = cold_start.benchmark(arguments.rounds, arguments.before, arguments.overrides, place)
    return result


def table(result: dict[str, Any]) -> str:
    """Returns the figures as text."""
    lines = [f"{'':<9} {'blocked, s':>10} {'slower, s':>10} {'written, s':>10} {'MB':>7}"]
    for name, medians in result["medians"].items():
        lines.append(
            f"{name:<9} " + " ".join(f"{medians[key]:>10.3f}" for key in FIGURES[:3]) + f" {medians[FIGURES[3]]:>7,.0f}"
        )
    for name, ratio in result["ours_is"].items():
        lines.append(
            f"blocked for {ratio['blocked']:.3f} of the time of {name}, {ratio['peak_memory_mb']:.3f} of its memory"
        )
    return "\n".join([*lines, *([cold_start.table(result["cold_start"])] if "cold_start" in result else [])])


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="after each save; enough for it to be written")
    parser.add_argument("--workers", type=int, default=1, help="of Horovod, on this machine")
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout of this repository to compare with")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe kogpt2_base")
    arguments = parser.parse_args(argv)
    if arguments.child:
        hand_over(run_as_child(arguments))
        return
    with tempfile.TemporaryDirectory() as work:
        result = benchmark(arguments, Path(work))
    print(json.dumps(result, indent=1) if arguments.json else table(result))


if __name__ == "__main__":
    main()
