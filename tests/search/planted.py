"""Stands in for `kogpt2 train`: writes the record of a run whose held-out figure is a known function of its settings.

    python planted.py RECIPE KEY=VALUE... --until STEP

A curve falls from 5 to a floor, which is lowest at a learning rate of 1e-3 without dropout. PLANTED_SECONDS is what a
slice takes; dropout above 0.4 diverges. It goes on from its own record, as a training does from its checkpoint.
PLANTED_ENDS, in JSON, says for which dropout it ends at once: {"0.1": [3, "kogpt2: data/x: is damaged"]}; a negative
number is a signal. PLANTED_STARTS is a file that gets a line for each start, and PLANTED_TOGETHER the number of lines
that the first ones wait for.
"""

import contextlib
import io
import json
import os
import sys
import time
from math import log10
from pathlib import Path

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.lock import RunLock
from kogpt2_gluon.search.space import overrides


def floor(learning_rate, dropout):
    return 2 + 0.5 * (log10(learning_rate) + 3) ** 2 + dropout


class Here:
    """A slice that is over as soon as it is begun, in this process; its arguments are those of Slice."""

    def __init__(self, number, until, settings, recipe_file, run_dir, claim, command, extra, devices):
        self.number, self.until = number, until
        self._claim = claim
        own = [*overrides(settings), f"tracking.run_dir={run_dir}", *extra]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self._code = main([str(recipe_file), *own, "--until", str(until)])
        self._said = said.getvalue().strip().removeprefix("kogpt2: ")

    def has_ended(self):
        return True

    def end(self):
        self._claim.close()
        return self._code, self._said

    def stop(self):
        pass

    def wait(self):
        self._claim.close()


def main(arguments):
    *settings, _, until = arguments
    recipe, until = load_recipe(settings[0], settings[1:]), int(until)
    training, run_dir = recipe.training, recipe.run_dir
    if starts := os.environ.get("PLANTED_STARTS"):
        with Path(starts).open("a") as file:
            file.write(f"{run_dir.name} {until}\n")
        while len(Path(starts).read_text().splitlines()) < int(os.environ.get("PLANTED_TOGETHER", "1")):
            time.sleep(0.05)
    ends = json.loads(os.environ.get("PLANTED_ENDS", "{}"))
    if str(recipe.model.dropout) in ends:
        code, said = ends[str(recipe.model.dropout)]
        print(said, file=sys.stderr)
        return code
    with RunLock(run_dir):
        path = run_dir / "metrics.jsonl"
        before = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        (run_dir / "recipe.yaml").write_text(recipe.to_yaml())
        begin = max((line["step"] for line in before), default=0)
        if recipe.model.dropout > 0.4:
            print("kogpt2: step 3: loss is nan; nothing was saved for this step", file=sys.stderr)
            return 4
        pause = float(os.environ.get("PLANTED_SECONDS", "0")) / max(1, (until - begin) // recipe.evaluation.interval)
        bottom = floor(training.learning_rate, recipe.model.dropout)
        with path.open("a") as file:
            for step in range(begin + 1, until + 1):
                if step % recipe.evaluation.interval and step != training.num_steps:
                    continue
                time.sleep(pause)
                figures = {"loss": 1.0, "bits_per_byte": bottom + 3 / (1 + step / 10)}
                line = {"kind": "evaluation", "step": step, "time": 0.0, "seconds": step / 10, **figures}
                file.write(json.dumps(line) + "\n")
                file.flush()
        if until >= training.num_steps:
            Path(run_dir, "log.txt").write_text("2026-01-01 00:00:00 ended: done\n")
            return 0
    print("kogpt2: stopped, saved", file=sys.stderr)
    return 75


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    if exit_code < 0:
        os.kill(os.getpid(), -exit_code)
    sys.exit(exit_code)
