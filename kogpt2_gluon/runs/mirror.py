"""Mirrors of a run's checkpoints: what is there, whose it is, and copying it there and back.

A mirror gets the newest checkpoint each time, and the best one. It keeps what the run's folder keeps, by the same
rules: a checkpoint leaves it once the run's folder does not have it and the rules do not keep it, and never before the
newest one is there whole. Nothing else is deleted: checkpoints of steps that the run went back from move into
``before-step-N-TIME``, as in the run's folder. Where each kind of place differs is in :mod:`.mirror_places`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from kogpt2_gluon.errors import DamagedError, DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.runs.checkpoint import MODEL, ONLY_AS_BEST, OPTIMIZER, RECIPE, STATE
from kogpt2_gluon.runs.checkpoint_folder import BEST, LATEST, committed, named_in, step_of
from kogpt2_gluon.runs.manifest import MANIFEST, FileFacts, read_manifest, same_as_written
from kogpt2_gluon.runs.mirror_places import Place, is_a_checkpoint, place_of
from kogpt2_gluon.storage.files import new_folder
from kogpt2_gluon.storage.tokenizer_file import NAMES

OWNER = "owner"  # a text file with the path of the folder of checkpoints whose mirror it is
FILES = [frozenset({MODEL, OPTIMIZER, STATE, RECIPE, name}) for name in NAMES]  # of a checkpoint, without its manifest


class Rules(NamedTuple):
    """The rules of a recipe's ``checkpoint`` for what is kept: the newest `keep` (0: all), each multiple of `every`."""

    keep: int
    every: int


class Mirror:
    """One of ``checkpoint.mirrors``. Only one process of a run uses it.

    Errors are DataError, RecipeError, DiskFullError or OSError; a mirror may fail at any time.
    """

    def __init__(self, address: str) -> None:
        self._place: Place = place_of(address)
        self.name = self._place.name
        self._owned: set[str] = set()  # names of checkpoints that are known to be this run's
        self._taken = False
        self._same: set[str] = set()  # of those that are known to be as in the run's folder

    def checkpoints(self) -> list[str]:
        """Lists the names of its whole checkpoints, from the one that was saved last on: later steps were left."""
        names = self._place.checkpoints()
        latest = self._named(LATEST)
        return names[names.index(latest) :] if latest in names else names

    def state(self, name: str) -> dict[str, Any]:
        """Reads the state of a checkpoint. DamagedError if it differs from its hash."""
        with self._small_file(name, STATE) as path:
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return state

    def recipe(self, name: str) -> Recipe:
        """Reads the recipe of a checkpoint. DamagedError if it differs from its hash."""
        with self._small_file(name, RECIPE) as path:
            return load_recipe(str(path))

    def best(self) -> str | None:
        """Returns the name of the best checkpoint that is there, None if there is none."""
        best = self._named(BEST)
        return best if best in self._place.checkpoints() else None

    def check_writable(self) -> None:
        """Raises an error if nothing can be written there; leaves nothing."""
        self._place.check_writable()

    # ---- there

    def add(self, checkpoint: Path, ckpt_dir: Path, begun_as: str) -> int:
        """Copies a checkpoint, the newest one in `ckpt_dir`, unless it is there; returns the bytes that were sent.

        One of the same step and the same arrays counts as the same: it differs at most by an evaluation that was made
        after it, and to replace it would leave S3 without it for a moment. FileNotFoundError or DamagedError if
        `checkpoint` is removed meanwhile; RecipeError if the mirror is another run's.
        """
        name, sent = checkpoint.name, 0
        self.check_owner(begun_as)
        self._take(ckpt_dir)
        aside = f"before-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        names = self._place.checkpoints()
        for each in (checkpoint, *committed(ckpt_dir)):
            if each.name in names and each.name not in self._same and not self._has_same_arrays(each):
                self._place.move(each.name, aside)  # of steps that the run went back from
                names.remove(each.name)
        self._place.tidy(name)
        if name not in names:
            sent = self._place.put(checkpoint, read_manifest(checkpoint))
        self._note_same(name)
        self._place.write(LATEST, f"{name}\n".encode())  # from here on, it is the newest
        for later in names:
            if step_of(Path(later)) > step_of(checkpoint):
                self._place.move(later, aside)
        return sent

    def add_best(self, ckpt_dir: Path, at: Path) -> int:
        """Makes ``best`` name what it names in `ckpt_dir`, which is copied if need be; returns the bytes sent.

        The checkpoint is :func:`held` in the folder `at` meanwhile. A file that cannot be read, or names nothing,
        changes nothing: the best checkpoint that is known stays.
        """
        best = named_in(ckpt_dir, BEST)
        if best is not None:
            with held(best, at) as checkpoint:
                return self._name_best(checkpoint)
        if self._named(BEST) is not None and not (ckpt_dir / BEST).exists():
            self._place.remove_file(BEST)
        return 0

    def _name_best(self, checkpoint: Path) -> int:
        sent, now = 0, self._named(BEST)
        if checkpoint.name not in self._place.checkpoints():
            sent = self._place.put(checkpoint, read_manifest(checkpoint))
        self._note_same(checkpoint.name)
        if now != checkpoint.name:
            self._place.write(BEST, f"{checkpoint.name}\n".encode())
        return sent

    def prune(self, own: set[str], rules: Rules) -> None:
        """Removes checkpoints that the run's folder, which has those of names `own`, has not, if no rule keeps them."""
        if not rules.keep:
            return
        names = self._place.checkpoints()
        named = {self._named(LATEST), self._named(BEST)}
        counted = [each for each in names if each in own or not self._is_only_best(each)]
        for name in names:
            by_rule = name in counted[: rules.keep] or (rules.every and step_of(Path(name)) % rules.every == 0)
            if not (name in own or name in named or by_rule):
                self._place.remove(name)

    def check_owner(self, begun_as: str) -> None:
        """Raises RecipeError if the newest checkpoint is not of the run that began as `begun_as`."""
        names = self.checkpoints()
        if not names or names[0] in self._owned:
            return
        name, state = self._newest_state(names)
        if identity(state) != begun_as:
            raise RecipeError(
                f"{self.name}: {name} is of another run; nothing was written there; name another folder or prefix in "
                "checkpoint.mirrors"
            )
        self._owned.add(names[0])

    def check_folder(self, ckpt_dir: Path) -> None:
        """Raises RecipeError if it is the mirror of another folder of checkpoints that is still there.

        A copy of a run's folder has the run's recipe, and so its mirrors. A folder that is gone, or has moved here,
        does not matter; nor can one be seen that is on another machine's own disk.
        """
        other = (self._place.read(OWNER) or b"").decode("utf-8", "replace").strip()
        if other and committed(Path(other)) and not (ckpt_dir.exists() and ckpt_dir.samefile(other)):
            raise RecipeError(
                f"{self.name}: is the mirror of {other}, which is still there; name another folder or prefix in "
                "checkpoint.mirrors"
            )

    def _take(self, ckpt_dir: Path) -> None:
        """Writes down whose mirror it is, once."""
        if not self._taken:
            self.check_folder(ckpt_dir)
            self._place.write(OWNER, f"{ckpt_dir.resolve()}\n".encode())
            self._taken = True

    def _newest_state(self, names: list[str]) -> tuple[str, dict[str, Any]]:
        """Returns the newest checkpoint whose state can be read, with that state."""
        faults = []
        for name in names:
            try:
                return name, self.state(name)
            except DamagedError as error:
                faults.append(str(error))
        raise DataError(f"{self.name}: no checkpoint is whole, so nobody can tell of which run: {'; '.join(faults)}")

    # ---- and back

    def fetch(self, name: str, ckpt_dir: Path) -> None:
        """Copies a checkpoint into a folder of checkpoints, where it appears whole. Every hash is compared before.

        DamagedError if it is not what was saved; OSError if that folder has it already.
        """
        with new_folder(ckpt_dir / name) as folder:
            files, sizes = self._fetch_manifest(name, folder), self._place.sizes(name)
            for file, facts in files.items():
                if sizes.get(file) != facts.size:
                    raise self._damaged(name, file)
            self._place.fetch(name, folder, files)
            for file, facts in files.items():
                if not same_as_written(folder / file, facts):
                    raise self._damaged(name, file)

    def _fetch_manifest(self, name: str, folder: Path) -> dict[str, FileFacts]:
        content = self._place.read(f"{name}/{MANIFEST}")
        if content is None:
            raise self._damaged(name, MANIFEST)
        (folder / MANIFEST).write_bytes(content)
        try:
            files = read_manifest(folder)
        except DamagedError:
            raise self._damaged(name, MANIFEST) from None
        if files.keys() not in FILES:
            raise DamagedError(f"{self.name}/{name}/{MANIFEST}: does not list a checkpoint's files")
        return files

    def _damaged(self, name: str, file: str) -> DamagedError:
        return DamagedError(
            f"{self.name}/{name}/{file}: missing, truncated or damaged; an older checkpoint may be whole"
        )

    @contextmanager
    def _small_file(self, name: str, file: str) -> Iterator[Path]:
        """Yields a copy of a file of a checkpoint, after a comparison with its hash."""
        with tempfile.TemporaryDirectory() as place:
            facts = self._fetch_manifest(name, Path(place))[file]
            path = Path(place) / file
            path.write_bytes(self._place.read(f"{name}/{file}") or b"")
            if not same_as_written(path, facts):
                raise self._damaged(name, file)
            yield path

    def _has_same_arrays(self, checkpoint: Path) -> bool:
        """Compares a checkpoint with the one of its name; True as well if it is removed meanwhile."""
        with tempfile.TemporaryDirectory() as place:
            try:
                files = read_manifest(checkpoint)
            except DamagedError:
                return True
            try:
                there = self._fetch_manifest(checkpoint.name, Path(place))
            except DamagedError:
                return False
        same = all(there[file] == files.get(file) for file in (MODEL, OPTIMIZER))
        if same:
            self._note_same(checkpoint.name)
        return same

    def _note_same(self, name: str) -> None:
        self._owned.add(name)
        self._same.add(name)

    def _named(self, file: str) -> str | None:
        """Returns the name that a text file has, if it is one of a checkpoint."""
        name = (self._place.read(file) or b"").decode("utf-8", "replace").strip()
        return name if is_a_checkpoint(name) else None

    def _is_only_best(self, name: str) -> bool:
        try:
            return self.state(name).get(ONLY_AS_BEST) is True
        except DamagedError:
            return False


def identity(state: dict[str, Any]) -> str:
    """Returns what a run began as, from the state of a checkpoint of it; see training/state.py."""
    return str(state.get("begun_as") or state.get("recipe_fingerprint") or "")


@contextmanager
def held(checkpoint: Path, at: Path) -> Iterator[Path]:
    """Yields a checkpoint that stays whole while it is copied, even if its run removes the folder meanwhile.

    It is a folder `at`/NAME of hard links, which take no room; where a file system has none, the checkpoint itself.
    FileNotFoundError if the checkpoint is gone already.
    """
    shutil.rmtree(at, ignore_errors=True)
    folder = at / checkpoint.name
    try:
        folder.mkdir(parents=True)
        try:
            for file in checkpoint.iterdir():
                os.link(file, folder / file.name)
        except FileNotFoundError:
            raise
        except OSError:
            folder = checkpoint
        yield folder
    finally:
        shutil.rmtree(at, ignore_errors=True)


def newest_first(mirrors: list[Mirror]) -> list[tuple[Mirror, str]]:
    """Lists the checkpoints of all mirrors, the one of most steps first, and each in the order of the mirrors."""
    found = [(mirror, name) for mirror in mirrors for name in mirror.checkpoints()]
    return sorted(found, key=lambda each: -step_of(Path(each[1])))


def words_of(error: Exception) -> str:
    """Returns in one line what went wrong at a mirror, for log or error."""
    if isinstance(error, KoGPT2Error):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename2 or error.filename or 'the system'}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
