"""Measure the time and memory of `kogpt2 convert` at 124 million parameters, next to PyTorch's own load and save.

    python benchmarks/conversion_speed.py [--rounds 5] [--before DIR] [--text FILE] [--json]

A checkpoint with random weights and moments, and a tokenizer with as many pieces as the text gives (own sentences, or
FILE, a document a line), are made first. Then, in turn and each in a process of its own: `kogpt2 convert` to a
transformers folder; the same of the checkout DIR, each with a checkpoint that it wrote itself; and torch.load and
torch.save of the same arrays. Seconds are from start to exit, with the files in the page cache; memory is the peak of
the process. Ratios are medians of each round's.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
from conditions import conditions

from kogpt2_gluon.convert.names import parameters_of
from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import save_checkpoint

TIED_COPY = "_logits_proj.weight"  # an older checkout (--before) has no common place to import the name from
CONVERT = "from kogpt2_gluon.cli.main import main; main()"
TORCH = "import sys, torch; torch.save(torch.load(sys.argv[1]), sys.argv[2])"


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--before", type=click.Path(exists=True, path_type=Path), help="Another checkout, to compare with.")
@click.option("--text", type=click.Path(exists=True, path_type=Path), help="Text to learn the tokenizer from.")
@click.option("--make", type=click.Path(exists=True, path_type=Path), help="Only make the files in this folder.")
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, before: Path | None, text: Path | None, make: Path | None, as_json: bool) -> None:
    """Time all ways and print medians and ratios."""
    if make:
        make_files(make, text)
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        ways, out = {}, work / "out"
        for way, checkout in {"kogpt2": None, "before": before}.items():
            if way == "before" and not checkout:
                continue
            variables = {"PYTHONPATH": str(checkout.resolve())} if checkout else {}
            files = work / way
            files.mkdir()
            wanted = ["--text", text.resolve()] if text else []
            # In a process of its own: the peak of a child is at least what its parent had when it started it.
            measure([sys.executable, Path(__file__).resolve(), "--make", files, *wanted], variables)
            ways[way] = ([sys.executable, "-c", CONVERT, "convert", files / "ckpt" / "step-00000001", out], variables)
        saved = work / "kogpt2" / "torch.bin"
        ways["torch"] = ([sys.executable, "-c", TORCH, saved, out], {})
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, (command, variables) in ways.items():
                found[way].append(measure(command, variables))
                shutil.rmtree(out) if out.is_dir() else out.unlink()
    result = summary(found)
    if as_json:
        click.echo(json.dumps({"rounds": rounds, **result, **conditions()}))
        return
    for way, figures in result.items():
        click.echo(f"{way:16} " + "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))


def make_files(work: Path, text: Path | None) -> None:
    """Saves a checkpoint of kogpt2_base with random numbers below `work`, and the same arrays as PyTorch would."""
    import torch

    from kogpt2_gluon.corpus.cleaning import clean
    from kogpt2_gluon.tokens.training import train_tokenizer

    if text is None:
        write_sample_corpus(work / "text.txt")
    clean([text or work / "text.txt"], work / "corpus", "line")
    size = 50_000 if text else 3_000
    train_tokenizer(work / "corpus", work / "tokenizer.model", size, unused=4)
    recipe, rng = load_recipe("kogpt2_base"), np.random.default_rng(0)
    arrays = {each.name: rng.standard_normal(each.shape, np.float32) for each in parameters_of(recipe.model)}
    moments = {f"{name}:{k}": array for name, array in arrays.items() for k in range(2)}
    arrays[TIED_COPY] = arrays["_embed.weight"]
    tokenizer: object = work / "tokenizer.model"
    with suppress(ImportError):  # a checkout from before tokenizer.json takes the path
        from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer

        tokenizer = stored_tokenizer(work / "tokenizer.model")
    save_checkpoint(work / "ckpt", {"step": 1}, arrays, moments, recipe, tokenizer)
    torch.save({name: torch.from_numpy(arrays[name]) for name in arrays if name != TIED_COPY}, work / "torch.bin")


def measure(command: list[object], variables: dict[str, str]) -> tuple[float, float]:
    """Returns the seconds that a process takes, and the most memory that it had, in MB."""
    start = time.perf_counter()
    environment = {**os.environ, **variables}
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, env=environment, cwd=tempfile.gettempdir()
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise click.ClickException(f"{command[2:4]} ended with exit code {process.returncode}; its words are above")
    return seconds, usage.ru_maxrss / 1024


def summary(found: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Returns medians, and kogpt2's ratios to the others."""
    result = {}
    for way, rounds in found.items():
        seconds, megabytes = (statistics.median(each) for each in zip(*rounds))
        result[way] = {"seconds": seconds, "peak_mb": megabytes}
        if way != "kogpt2":
            ratios = [[ours / theirs for ours, theirs in zip(*pair)] for pair in zip(found["kogpt2"], rounds)]
            times, memories = (statistics.median(each) for each in zip(*ratios))
            result[f"kogpt2/{way}"] = {"seconds": times, "peak_mb": memories}
    return result


if __name__ == "__main__":
    main()
