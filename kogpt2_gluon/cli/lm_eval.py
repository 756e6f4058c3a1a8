"""The verb `kogpt2 lm-eval`: tasks of lm-evaluation-harness."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.group import echo, echo_json, to_json
from kogpt2_gluon.cli.paths import ANY_PATH, FOLDER, check_target
from kogpt2_gluon.machine.interrupts import interruptible


@click.command("lm-eval", no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.option(
    "--tasks",
    "-t",
    required=True,
    metavar="FILE|NAME[,...]",
    help="YAML files of your own, or names of the harness's tasks, whose data is downloaded.",
)
@click.option("--include-path", type=FOLDER, help="Folder of further tasks; the harness runs the code that is in it.")
@click.option("--num-fewshot", type=click.IntRange(0), help="Solved rows in front of a question; default: the task's.")
@click.option("--limit", type=click.IntRange(1), help="Only so many rows of each task.")
@click.option(
    "--samples", type=ANY_PATH, metavar="FILE", help="Write each row there, with its likelihoods; JSON lines."
)
@options.json_output
@options.device
@options.precision
@options.operators
@interruptible()
def lm_eval(
    checkpoint: Path,
    tasks: str,
    include_path: Path | None,
    num_fewshot: int | None,
    limit: int | None,
    samples: Path | None,
    as_json: bool,
    device: str,
    precision: str,
    operators: str,
) -> None:
    """Run tasks of lm-evaluation-harness on a checkpoint, which MXNet computes with.

    A task file of your own is YAML and names its data, such as JSON lines, next to it; it works without a network.
    kogpt2 score --export writes such files.

    \b
    Example: kogpt2 lm-eval runs/small_cpu --tasks exported/nsmc-4-shots-draw-1.yaml
             kogpt2 lm-eval runs/kogpt2_base --tasks kobest_copa,kobest_hellaswag
    """
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.machine import runtime

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise RecipeError(f"--tasks {tasks!r}: names no task; give YAML files, or names with commas between them")
    if samples:
        check_target("--samples", samples)
    runtime.wait_briefly()  # before the next lines load MXNet
    from kogpt2_gluon.inference.loading import load_checkpoint

    try:
        from kogpt2_gluon.tasks.harness import HarnessModel, evaluate_with_harness
    except ImportError as error:
        raise RecipeError(
            f"needs lm-evaluation-harness ({error}): pip install 'kogpt2-gluon[harness]', on Python 3.10 or later"
        ) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)

    def say(line: str) -> None:
        click.echo(f"kogpt2: {line}", err=True)

    net, tokenizer, _, ctx = load_checkpoint(checkpoint, device, precision, operators)
    model = HarnessModel(net, tokenizer, ctx, say)
    found = evaluate_with_harness(model, names, include_path, num_fewshot, limit, samples is not None)
    rows = found.pop("samples", {})
    if as_json:
        echo_json(found)
    else:
        echo(table(found))
    if samples:  # last: the scores took long, and are not lost if this fails
        from kogpt2_gluon.storage.disk import full_disk_named
        from kogpt2_gluon.storage.files import write_file
        from kogpt2_gluon.wording import gigabytes

        lines = [{"task": task, **row} for task, each in rows.items() for row in each]
        text = "".join(f"{to_json(line)}\n" for line in lines)
        content = text.encode("utf-8", "surrogatepass")
        need = f"the rows need {gigabytes(len(content))}; make room, or name another --samples"
        with full_disk_named(samples.parent, lambda: need):
            write_file(samples, content)


def table(found: dict[str, Any]) -> str:
    """Writes a line for each task and metric."""
    lines = [f"{'task':<32} {'shots':>5} {'rows':>8}  {'metric':<16} {'score':>10}"]
    for task, scores in found["results"].items():
        shots = found.get("n-shot", {}).get(task, "")
        rows = found.get("n-samples", {}).get(task, {}).get("effective", "")
        for name, value in scores.items():
            metric, comma, filtered = name.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            error = scores.get(f"{metric}_stderr,{filtered}")
            shown = f"{value:>10.4f}" if isinstance(value, (int, float)) else f"{value!s:>10}"
            spread = f" +- {error:.4f}" if isinstance(error, float) else ""
            label = metric if filtered == "none" else f"{metric} ({filtered})"
            lines.append(f"{task:<32} {shots!s:>5} {rows!s:>8}  {label:<16} {shown}{spread}")
    return "\n".join(lines)
