"""The verb `kogpt2-launch plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kogpt2_gluon.cli.group import echo_json
from kogpt2_gluon.cli.paths import HomePath
from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.cli import options


@click.command()
@click.argument("recipe")
@click.argument("overrides", metavar="[key=value]...", nargs=-1)
@options.hosts
@click.option("--file-system", metavar="fs-...", help="The FSx for Lustre that they share; preflight looks for it.")
@click.option("--network-interface", metavar="NAME", help="The interface that the hosts share, such as eth0.")
@click.option("--instance-type", metavar="TYPE", help="The hosts' EC2 type, such as p4d.24xlarge: sets up its network.")
@click.option("--plugin-version", metavar="V", help="Version of aws-ofi-nccl, if the type has EFA, or none.")
@click.option("--libfabric-version", metavar="V", help="Version of libfabric on the hosts, if the type has EFA.")
@click.option("--preset", metavar="NAME", help="Settings of a past time: period-2019.")
@options.variables
@options.json_output
@click.option("--out", type=HomePath(path_type=Path, dir_okay=False), help="Write the plan (JSON) to this file too.")
def plan(
    recipe: str,
    overrides: tuple[str, ...],
    file_system: str | None,
    network_interface: str | None,
    instance_type: str | None,
    plugin_version: str | None,
    libfabric_version: str | None,
    preset: str | None,
    variables: tuple[str, ...],
    as_json: bool,
    out: Path | None,
    **hosts: Any,
) -> None:
    """Print what a run on these hosts would be, and start nothing.

    The plan shows ranks, batch, threads, time and cost, each variable with its source, and the exact command. Equal
    input gives equal text. Among your own variables (--env), the plan names those that do harm or have no effect
    on this network, and refuses those that corrupt data.

    \b
    Example:
      kogpt2-launch plan kogpt2_base training.num_steps=1000 \\
          --hosts h1:8,h2:8 --network-interface eth0 --instance-type p4d.24xlarge \\
          --plugin-version 1.13.2 --libfabric-version 1.22 --out plan.json
    """
    from kogpt2_gluon.estimate import time_and_cost
    from kogpt2_gluon.recipe import load_recipe
    from kogpt2_gluon.storage.files import write_file
    from kogpt2_launch.plan import discovery
    from kogpt2_launch.plan.environment import parse_variables
    from kogpt2_launch.plan.plan import make_plan
    from kogpt2_launch.plan.variables import Fabric

    found = options.find_hosts(hosts)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if instance_type and found.instance_type and instance_type != found.instance_type:
        raise RecipeError(f"--instance-type {instance_type}: the hosts found are of type {found.instance_type}")
    fabric = Fabric(found.instance_type or instance_type, plugin_version, libfabric_version, preset)
    shared = discovery.file_system(file_system) if file_system is not None else None
    made = make_plan(recipe, overrides, found.hosts, network_interface, parse_variables(variables), fabric, shared)
    if out is not None:
        try:
            if not out.parent.is_dir():  # a misspelt folder is not made
                raise RecipeError(f"--out {out}: cannot be written: there is no folder {out.parent}")
            write_file(out, made.to_json().encode())
        except OSError as error:
            raise RecipeError(f"--out {out}: cannot be written: {error.strerror}") from None
    if as_json:
        echo_json(made.to_json())
    else:
        click.echo(made.describe(), nl=False)
        click.echo("\n".join(time_and_cost(load_recipe(recipe, overrides), made.size)))
