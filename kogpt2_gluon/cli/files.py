"""The verb `kogpt2 files`: data on shared file systems and S3, before and after a run."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import click

from kogpt2_gluon.cli.progress_bar import ProgressBar, progress_bar
from kogpt2_gluon.errors import DataError, RecipeError

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, file_okay=False, path_type=Path)


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
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def stage(places: tuple[str, ...], dry_run: bool, batch: int, as_json: bool) -> None:
    """Before a run: restore released files (Lustre HSM), check that all are there.

    DIR is a folder of shards, one with such folders below it, or of other files; RECIPE stands for the data it names.
    Each file must be there, open, and have the size that its manifest says; `kogpt2 verify` also compares hashes. On a
    file system that is not Lustre there is nothing to restore: that is said, and the files are checked. Interrupt it as
    you like: the same command goes on.

    \b
    Example: kogpt2 files stage /fsx/shards
             kogpt2 files stage kogpt2_base --dry-run
    """
    reports = [_stage(folder, dry_run, batch) for folder in _folders(places)]
    _finish(reports, as_json, staged=not dry_run)


@files.command(no_args_is_help=True)
@click.argument("places", nargs=-1, required=True, metavar="DIR|RECIPE|s3://...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(places: tuple[str, ...], as_json: bool) -> None:
    """Size and manifest of folders or S3 prefixes; on Lustre layout, mount options and what is released.

    \b
    Example: kogpt2 files status /fsx/shards s3://bucket/shards --json
    """
    from kogpt2_gluon.corpus.sources import is_s3_url
    from kogpt2_gluon.staging.staging import status as run

    reports = []
    for place in places:
        reports += [_remote_status(place)] if is_s3_url(place) else [run(folder) for folder in _folders([place])]
    _finish(reports, as_json, staged=False)


@files.command(no_args_is_help=True)
@click.argument("folder", metavar="DIR", type=EXISTING)
@click.argument("url", metavar="s3://BUCKET/PREFIX")
def upload(folder: Path, url: str) -> None:
    """Copy a folder to S3: parts and whole files hashed, manifests last; what is there already is left.

    \b
    Example: kogpt2 files upload shards s3://bucket/kogpt2/shards
    """
    from kogpt2_gluon.staging.transfer import upload_folder

    with progress_bar("uploading") as bar:
        copied = upload_folder(folder, _checked_url(url), bar.show)
    click.echo(f"{url}: {_counts(copied)}")


@files.command(no_args_is_help=True)
@click.argument("url", metavar="s3://BUCKET/PREFIX")
@click.argument("folder", metavar="DIR", type=FOLDER)
def download(url: str, folder: Path) -> None:
    """Copy an S3 prefix to a folder: hashes compared, manifests last; what is there already is left.

    A new folder on Lustre first gets its stripe layout.

    \b
    Example: kogpt2 files download s3://bucket/kogpt2/shards /fsx/shards
    """
    from kogpt2_gluon.staging.transfer import download_folder

    with progress_bar("downloading") as bar:
        copied = download_folder(_checked_url(url), folder, bar.show)
    if copied.note:
        click.echo(copied.note)
    click.echo(f"{folder}: {_counts(copied)}")


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
    click.echo(prepare_folder(folder, shard_mib << 20) or f"{folder}: not on Lustre: no layout to set")


def _stage(folder: Path, dry_run: bool, batch: int) -> Any:
    """Stages one folder, with a progress bar from when there is progress: mostly there is nothing to restore."""
    from kogpt2_gluon.staging.staging import stage as run

    with ExitStack() as stack:

        @cache
        def bar() -> ProgressBar:
            return stack.enter_context(progress_bar("staging"))

        return run(folder, dry_run, batch, lambda *counts: bar().show(*counts), lambda words: bar().log(words))


def _folders(places: Any) -> list[Path]:
    """Folders as they are; a recipe's name becomes the data that it names."""
    found: list[Path] = []
    for place in places:
        if Path(place).is_dir():
            found.append(Path(place))
            continue
        from kogpt2_gluon.recipe import load_recipe

        try:
            data = load_recipe(place).data
        except RecipeError as error:
            if Path(place).suffix in (".yaml", ".yml"):
                raise
            raise RecipeError(f"{place}: neither a folder nor a recipe ({error})") from None
        named = [name for name in (*data.train_sets, data.test) if name]
        if not named:
            raise RecipeError(f"{place}: its data.train names no folder; name the folder itself")
        for name in named:
            if not Path(name).exists():
                raise DataError(f"{name}: no such folder; {place} names it as its data")
        found += map(Path, named)
    return found


def _checked_url(url: str) -> str:
    from kogpt2_gluon.corpus.sources import is_s3_url

    if not is_s3_url(url):
        raise RecipeError(f"{url}: no address of S3; write s3://bucket/prefix")
    return url


def _remote_status(url: str) -> Any:
    from kogpt2_gluon.staging.staging import Report
    from kogpt2_gluon.staging.transfer import list_remote

    remote = list_remote(url)
    size = sum(each.size for each in remote.objects.values())
    sets = [each.url for each in remote.sets]
    return Report(url, "s3", sets=sets, files=len(remote.objects), bytes=size, faults=remote.faults)


def _counts(copied: Any) -> str:
    there = f", {copied.skipped_files:,} files ({copied.skipped_bytes / 1e6:,.1f} MB) were there already"
    return f"{copied.files:,} files, {copied.bytes / 1e6:,.1f} MB copied" + (there if copied.skipped_files else "")


def _finish(reports: list[Any], as_json: bool, staged: bool) -> None:
    """Prints the reports; leaves with 3 if anything is wrong."""
    from kogpt2_gluon.staging.staging import report_lines, to_dict

    faults = [fault for report in reports for fault in report.faults]
    if as_json:
        click.echo(json.dumps({"ok": not faults, "folders": [to_dict(report) for report in reports]}))
        sys.exit(DataError.exit_code if faults else 0)
    for report in reports:
        for line in report_lines(report, staged):
            click.echo(line)
        for fault in report.faults if len(faults) > 1 else []:  # a single one is the closing line
            click.echo(f"  fault: {fault}")
    if len(faults) > 1:
        raise DataError(f"{len(faults):,} faults, listed above; `kogpt2 verify DIR` also compares hashes")
    if faults:
        raise DataError(faults[0])
