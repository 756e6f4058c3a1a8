"""Runs under a prefix of S3: their records are copied to this machine, so that they are read like any other run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.runs.environment import hide_users
from kogpt2_gluon.runs.run_folder import RECIPE_FILE, RunFolder, find_runs, open_run
from kogpt2_gluon.storage.s3_prefix import S3Prefix
from kogpt2_gluon.storage.s3_url import is_s3_url
from kogpt2_gluon.wording import counted

RECORD = ("recipe.yaml", "metrics.jsonl", "log.txt", "env.json", "data.json", "parent.json")
MOST_NAMED = 6  # runs, in a line about a folder of them
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
def runs_below(place: Path) -> Iterator[tuple[list[RunFolder], list[KoGPT2Error]]]:
    """Yields the runs in a folder or below a prefix of S3, and an error for each that cannot be read.

    A run whose record alone is damaged is among both.
    """
    with local_copy(place) as root:
        found: list[RunFolder] = []
        faults: list[KoGPT2Error] = []
        for each in find_runs(root):
            if isinstance(each, RecipeError):
                faults.append(each)
                continue
            if each.fault:
                faults.append(each.fault)
            found.append(replace(each, place=_place(each.path, root, place)))
        yield found, faults


@contextmanager
def opened(places: Sequence[Path], say: Callable[[str], None] = lambda line: None) -> Iterator[list[RunFolder]]:
    """Yields runs by their folders, or by their addresses in S3, each once.

    A folder that is not a run but holds runs is taken for these, and `say` is called with a line about it. The names
    and passwords in the addresses of recipes are hidden, since what is made of these runs is shown.

    RecipeError that names all places without a run, and all runs whose recipe cannot be read; DataError if the record
    of one is damaged.
    """
    with ExitStack() as copies:
        found: dict[Path, RunFolder] = {}
        faults: list[RecipeError] = []
        for place in places:
            root = copies.enter_context(local_copy(place))
            for run in _runs_in(root, place, faults, say):
                found.setdefault(run.path.resolve(), run)
        if len(faults) == 1:
            raise faults[0]
        if faults:
            raise RecipeError("; ".join(map(str, faults)))
        for run in found.values():
            if run.fault:
                raise run.fault
            run.recipe.tracking.mlflow = hide_users(run.recipe.tracking.mlflow)
        yield list(found.values())


def _runs_in(root: Path, place: Path, faults: list[RecipeError], say: Callable[[str], None]) -> Iterator[RunFolder]:
    """Yields the run in a folder, or those below it; what cannot be opened is appended to `faults`."""
    below = [] if (root / RECIPE_FILE).is_file() else list(find_runs(root))
    runs = [replace(each, place=_place(each.path, root, place)) for each in below if isinstance(each, RunFolder)]
    faults += [each for each in below if isinstance(each, RecipeError)]
    if below:
        names = [str(run.path.relative_to(root)) for run in runs]
        shown = ", ".join(names if len(names) <= MOST_NAMED + 1 else [*names[:MOST_NAMED], "..."])
        say(f"{place}: not a run itself; it holds {counted(len(below), 'run')}, which are taken: {shown}")
        yield from runs
    elif (root / RECIPE_FILE).is_file():
        try:
            yield open_run(root, _place(root, root, place))
        except RecipeError as error:
            faults.append(error)
    else:
        faults.append(RecipeError(f"{place}: no {RECIPE_FILE} there, nor a run below; is this the folder of a run?"))


def _place(path: Path, root: Path, place: Path) -> str:
    """Returns where a run is in the user's words, by its path below the copy `root` of `place`."""
    if root == place:
        return str(path)
    rest = str(path.relative_to(root))
    return S3Prefix(str(place)).url + (f"/{rest}" if rest != "." else "")
