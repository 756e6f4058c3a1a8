"""The command ``kogpt2-launch``: plan a run on given hosts, and run it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_launch.cli.render import render
from kogpt2_launch.cli.run import logs, run, status, stop
from kogpt2_launch.plan.environment import parse_variables

if TYPE_CHECKING:
    from kogpt2_launch.plan.discovery import Discovered


class _Group(click.Group):
    """A group whose verbs answer a user's mistake in one line on stderr, and with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KoGPT2Error as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Where and how a recipe runs: plans a launch on given hosts, and runs it."""


@main.command()
@click.argument("recipe")
@click.argument("overrides", metavar="[key=value]...", nargs=-1)
@click.option("--hosts", metavar="h1:8,h2:8", help="Hosts and their slots (workers); the first has rank 0.")
@click.option("--hostfile", type=click.Path(path_type=Path), help="The same as a file: 'h1 slots=8' or 'h1:8' a line.")
@click.option("--ec2-tag", metavar="K=V", help="The running EC2 instances with this tag; their type is asked for.")
@click.option("--placement-group", metavar="G", help="Those of this placement group.")
@click.option("--asg", metavar="A", help="Those of this Auto Scaling group that are in service.")
@click.option("--slurm", is_flag=True, help="The nodes of the Slurm allocation that this runs in.")
@click.option("--file-system", metavar="fs-...", help="The FSx for Lustre that they share; preflight looks for it.")
@click.option("--network-interface", metavar="NAME", help="The interface that the hosts share, such as eth0.")
@click.option("--instance-type", metavar="TYPE", help="The hosts' EC2 type, such as p4d.24xlarge: sets up its network.")
@click.option("--plugin-version", metavar="V", help="Of aws-ofi-nccl, where the type has EFA; none: they have not.")
@click.option("--libfabric-version", metavar="V", help="Of libfabric on the hosts, where the type has EFA.")
@click.option("--preset", metavar="NAME", help="Settings of their time: period-2019.")
@click.option("--env", "variables", metavar="K=V", multiple=True, help="A variable for every worker; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan (JSON) to this file too.")
def plan(
    recipe: str,
    overrides: tuple[str, ...],
    hosts: str | None,
    hostfile: Path | None,
    ec2_tag: str | None,
    placement_group: str | None,
    asg: str | None,
    slurm: bool,
    file_system: str | None,
    network_interface: str | None,
    instance_type: str | None,
    plugin_version: str | None,
    libfabric_version: str | None,
    preset: str | None,
    variables: tuple[str, ...],
    as_json: bool,
    out: Path | None,
) -> None:
    """Print what a run on these hosts would be, and start nothing.

    Ranks, batch, threads, time and cost, each variable with its source, and the exact command. Equal input gives equal
    text. Of your own variables (--env) those that do harm or nothing on this network are named; what corrupts data is
    refused.

    \b
    Example:
      kogpt2-launch plan kogpt2_base training.num_steps=1000 \\
          --hosts h1:8,h2:8 --network-interface eth0 --instance-type p4d.24xlarge \\
          --plugin-version 1.13.2 --libfabric-version 1.22 --out plan.json
    """
    from kogpt2_gluon.estimate import time_and_cost
    from kogpt2_gluon.recipe import load_recipe
    from kogpt2_launch.plan import discovery
    from kogpt2_launch.plan.plan import make_plan
    from kogpt2_launch.plan.variables import Fabric

    found = _hosts(hosts, hostfile, ec2_tag, placement_group, asg, slurm)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if instance_type and found.instance_type and instance_type != found.instance_type:
        raise RecipeError(f"--instance-type {instance_type}: the hosts found are of type {found.instance_type}")
    fabric = Fabric(found.instance_type or instance_type, plugin_version, libfabric_version, preset)
    shared = discovery.file_system(file_system) if file_system is not None else None
    made = make_plan(recipe, overrides, found.hosts, network_interface, parse_variables(variables), fabric, shared)
    if out is not None:
        try:
            out.write_text(made.to_json(), encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"--out {out}: cannot be written: {error.strerror}") from None
    if as_json:
        click.echo(made.to_json(), nl=False)
    else:
        click.echo(made.describe(), nl=False)
        click.echo("\n".join(time_and_cost(load_recipe(recipe, overrides), made.size)))


@main.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--python", default=None, metavar="PATH", help="Interpreter on the hosts.  [default: this one]")
@click.option("--port", type=click.IntRange(1, 65535), help="Of sshd, where ~/.ssh/config does not say.")
@click.option("--timeout", default=90.0, show_default=True, help="Seconds that a host has for its answer.")
@click.option("--ec2", is_flag=True, help="Ask EC2 too: subnet, placement group, security groups.")
@click.option("--json", "as_json", is_flag=True, help="A list of findings.")
@click.pass_context
def preflight(
    ctx: click.Context,
    plan_file: Path,
    python: str | None,
    port: int | None,
    timeout: float,
    ec2: bool,
    as_json: bool,
) -> None:
    """Ask every host of PLAN (a file of `plan --out`) by ssh whether it is ready, and start nothing.

    Clocks, code, packages, data, run folder, shared file system, network interface, ssh between the hosts; where the
    plan names an instance type also GPUs, EFA, libfabric, plugin, locked memory and libnccl. Each finding is pass,
    warn or fail, with what mends it; exit code 1 if one fails.

    \b
    Example:
      kogpt2-launch preflight plan.json
    """
    from kogpt2_launch.plan.plan import load_plan
    from kogpt2_launch.preflight.checks import ALL, FAIL, Finding
    from kogpt2_launch.preflight.preflight import preflight as ask_all
    from kogpt2_launch.preflight.preflight import to_json, to_table
    from kogpt2_launch.ssh import Shell

    plan = load_plan(plan_file)
    findings = ask_all(plan, Shell(python or sys.executable, port), timeout)
    if ec2:
        from kogpt2_launch.preflight.checks_ec2 import ec2_findings

        try:
            findings = (*findings, *ec2_findings(plan))
        except KoGPT2Error as error:  # the hosts' own answers are worth something without EC2's
            findings = (*findings, Finding("EC2", ALL, FAIL, str(error), "kogpt2-launch preflight without --ec2"))
    click.echo(to_json(findings) if as_json else to_table(findings))
    ctx.exit(int(any(each.status == FAIL for each in findings)))


def _hosts(
    hosts: str | None,
    hostfile: Path | None,
    ec2_tag: str | None,
    placement_group: str | None,
    asg: str | None,
    slurm: bool,
) -> Discovered:
    """The hosts that the options name, in one of the ways; this machine if none does."""
    from kogpt2_launch.hosts import Host, parse_hosts, read_hostfile
    from kogpt2_launch.plan.discovery import Discovered, from_auto_scaling_group, from_ec2, from_slurm

    ways = {
        "--hosts": hosts is not None,
        "--hostfile": hostfile is not None,
        "--ec2-tag or --placement-group": ec2_tag is not None or placement_group is not None,
        "--asg": asg is not None,
        "--slurm": slurm,
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise RecipeError(f"hosts are named in {len(given)} ways: give one of {', '.join(given)}")
    if hosts is not None:
        return Discovered(parse_hosts(hosts))
    if hostfile is not None:
        return Discovered(read_hostfile(hostfile))
    if asg is not None:
        return from_auto_scaling_group(asg)
    if slurm:
        return from_slurm(os.environ)
    if given:
        return from_ec2(ec2_tag, placement_group)
    return Discovered((Host("localhost", 1),))


for verb in (run, status, stop, logs, render):
    main.add_command(verb)

if __name__ == "__main__":
    main()
