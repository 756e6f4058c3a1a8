"""The verb `kogpt2 finetune`: fine-tunes a network for a task and says what it is worth."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.paths import ANY_PATH
from kogpt2_gluon.wording import silent


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("overrides", nargs=-1)
@click.option("--task", required=True, metavar="NAME|FILE.yaml", help="A task below, or the description of a table.")
@click.option("--data", required=True, metavar="DIR", help="Folder of the task's files.")
@click.option("--recipe", default="finetune", show_default=True, help="A YAML file, or the name of a shipped recipe.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="Runs, each with its own seed.")
@click.option("--untrained", is_flag=True, help="Train the same network from random weights too, to compare with.")
@click.option("--baselines/--no-baselines", default=True, help="Score simple systems as well.  [default: baselines]")
@click.option(
    "--pretraining",
    multiple=True,
    type=ANY_PATH,
    metavar="SHARDS",
    help="Look for the test rows in these shards, which the network was pretrained on; repeatable.",
)
def finetune(
    checkpoint: Path,
    overrides: tuple[str, ...],
    task: str,
    data: str,
    recipe: str,
    seeds: int,
    untrained: bool,
    baselines: bool,
    pretraining: tuple[Path, ...],
) -> None:
    """Fine-tune a network for a task, score it on the test rows, and print a table with simpler systems in it.

    CHECKPOINT is a run, a checkpoint, or a transformers folder of a GPT-2; OVERRIDES are section.key=value. Each seed
    is a run as `kogpt2 train` makes it, in RUN_DIR/seed-N (tracking.run_dir): the same command goes on after a stop,
    and under horovodrun it is one worker of N. The best checkpoint is chosen by the dev rows. Test rows that are in
    the training rows are counted, and the score without them is shown.

    \b
    Tasks: nsmc, question-pair, korsts, kornli, pawsx, hate-speech, 3i4k, klue-ner, klue-nli, klue-sts,
           massive, carecall-memory; docs/tasks.md says what each is, and how a table of your own is described.

    \b
    Example: kogpt2 finetune runs/kogpt2_base --task nsmc --data nsmc --seeds 3 --untrained
             kogpt2 finetune runs/small_cpu --task mine.yaml --data tables training.learning_rate=1e-4
             kogpt2 finetune runs/small_cpu --task massive --data massive "task.locales=[ko-KR, en-US]"
    """
    from kogpt2_gluon.tasks.pretraining_overlap import sets_of
    from kogpt2_gluon.training.finetune_plan import Plan

    if pretraining:
        sets_of(pretraining)  # a wrong name shows at once
    plan = Plan(checkpoint, task, data, recipe, overrides, seeds, untrained)
    from kogpt2_gluon.machine import job, runtime

    runs = plan.recipes(click.echo if not job.rank() else silent)

    runtime.prepare(next(iter(runs.values()))[0].training.threads)
    from kogpt2_gluon.training.finetune import fine_tune_all

    fine_tune_all(plan, runs, click.echo, baselines, pretraining)
