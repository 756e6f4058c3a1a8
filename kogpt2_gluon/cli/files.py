"""The verb `kogpt2 files`: data on shared file systems and S3, before and after a run."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kogpt2_gluon.cli.options import json_output
from kogpt2_gluon.cli.paths import FOLDER, HomePath
from kogpt2_gluon.cli.progress_bar import ProgressBar, progress_bar
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.interrupts import interruptible

if TYPE_CHECKING:
    from kogpt2_gluon.staging.report import FolderReport

EXISTING = HomePath(exists=True, file_okay=False, path_type=Path)


@click.group(no_args_is_help=True)
def files() -> None:
    """Bring data to where it is read: FSx for Lustre, S3, any folder.

    \b
    Example: kogpt2 files stage shards && kogpt2 train kogpt2_base data.train=shards/train
    """


@files.command(no_args_is_help=True)
@click.argument("places", nargs=-1, required=True, metavar="DIR|RECIPE...")
@click.option("--dry-run", is_flag=True, help="Say what would be restored, and stop.")
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1, 256), help="Files restored at once.")
@json_output
def stage(places: tuple[str, ...], dry_run: bool, batch: int, as_json: bool) -> None:
    """Before a run: restore released files (Lustre HSM), check that all are there.

    DIR is a folder of shards, one with such folders below it, or of other files; RECIPE means the data that it names.
    Each file must be there, be readable, and have the size that its manifest says; `kogpt2 verify` also compares
    hashes. If the file system is not Lustre, there is nothing to restore: a note says so, and the files are checked.
    You may interrupt it at any time: the same command goes on.

    \b
    Example: kogpt2 files stage /fsx/shards
             kogpt2 files stage kogpt2_base --dry-run
    """
    from kogpt2_gluon.staging.places import folders_of

    reports = [_stage(folder, dry_run, batch) for folder in folders_of(places)]
    _finish(reports, as_json, staged=not dry_run)


@files.command(no_args_is_help=True)
@click.argument("places", nargs=-1, required=True, metavar="DIR|RECIPE|s3://...")
@json_output
def status(places: tuple[str, ...], as_json: bool) -> None:
    """Size and manifest of folders or S3 prefixes; on Lustre layout, mount options and what is released.

    \b
    Example: kogpt2 files status /fsx/shards s3://bucket/shards --json
    """
    from kogpt2_gluon.staging.places import folders_of
    from kogpt2_gluon.staging.staging import status as run
    from kogpt2_gluon.staging.transfer import remote_status
    from kogpt2_gluon.storage.s3_url import is_s3_url

    reports = []
    for place in places:
        reports += [remote_status(place)] if is_s3_url(place) else [run(folder) for folder in folders_of([place])]
    _finish(reports, as_json, staged=False)


@files.command(no_args_is_help=True)
@click.argument("folder", metavar="DIR", type=EXISTING)
@click.argument("url", metavar="s3://BUCKET/PREFIX")
@interruptible()
def upload(folder: Path, url: str) -> None:
    """Copy a folder to S3: parts and whole files are hashed, manifests come last, and files already there are skipped.

    \b
    Example: kogpt2 files upload shards s3://bucket/kogpt2/shards
    """
    from kogpt2_gluon.staging.places import checked_url
    from kogpt2_gluon.staging.transfer import upload_folder

    with progress_bar("uploading") as bar:
        copied = upload_folder(folder, checked_url(url), bar.show)
    click.echo(f"{url}: {copied.summary()}")


@files.command(no_args_is_help=True)
@click.argument("url", metavar="s3://BUCKET/PREFIX")
@click.argument("folder", metavar="DIR", type=FOLDER)
@interruptible()
def download(url: str, folder: Path) -> None:
    """Copy an S3 prefix to a folder: hashes are compared, manifests come last, and files already there are skipped.

    A new folder on Lustre first gets its stripe layout.

    \b
    Example: kogpt2 files download s3://bucket/kogpt2/shards /fsx/shards
    """
    from kogpt2_gluon.staging.places import checked_url
    from kogpt2_gluon.staging.transfer import download_folder

    with progress_bar("downloading") as bar:
        copied = download_folder(checked_url(url), folder, bar.show)
    if copied.note:
        click.echo(copied.note)
    click.echo(f"{folder}: {copied.summary()}")


@files.command(no_args_is_help=True)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--shard-mib", default=1024, show_default=True, type=click.IntRange(min=1), help="Size of the shards to come."
)
def layout(folder: Path, shard_mib: int) -> None:
    """Lustre: make a folder whose new files are striped as shards are read, 4 MiB (a chunk) at a time.

    Files that are there keep their layout; `lfs migrate` changes those. `kogpt2 files status` shows it.

    \b
    Example: kogpt2 files layout /fsx/shards
    """
    from kogpt2_gluon.storage.lustre import prepare_folder

    folder.mkdir(parents=True, exist_ok=True)
    click.echo(prepare_folder(folder, shard_mib << 20) or f"{folder}: not on Lustre, so there is no layout to set")


def _stage(folder: Path, dry_run: bool, batch: int) -> FolderReport:
    """Stages one folder. The progress bar appears with the first progress: usually there is nothing to restore."""
    from kogpt2_gluon.staging.staging import stage as run

    with ExitStack() as stack:

        @cache
        def bar() -> ProgressBar:
            return stack.enter_context(progress_bar("staging"))

        return run(folder, dry_run, batch, lambda *counts: bar().show(*counts), lambda line: bar().log(line))


def _finish(reports: list[FolderReport], as_json: bool, staged: bool) -> None:
    """Prints the reports; exits with 3 if there is any fault."""
    from kogpt2_gluon.staging.report import all_lines, check, to_dict

    if as_json:
        click.echo(json.dumps(to_dict(reports)))
        sys.exit(DataError.exit_code if any(report.faults for report in reports) else 0)
    click.echo("\n".join(all_lines(reports, staged)))
    check(reports)
