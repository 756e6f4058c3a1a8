"""The verb `kogpt2 convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kogpt2_gluon.cli.paths import ANY_PATH
from kogpt2_gluon.machine.interrupts import interruptible

if TYPE_CHECKING:
    from kogpt2_gluon.convert.gguf_folder import Cost, Measure
    from kogpt2_gluon.convert.source import Source

TARGETS = ("huggingface", "checkpoint", "codes", "original", "onnx", "gguf", "sagemaker", "peft")
DTYPES = ("float32", "float16", "bfloat16")
PARTS = ("body", "class", "spans")  # convert/heads.py


@click.command(no_args_is_help=True)
@click.argument("source", type=ANY_PATH)
@click.argument("out", type=ANY_PATH)
@click.option("--to", "target", default="huggingface", show_default=True, type=click.Choice(TARGETS))
@click.option("--tokenizer", type=ANY_PATH, help="Tokenizer of a .params file; default: the one next to it.")
@click.option(
    "--num-heads", default=0, type=click.IntRange(0), help="Attention heads of a .params file; 0: units / 64."
)
@click.option("--with-optimizer", is_flag=True, help="The optimizer's state too, to go on with the training.")
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(DTYPES),
    help="huggingface's and gguf's weights; of codes what is not quantised.",
)
@click.option("--bits", type=click.IntRange(1, 4), help="codes': of a number. Default: the source's own, else 3.")
@click.option("--group-size", type=click.IntRange(0), help="codes': columns that share scales; default 0: a whole row.")
@click.option("--max-shard-size", default=0, type=click.IntRange(0), help="MB a file of huggingface's weights; 0: one.")
@click.option("--bos", is_flag=True, help="huggingface's and onnx's tokenizer puts <s> before every text by itself.")
@click.option("--part", type=click.Choice(PARTS), help="Of a fine-tuned network: without its head, or one head of two.")
@click.option("--verify", is_flag=True, help="Run both forms, and compare their logits and greedy tokens.")
@interruptible()
def convert(source: Path, out: Path, target: str, part: str | None, verify: bool, **options: Any) -> None:
    """Weights from anything to anything. Needs neither torch nor MXNet, except to --verify.

    SOURCE is a run or checkpoint, a transformers folder of a GPT-2, or a .params file of KoGPT2 v1. The targets:

    CHECKPOINT is its folder, the run's (its newest one), or RUN/best (of the lowest held-out loss).

    \b
    huggingface  a folder that transformers (PyTorch) can load
    checkpoint   a run that generate, evaluate and train --init-from take
    codes        a run as above, with matrices in 1 to 4 bits
    original     the .params and .spiece files of KoGPT2 v1
    onnx         graphs for onnxruntime, with a cache and without
    gguf         a file for llama.cpp and what builds on it
    sagemaker    an archive .tar.gz for Amazon SageMaker, with the code that serves it
    peft         a tuned prompt alone, for peft and for kogpt2 serve --prompt

    A fine-tuned network becomes one that transformers' pipelines take (text-classification, token-classification), or
    a checkpoint that predict takes. The other targets have no place for its head: --part body leaves it out.

    \b
    Examples: kogpt2 convert runs/demo OUT
              kogpt2 convert HUGGINGFACE-FOLDER runs/theirs --to checkpoint
    """
    from kogpt2_gluon.convert.heads import task_of
    from kogpt2_gluon.convert.source import open_source
    from kogpt2_gluon.convert.targets import convert_to
    from kogpt2_gluon.runs.checkpoint_folder import better_one

    if verify and target == "peft":
        raise click.UsageError("--verify: not with --to peft, which copies some vectors")
    better = better_one(source)
    opened, notes = open_source(source, options.pop("tokenizer"), options.pop("num_heads"))
    for note in notes:
        click.echo(note)
    if better and task_of(opened):
        click.echo(f"note: the newest checkpoint is taken; the best on the dev rows is {better}")
    measure = _measure() if target == "gguf" else None
    done = convert_to(target, opened, out, measure=measure, part=part or "", **options)
    if verify:
        click.echo(f"verified: {_compare(opened, out, target, options['dtype'], part or '')}")
    click.echo(done)


def _measure() -> Measure | None:
    """Returns what measures the cost of llama.cpp's GELU and warns of it; None without MXNet, which that needs."""
    from kogpt2_gluon.machine.runtime import installed_wheel

    if not installed_wheel():
        return None

    def measure(source: Source) -> Cost:
        from kogpt2_gluon.inference.llama_cpp import measured_cost

        cost = measured_cost(source)
        harmless = source.recipe().model.activation == "gelu_tanh" and not cost.noteworthy
        click.echo(f"{'note' if harmless else 'warning'}: {cost}")
        return cost

    return measure


def _compare(source: Source, out: Path, target: str, dtype: str, part: str) -> str:
    from kogpt2_gluon.convert.heads import BODY, Body, has_prompt, task_of

    if has_prompt(source):  # it was left out
        source = Body(source, task_of(source))
    if task := task_of(source):
        if part != BODY:
            from kogpt2_gluon.inference.head_comparison import compare_fine_tuned

            return str(compare_fine_tuned(source, task, out, target, part, exact=dtype == "float32"))
        source = Body(source, task)
    if target == "gguf":
        from kogpt2_gluon.inference.llama_cpp import compare_gguf

        return compare_gguf(source, out, dtype)
    from kogpt2_gluon.inference.comparison import compare_conversion

    if target == "sagemaker":
        from kogpt2_gluon.convert.sagemaker_archive import unpacked_model

        with unpacked_model(out) as folder:
            return str(compare_conversion(source, folder, "checkpoint", exact=True))
    from kogpt2_gluon.convert.codes_folder import quantised_in

    is_rounded = dtype != "float32" or (target == "codes" and quantised_in(source) is None)
    return str(compare_conversion(source, out, target, exact=not is_rounded))
