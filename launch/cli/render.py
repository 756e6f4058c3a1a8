"""The verb `kogpt2-launch render`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.paths import ANY_PATH
from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.cli import options


@click.command()
@options.plan_file
@click.option("--to", "target", required=True, type=click.Choice(["slurm", "mpijob", "batch", "parallelcluster"]))
@click.option("--out", default=".", show_default=True, type=ANY_PATH, help="Folder for the files.")
@click.option("--image", help="Container image with this package, Horovod, Open MPI and sshd.  [mpijob, batch]")
@click.option("--folder", default="/fsx", show_default=True, help="Where the shared file system is mounted.")
@click.option("--claim", default="fsx", show_default=True, help="PersistentVolumeClaim of that file system.  [mpijob]")
@click.option("--region", help="AWS region.  [parallelcluster]")
@click.option("--subnet", help="Subnet of the compute nodes; without public addresses for EFA.  [parallelcluster]")
@click.option("--head-subnet", help="Subnet of the head node, if it is another one.  [parallelcluster]")
@click.option("--key-name", help="Key pair for the head node.  [parallelcluster]")
@click.option(
    "--file-system", help="An existing FSx for Lustre, fs-...  [parallelcluster; default: the plan's, or a new one]"
)
@click.option("--time-limit", default="7-00:00:00", show_default=True, help="Of the job.  [slurm, parallelcluster]")
def render(
    plan_file: Path,
    target: str,
    out: Path,
    image: str | None,
    folder: str,
    claim: str,
    region: str | None,
    subnet: str | None,
    head_subnet: str | None,
    key_name: str | None,
    file_system: str | None,
    time_limit: str,
) -> None:
    """Write PLAN (a file of `plan --out`) as a job of a scheduler, which then chooses the hosts.

    An existing file with other content is not overwritten.

    \b
    Examples:
      kogpt2-launch render plan.json --to slurm && sbatch job.sbatch
      kogpt2-launch render plan.json --to mpijob --image REGISTRY/kogpt2:1 && kubectl apply -f mpijob.yaml
    """
    from kogpt2_gluon.storage.files import write_file
    from kogpt2_launch.plan.plan_file import load_plan
    from kogpt2_launch.render import Site, render

    site = Site(image, folder, claim, region, subnet, head_subnet, key_name, file_system, time_limit)
    files = render(load_plan(plan_file), target, site)
    for name, text in files.items():
        path = out / name
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise RecipeError(f"{path}: exists with other content; move it away or give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_file(out / name, text.encode())
            click.echo(str(out / name))
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written: {error.strerror}") from None
