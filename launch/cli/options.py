"""Options that several verbs share: how hosts are named, and how they are reached."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import click

from kogpt2_gluon.cli.paths import ANY_PATH, HomePath
from kogpt2_gluon.errors import RecipeError

if TYPE_CHECKING:
    from kogpt2_launch.plan.discovery import Discovered

plan_file = click.argument("plan_file", metavar="PLAN", type=ANY_PATH)
run_dir = click.argument("run_dir", type=HomePath(exists=True, file_okay=False, path_type=Path))
python = click.option("--python", metavar="PATH", help="Interpreter on the hosts.  [default: this one]")
port = click.option("--port", type=click.IntRange(1, 65535), help="Port of sshd, if ~/.ssh/config does not have it.")
json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
variables = click.option(
    "--env", "variables", metavar="K=V", multiple=True, help="A variable for every worker; may be repeated."
)

HOSTS = (
    click.option("--hosts", metavar="h1:8,h2:8", help="Hosts and their slots (workers); the first has rank 0."),
    click.option("--hostfile", type=ANY_PATH, help="A file with a line 'h1 slots=8' or 'h1:8' each."),
    click.option("--ec2-tag", metavar="K=V", help="The running EC2 instances with this tag; EC2 names their type."),
    click.option("--placement-group", metavar="G", help="The running EC2 instances of this placement group."),
    click.option("--asg", metavar="A", help="The instances of this Auto Scaling group that are in service."),
    click.option("--slurm", is_flag=True, help="The nodes of the Slurm allocation that this runs in."),
)


def hosts(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a verb all the ways to name hosts; :func:`find_hosts` takes them."""
    for option in reversed(HOSTS):
        verb = option(verb)
    return verb


def find_hosts(given: Mapping[str, Any]) -> Discovered:
    """The hosts that the options of :func:`hosts` name; this machine if there are none, RecipeError for two ways."""
    from kogpt2_launch.hosts import Host, parse_hosts, read_hostfile
    from kogpt2_launch.plan.discovery import Discovered, from_auto_scaling_group, from_ec2, from_slurm

    ways: dict[str, Callable[[], Discovered]] = {}
    if given["hosts"] is not None:
        ways["--hosts"] = lambda: Discovered(parse_hosts(given["hosts"]))
    if given["hostfile"] is not None:
        ways["--hostfile"] = lambda: Discovered(read_hostfile(given["hostfile"]))
    if given["ec2_tag"] is not None or given["placement_group"] is not None:
        ways["--ec2-tag or --placement-group"] = lambda: from_ec2(given["ec2_tag"], given["placement_group"])
    if given["asg"] is not None:
        ways["--asg"] = lambda: from_auto_scaling_group(given["asg"])
    if given["slurm"]:
        ways["--slurm"] = lambda: from_slurm(os.environ)
    if len(ways) > 1:
        raise RecipeError(f"hosts are named in {len(ways)} ways: give one of {', '.join(ways)}")
    for find in ways.values():
        return find()
    return Discovered((Host("localhost", 1),))
