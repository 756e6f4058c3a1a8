"""The verb `kogpt2-launch preflight`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kogpt2_gluon.cli.group import echo_json
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_launch.cli import options


@click.command()
@options.plan_file
@options.python
@options.port
@click.option("--timeout", default=90.0, show_default=True, help="Seconds that a host has for its answer.")
@click.option("--ec2", is_flag=True, help="Ask EC2 too: subnet, placement group, security groups.")
@options.json_output
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
    """Ask every host of PLAN (a file of `plan --out`) by ssh if it is ready, and start nothing.

    It checks clocks, code, packages, data, run folder, shared file system, network interface and ssh between the hosts.
    If the plan names an instance type, it also checks GPUs, EFA, libfabric, plugin, locked memory and libnccl. Each
    finding is pass, warn or fail, with its fix. The exit code is 1 if one fails.

    \b
    Example:
      kogpt2-launch preflight plan.json
    """
    from kogpt2_gluon.findings import FAIL, Finding
    from kogpt2_launch.plan.plan_file import load_plan
    from kogpt2_launch.preflight.checks import ALL
    from kogpt2_launch.preflight.preflight import preflight as ask_all
    from kogpt2_launch.preflight.preflight import to_json, to_table
    from kogpt2_launch.ssh import Shell

    plan = load_plan(plan_file)
    findings = ask_all(plan, Shell(python or sys.executable, port), timeout)
    if ec2:
        from kogpt2_launch.preflight.checks_ec2 import ec2_findings

        try:
            findings = (*findings, *ec2_findings(plan))
        except KoGPT2Error as error:  # the hosts' own answers are useful without EC2's
            findings = (*findings, Finding(FAIL, "EC2", ALL, str(error), "kogpt2-launch preflight without --ec2"))
    if as_json:
        echo_json(to_json(findings))
    else:
        click.echo(to_table(findings))
    ctx.exit(int(any(each.status == FAIL for each in findings)))
