"""The verb `kogpt2-launch run`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kogpt2_gluon.errors import PreemptedError, RecipeError
from kogpt2_launch.cli import options


@click.command()
@click.argument("plan_or_recipe", metavar="PLAN|RECIPE")
@click.argument("overrides", metavar="[key=value]...", nargs=-1)
@click.option("--backend", type=click.Choice(["local", "horovodrun", "mpirun"]), help="What starts the workers.")
@click.option("--np", "size", type=click.IntRange(min=1), help="Workers on this machine, with a RECIPE.  [default: 1]")
@options.variables
@click.option("--allow-change", multiple=True, metavar="KEY", help="As for kogpt2 train; repeatable.")
@options.python
@options.port
@click.option("--restarts", type=int, help="At most so many, from the newest checkpoint.  [default: 3; local: 0]")
@click.option("--backoff", default=10.0, show_default=True, help="Seconds before the first restart; doubles each time.")
@click.option("--detect-seconds", default=30.0, show_default=True, help="A host that is silent for so long is dead.")
@click.option("--hang-seconds", default=900.0, show_default=True, help="If no worker moves for so long, the run hangs.")
@click.option("--start-seconds", default=1800.0, show_default=True, help="Limit from the start to the first step.")
@click.option("--grace", default=120.0, show_default=True, help="Seconds to save after a request to stop.")
@click.option(
    "--stopped-is-done", is_flag=True, help="Exit with 0 after `kogpt2-launch stop`, for schedulers that retry 75."
)
@click.option("--metadata", hidden=True, help="Another address of EC2's metadata service.")
@click.pass_context
def run(
    ctx: click.Context,
    plan_or_recipe: str,
    overrides: tuple[str, ...],
    backend: str | None,
    size: int | None,
    variables: tuple[str, ...],
    allow_change: tuple[str, ...],
    python: str | None,
    port: int | None,
    restarts: int | None,
    backoff: float,
    detect_seconds: float,
    hang_seconds: float,
    start_seconds: float,
    grace: float,
    stopped_is_done: bool,
    metadata: str | None,
) -> None:
    """Run a plan (a .json file of `plan --out`) on its hosts, or a recipe on this machine.

    horovodrun or mpirun starts a supervisor for every worker. Whatever fails, nothing is left running, the rank that
    failed first is named, and the run resumes from its newest checkpoint. The backend `local` runs this host alone; it
    is the default for a recipe, and horovodrun is the default for a plan of other hosts. A single worker on this
    machine is started directly and has no supervisor: only --env and --grace apply to it.

    The exit code is that of the first worker that failed: 2 bad recipe, 3 bad data, 4 diverged, 5 workers that differ,
    75 stopped early with its state saved (run again to go on). Ctrl-C or SIGTERM lets the workers save; a second one
    ends them at once.

    Workers inherit PATH, HOME, the locale and the variables of Python, OpenMP, CUDA, Horovod, NCCL, MXNet and KOGPT2_*,
    and nothing else. They get them through files of mode 600, never on a command line.

    \b
    Examples:
      kogpt2-launch run debug_cpu training.num_steps=20 --np 2
      kogpt2-launch run plan.json --backend mpirun --restarts 10
    """
    from kogpt2_launch.hosts import Host
    from kogpt2_launch.plan.commands import HOROVODRUN
    from kogpt2_launch.plan.environment import parse_variables
    from kogpt2_launch.plan.plan import make_plan
    from kogpt2_launch.plan.plan_file import is_plan, load_plan
    from kogpt2_launch.run.attempt import Options
    from kogpt2_launch.run.job import run_job
    from kogpt2_launch.run.local import run_local
    from kogpt2_launch.run.restart import Policy
    from kogpt2_launch.ssh import Shell

    if is_plan(plan_or_recipe):
        if overrides or size or variables:
            raise RecipeError(f"plan {plan_or_recipe} is run as it is; give key=value, --np and --env with a recipe")
        plan = load_plan(Path(plan_or_recipe))
    else:
        plan = make_plan(plan_or_recipe, overrides, [Host("localhost", size or 1)], env=parse_variables(variables))
    backend = backend or ("local" if plan.is_local else "horovodrun")
    engine = HOROVODRUN if backend == "local" else backend
    shell = Shell(python or sys.executable, port)
    how = Options(engine, shell, detect_seconds, hang_seconds, start_seconds, grace, metadata)
    if restarts is None:
        restarts = 0 if backend == "local" else 3
    worker = [*plan.worker_argv(), *(each for key in allow_change for each in ("--allow-change", key))]
    code = (run_local if backend == "local" else run_job)(plan, how, Policy(restarts, backoff), worker)
    ctx.exit(0 if stopped_is_done and code == PreemptedError.exit_code and plan.stop_file.exists() else code)
