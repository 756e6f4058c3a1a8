"""Runs under a prefix of S3: their records are copied to this machine, so that they are read like any other run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.runs.run_folder import RunFolder, find_runs, open_run
from kogpt2_gluon.storage.s3_prefix import S3Prefix
from kogpt2_gluon.storage.s3_url import is_s3_url

RECORD = ("recipe.yaml", "metrics.jsonl", "log.txt", "env.json", "data.json", "parent.json")
MOST_BYTES = 1 << 30  # of one file; a longer record is refused by name


@contextmanager
def local_copy(place: Path) -> Iterator[Path]:
    """Yields `place`, or for ``s3://bucket/prefix`` a temporary folder with the records of the runs below it.

    Checkpoints stay where they are. DataError or RecipeError of S3, in one line; DataError for a record that is too
    large.
    """
    if not is_s3_url(place):
        yield place
        return
    prefix = S3Prefix(str(place))
    with tempfile.TemporaryDirectory(prefix="kogpt2-runs-") as folder:
        sizes = prefix.sizes()
        runs = {PurePosixPath(name).parent for name in sizes if PurePosixPath(name).name == "recipe.yaml"}
        for run in sorted(runs):
            if ".." in run.parts or run.is_absolute() or {"checkpoints", "best"} & set(run.parts):
                continue
            target = Path(folder, run)
            target.mkdir(parents=True, exist_ok=True)
            for name in RECORD:
                key = str(run / name)
                if sizes.get(key, 0) > MOST_BYTES:
                    raise DataError(
                        f"{prefix.url}/{key}: {sizes[key]:,} bytes, and a record has {MOST_BYTES:,} at most"
                    )
                if key in sizes:
                    prefix.download(key, target / name)
        yield Path(folder)


@contextmanager
def runs_below(place: Path) -> Iterator[tuple[list[RunFolder], list[RecipeError]]]:
    """Yields the runs in a folder or below a prefix of S3, and an error for each that cannot be read."""
    with local_copy(place) as root:
        found: list[RunFolder] = []
        faults: list[RecipeError] = []
        for each in find_runs(root):
            if isinstance(each, RecipeError):
                faults.append(each)
            else:
                found.append(each if root == place else replace(each, place=_place(each.path, root, place)))
        yield found, faults


@contextmanager
def opened(places: Sequence[Path]) -> Iterator[list[RunFolder]]:
    """Yields runs by their folders, or by their addresses in S3."""
    with ExitStack() as copies:
        roots = [copies.enter_context(local_copy(place)) for place in places]
        yield [
            open_run(root, str(place) if root == place else S3Prefix(str(place)).url)
            for root, place in zip(roots, places)
        ]


def _place(path: Path, root: Path, place: Path) -> str:
    rest = str(path.relative_to(root))
    return S3Prefix(str(place)).url + (f"/{rest}" if rest != "." else "")
