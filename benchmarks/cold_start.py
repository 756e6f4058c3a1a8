"""Measures a cold start: from a command to 20 new tokens and the end of its process, next to transformers.

    python benchmarks/cold_start.py [--rounds 5] [--before DIR] [--json] [section.key=value ...]

KoGPT-2 base (124 million parameters) with random weights and moments, and a tokenizer of made-up words with as many
pieces, are saved first, and converted. Then, in turn and each in a process of its own: `kogpt2 generate`; that of the
checkout DIR, with a checkpoint that it wrote itself; and transformers on the converted folder: import, from_pretrained,
generate. All of them are greedy, and all must write the same text. Seconds are from start to exit, with the files in
the page cache; CPU seconds are those of all threads, user and system; memory is the peak of the process. A first round
is not counted. Ratios are made within a round, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contestants import announce, speed_conditions

from kogpt2_gluon.recipe import Recipe, load_recipe

TOKENS = 20
FIGURES = ("seconds", "cpu_seconds", "peak_memory_mb")
KOGPT2 = "from kogpt2_gluon.cli.main import main; main()"
TRANSFORMERS = """
import sys
from transformers import AutoTokenizer, GPT2LMHeadModel
folder, prompt = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = GPT2LMHeadModel.from_pretrained(folder)
inputs = tokenizer(tokenizer.bos_token + prompt, split_special_tokens=False, return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
"""

Result = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """A command that prints a text."""

    command: Sequence[object]
    variables: dict[str, str] = field(default_factory=dict)

    def run(self) -> Result:
        """Runs it in a new process; returns its FIGURES and its text. RuntimeError if it fails."""
        load, began = os.getloadavg()[0], time.perf_counter()
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [str(part) for part in self.command],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **self.variables},
                cwd=tempfile.gettempdir(),
            )
            text = process.stdout.read().decode()
            process.stdout.close()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                errors.seek(0)
                raise RuntimeError(f"{self.command[1:]}: {errors.read().decode()[-2000:]}")
        cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        return {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_mb": peak, "text": text.strip(), "load": load}


# ---- files ----------------------------------------------------------------------------------------------------------


def make_tokenizer(folder: Path, size: int) -> Path:
    """Trains a tokenizer of `size` pieces on words of random syllables, as often as words are in a language."""
    from kogpt2_gluon.corpus.cleaning import clean
    from kogpt2_gluon.tokens.training import train_tokenizer

    draw = np.random.default_rng(0)
    syllables = np.array([chr(0xAC00 + 28 * number) for number in range(399)])  # without a final consonant
    words = np.array(["".join(draw.choice(syllables, draw.integers(2, 5))) for _ in range(2 * size)])
    chances = 1 / np.arange(10, 10 + len(words))
    lines = draw.choice(words, (8 * size // 10, 10), p=chances / chances.sum())
    (folder / "text.txt").write_text("\n".join(map(" ".join, lines)), encoding="utf-8")
    clean([folder / "text.txt"], folder / "corpus", "line")
    train_tokenizer(folder / "corpus", folder / "tokenizer.model", size, unused=4)
    return folder / "tokenizer.model"


def make_checkpoint(recipe: Recipe, folder: Path, tokenizer: Path) -> None:
    """Saves a checkpoint with random numbers in `folder`, with whichever checkout PYTHONPATH names."""
    from kogpt2_gluon.convert.names import parameters_of
    from kogpt2_gluon.runs.checkpoint import save_checkpoint

    draw = np.random.default_rng(0)
    arrays = {
        each.name: draw.standard_normal(each.shape, np.float32) * np.float32(0.02)
        for each in parameters_of(recipe.model)
    }
    for name in arrays:
        if name.endswith("gamma"):
            arrays[name] += np.float32(1)
    moments = {f"{name}:{k}": array for name, array in arrays.items() for k in range(2)}
    arrays["_logits_proj.weight"] = arrays["_embed.weight"]
    stored: object = tokenizer
    with suppress(ImportError):  # a checkout from before tokenizer.json takes the path
        from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer

        stored = stored_tokenizer(tokenizer)
    save_checkpoint(folder, {"step": 1}, arrays, moments, recipe, stored)


# ---- rounds ---------------------------------------------------------------------------------------------------------


def benchmark(rounds: int, before: Path | None, overrides: Sequence[str], work: Path) -> dict[str, Any]:
    """Makes the files below `work` and runs all ways in interleaved rounds."""
    recipe = load_recipe("kogpt2_base", list(overrides))
    work.mkdir(exist_ok=True)
    tokenizer = make_tokenizer(work, recipe.model.vocab_size)
    prompt = " ".join((work / "text.txt").read_text(encoding="utf-8").split()[:4])
    state = speed_conditions(2)
    starts = {}
    for name, checkout in {"ours": None, "before": before}.items():
        if name == "before" and not checkout:
            continue
        variables = {"PYTHONPATH": str(checkout.resolve())} if checkout else {}
        folder = work / name
        # In a process of its own: the peak of a child is at least what its parent had when it started it.
        make = [sys.executable, Path(__file__).resolve(), "--make", folder, "--tokenizer", tokenizer, *overrides]
        subprocess.run([str(part) for part in make], check=True, env={**os.environ, **variables}, cwd=work)
        options = ["--max-new-tokens", TOKENS, "--temperature", 0, "--device", "cpu"]
        starts[name] = Start([sys.executable, "-c", KOGPT2, "generate", folder, prompt, *options], variables)
    converted = work / "converted"
    convert = [sys.executable, "-c", KOGPT2, "convert", work / "ours", converted]
    subprocess.run([str(part) for part in convert], check=True, stdout=subprocess.DEVNULL, cwd=work)
    offline = {"HF_HUB_OFFLINE": "1"}
    starts["transformers"] = Start([sys.executable, "-c", TRANSFORMERS, converted, prompt], offline)

    results: list[dict[str, Result]] = []
    for number in range(rounds + 1):
        results.append({name: start.run() for name, start in starts.items()})
        texts = {name: result.pop("text") for name, result in results[-1].items()}
        if len(set(texts.values())) > 1 or not texts["ours"].startswith(prompt):
            raise RuntimeError(f"the texts differ: {texts}")
        for name, result in results[-1].items():
            figures = "  ".join(f"{key} {result[key]:,.2f}" for key in (*FIGURES, "load"))
            announce(f"cold start, round {number}{' (not counted)' * (not number)}  {name:<12} {figures}")
    return {**summary(results[1:]), "rounds": results[1:], "conditions": state}


def summary(rounds: Sequence[dict[str, Result]]) -> dict[str, Any]:
    """Returns medians, and the ratios of ours to the others."""
    names = list(rounds[0])
    medians = {name: {key: statistics.median(each[name][key] for each in rounds) for key in FIGURES} for name in names}
    ratios = {
        name: {key: statistics.median(each["ours"][key] / each[name][key] for each in rounds) for key in FIGURES}
        for name in names
        if name != "ours"
    }
    return {"medians": medians, "ours_is": ratios}


def table(result: dict[str, Any]) -> str:
    """Returns the figures as text."""
    lines = [f"{'cold start':<13} {'seconds':>8} {'CPU, s':>8} {'MB':>6}"]
    for name, figures in result["medians"].items():
        seconds, cpu, memory = (figures[key] for key in FIGURES)
        lines.append(f"{name:<13} {seconds:>8.2f} {cpu:>8.2f} {memory:>6,.0f}")
    for name, figures in result["ours_is"].items():
        seconds, cpu, memory = (figures[key] for key in FIGURES)
        lines.append(f"{seconds:.2f} of the time of {name}, {cpu:.2f} of its CPU time, {memory:.2f} of its memory")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout of this repository to compare with")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tokenizer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe kogpt2_base")
    arguments = parser.parse_args(argv)
    if arguments.make:
        make_checkpoint(load_recipe("kogpt2_base", arguments.overrides), arguments.make, arguments.tokenizer)
        return
    with tempfile.TemporaryDirectory() as work:
        result = benchmark(arguments.rounds, arguments.before, arguments.overrides, Path(work))
    print(json.dumps(result, indent=1) if arguments.json else table(result))


if __name__ == "__main__":
    main()
