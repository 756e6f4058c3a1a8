"""The verbs of ``kogpt2-launch`` that run a plan and look after it: run, status, stop, logs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from kogpt2_gluon.errors import PreemptedError, RecipeError
from kogpt2_launch.plan.environment import parse_variables

RUN_DIR = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("plan_or_recipe", metavar="PLAN|RECIPE")
@click.argument("overrides", metavar="[key=value]...", nargs=-1)
@click.option("--backend", type=click.Choice(["local", "horovodrun", "mpirun"]), help="What starts the workers.")
@click.option("--np", "size", type=click.IntRange(min=1), help="Workers on this machine, with a RECIPE.  [default: 1]")
@click.option("--env", "variables", metavar="K=V", multiple=True, help="A variable for every worker, with a RECIPE.")
@click.option("--python", metavar="PATH", help="Interpreter on the hosts.  [default: this one]")
@click.option("--port", type=click.IntRange(1, 65535), help="Of sshd, where ~/.ssh/config does not say.")
@click.option("--restarts", type=int, help="At most so many, from the newest checkpoint.  [default: 3; local: 0]")
@click.option("--backoff", default=10.0, show_default=True, help="Seconds before the first restart; doubles each time.")
@click.option("--detect-seconds", default=30.0, show_default=True, help="A host unheard for so long is taken for dead.")
@click.option("--hang-seconds", default=900.0, show_default=True, help="No worker moves for so long: a hang.")
@click.option("--start-seconds", default=1800.0, show_default=True, help="From the start to the first step.")
@click.option("--grace", default=120.0, show_default=True, help="Seconds to save after a request to stop.")
@click.option(
    "--stopped-is-done", is_flag=True, help="Exit code 0 after `kogpt2-launch stop`, for what would retry 75."
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

    Through horovodrun or mpirun, with a supervisor beside every worker: whatever fails, nothing is left running, the
    rank that failed first is named, and the run goes on from its newest checkpoint. The backend `local` runs one host,
    this one; it is the default for a recipe, and horovodrun for a plan of other hosts. There a single worker is started
    directly: of the options it heeds --grace alone.

    The exit code is that of the first worker that failed: 2 bad recipe, 3 bad data, 4 diverged, 75 stopped early with
    its state saved (run again to go on). Ctrl-C or SIGTERM lets the workers save; a second one ends them at once.

    Workers inherit PATH, HOME, the locale and the variables of Python, OpenMP, CUDA, Horovod, NCCL, MXNet and KOGPT2_*,
    and nothing else; they get them through files of mode 600, never on a command line.

    \b
    Examples:
      kogpt2-launch run debug_cpu training.num_steps=20 --np 2
      kogpt2-launch run plan.json --backend mpirun --restarts 10
    """
    from kogpt2_launch.hosts import Host
    from kogpt2_launch.plan.commands import HOROVODRUN
    from kogpt2_launch.plan.plan import is_plan, load_plan, make_plan
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
    options = Options(engine, shell, detect_seconds, hang_seconds, start_seconds, grace, metadata)
    code = (run_local if backend == "local" else run_job)(
        plan, options, Policy(restarts if restarts is not None else 0 if backend == "local" else 3, backoff)
    )
    ctx.exit(0 if stopped_is_done and code == PreemptedError.exit_code and plan.stop_file.exists() else code)


@click.command()
@click.argument("run_dir", type=RUN_DIR)
@click.option("--json", "as_json", is_flag=True)
def status(run_dir: Path, as_json: bool) -> None:
    """What the launch in RUN_DIR is doing: every rank's step, and whether it moves."""
    from kogpt2_launch.run.status import describe, read_status

    found = read_status(run_dir)
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else describe(found))


@click.command()
@click.argument("run_dir", type=RUN_DIR)
def stop(run_dir: Path) -> None:
    """Let the workers of the launch in RUN_DIR save their state and end, from any host that sees the folder.

    They find the file RUN_DIR/stop within seconds, and end after the step they are in with exit code 75; the launcher
    ends with them. The next run removes it.
    """
    from kogpt2_launch.run.status import ask_to_stop

    click.echo(f"asked by {ask_to_stop(run_dir)}; kogpt2-launch status {run_dir} shows when it has ended")


@click.command()
@click.argument("run_dir", type=RUN_DIR)
@click.option("--rank", default=0, show_default=True)
@click.option("--attempt", default=0, help="[default: the newest]")
@click.option("--why", is_flag=True, help="How the attempt ended instead: the reason, all ranks, stacks of a hang.")
def logs(run_dir: Path, rank: int, attempt: int, why: bool) -> None:
    """Print the output of a rank of the launch in RUN_DIR."""
    from kogpt2_launch.run.status import log_file, report_file

    path = report_file(run_dir, attempt) if why else log_file(run_dir, rank, attempt)
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            click.echo(line, nl=False)
