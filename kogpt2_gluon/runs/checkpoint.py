"""Checkpoints: folders that are whole or absent.

``CKPT_DIR/step-NNNNNNNN/`` holds ``model.params`` (fp32, in MXNet's format, the released files' names, but the tied
matrix once), ``optimizer.params`` (the optimizer's arrays, likewise), ``state.json``, ``recipe.yaml`` and
``tokenizer.model`` or ``tokenizer.json`` (with which the folder alone is enough to generate, evaluate or convert) and
``manifest.json`` with size and hashes of each (:mod:`.manifest`). In the place of ``model.params`` there may be
``model.codes``, whose matrices are in a few bits (storage/codes_file.py).

A save writes everything into a hidden folder, forces it onto the disk, and renames the folder last. Only then do two
text files change: ``latest``, and ``best``, which names the checkpoint of the lowest held-out loss. Only after that are
old checkpoints removed: they get a hidden name first, so that half a checkpoint never has the name of one. A crash at
any point leaves the previous checkpoint or the new one; a resume corrects ``best`` by the state that it goes on from.
Nothing here is a pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from kogpt2_gluon.errors import DamagedError, DataError, KoGPT2Error
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.runs.checkpoint_folder import (
    BEST,
    FOLDER,
    LATEST,
    committed,
    folder_aside,
    move_all,
    name_best,
    name_of,
    named_in,
    newest_in,
    runs_below,
    step_of,
)
from kogpt2_gluon.runs.manifest import (
    MANIFEST,
    FileFacts,
    ManifestWriter,
    check_is_damage,
    digest_as_written,
    read_manifest,
    same_as_written,
)
from kogpt2_gluon.runs.weights import EMBEDDING, TIED_COPY, CodedWeights, Weights, damaged
from kogpt2_gluon.storage.codes_file import CodedArrays, CodesFile, write_codes
from kogpt2_gluon.storage.files import move, remove_folder, remove_partials, replace_folder, write_file
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.storage.links import leads_out, read_file
from kogpt2_gluon.storage.params_file import ParamsFile, read_params, write_params
from kogpt2_gluon.storage.tokenizer_file import NAMES, StoredTokenizer

ONLY_AS_BEST = "only_as_best"  # true in the state of a checkpoint that was saved for its held-out loss alone
MODEL, OPTIMIZER, STATE, RECIPE = "model.params", "optimizer.params", "state.json", "recipe.yaml"
CODES = "model.codes"  # in the place of MODEL
HEADS = ("_head.weight", "_tag_head.weight", "_tag_head.bias")  # of tasks; a language model has none (model/heads.py)
PROMPT = "_prompt.weight"  # vectors in front of each text, where a run has trained some (model/prompt.py)
WEIGHTS_ALONE = "weights_alone"  # true in the state of a checkpoint that no run can go on from

Arrays = Mapping[str, NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. Its files have the manifest's names and sizes; :meth:`verify` compares the hashes too.

    Only this module knows the names of the files in the folder.
    """

    path: Path
    files: dict[str, FileFacts]

    def verify(self, optimizer: bool = True, model: bool = True) -> None:
        """Compares every file with its hash in the manifest. DamagedError names the first that differs.

        Without `optimizer` its arrays, the larger half of the checkpoint, are left out; without `model` the network's.
        """
        left_out = {name for name, is_wanted in ((OPTIMIZER, optimizer), (self.model_name, model)) if not is_wanted}
        for name, facts in self.files.items():
            if name in left_out:
                continue
            if not same_as_written(self.path / name, facts):
                raise damaged(self.path / name)

    def verified_fingerprint(self) -> str:
        """Verifies all but the optimizer's arrays; returns the hash of the network's file, which is read once for both.

        DamagedError names the first file that differs.
        """
        self.verify(optimizer=False, model=False)
        digest = digest_as_written(self.model_path, self.files[self.model_name])
        if not digest:
            raise damaged(self.model_path)
        return digest

    def state(self) -> dict[str, Any]:
        """The content of state.json: step, schedule, reader and fingerprints. DataError if it names no step."""
        path = self.path / STATE
        try:
            state = json.loads(read_file(path).decode())
        except OSError as error:
            check_is_damage(error, path)
            raise damaged(path) from None
        except (ValueError, RecursionError):
            raise damaged(path) from None
        if not isinstance(state, dict) or type(state.get("step")) is not int or state["step"] < 0:
            raise DataError(f'{path}: it has no "step", so it is not the state of a run')
        return state

    def recipe(self) -> Recipe:
        """The recipe that the run was started with."""
        return load_recipe(str(self.path / RECIPE))

    def model_arrays(self) -> Arrays:
        """{structural name: float32 array}, each read when asked for; the tied matrix is there under both its names."""
        is_coded = self.model_name == CODES
        file: ParamsFile | CodesFile = CodesFile(self.model_path) if is_coded else ParamsFile(self.model_path)
        return file if TIED_COPY in file or EMBEDDING not in file else _WithTiedCopy(file)

    def weights(self) -> Weights:
        """The network's arrays to be read once, straight to where they are used; they are verified on the way."""
        kind = CodedWeights if self.model_name == CODES else Weights
        return kind(self.model_path, self.files[self.model_name])

    def optimizer_arrays(self) -> dict[str, NDArray[Any]]:
        """Reads {"structural name:k": array}, where k counts the optimizer's arrays of that parameter."""
        return read_params(self.path / OPTIMIZER)

    @property
    def model_name(self) -> str:
        """The name of the file with the network's arrays."""
        return CODES if CODES in self.files else MODEL

    @property
    def model_path(self) -> Path:
        return self.path / self.model_name

    @property
    def model_files(self) -> list[Path]:
        return [self.model_path]

    @property
    def tokenizer_path(self) -> Path:
        return self.path / next(name for name in NAMES if name in self.files)


class _WithTiedCopy(LazyArrays[str]):
    """The arrays of a file, with the tied matrix under its second name too, after all others."""

    def __init__(self, file: ParamsFile | CodesFile) -> None:
        super().__init__({**{name: name for name in file}, TIED_COPY: EMBEDDING})
        self._file = file

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._file[self._places[name]]


def save_checkpoint(
    ckpt_dir: Path,
    state: Mapping[str, Any],
    model_arrays: Arrays,
    optimizer_arrays: Arrays,
    recipe: Recipe,
    tokenizer: StoredTokenizer,
    keep: int = 0,
    best: int | None = None,
    keep_every: int = 0,
) -> Path:
    """Writes and commits ``step-N`` for ``state['step']``, then removes all but the `keep` newest (0: keeps all).

    Those of a step that `keep_every` divides are kept besides (0: none is).

    `model_arrays` may have the tied matrix once, or under both of its names; CodedArrays are written as codes.
    `tokenizer` is the one of the data. `best` is the step that the file ``best`` names (None: the run keeps no best
    one); that checkpoint is not removed. One that was saved only because it was the best (ONLY_AS_BEST in its state)
    does not count in `keep`, and goes once it is neither the best nor the newest. Returns the new folder. Only one
    process of a run calls this.
    """
    ckpt_dir.mkdir(parents=True, exist_ok=True)
    remove_partials(ckpt_dir)
    final = ckpt_dir / name_of(state["step"])
    with replace_folder(final) as folder:
        files = ManifestWriter(folder)
        if isinstance(model_arrays, CodedArrays):
            with files.open(CODES) as file:
                write_codes(file, model_arrays, without=TIED_COPY)
        else:
            with files.open(MODEL) as file:
                write_params(file, model_arrays)
        with files.open(OPTIMIZER) as file:
            write_params(file, optimizer_arrays)
        files.write(STATE, json.dumps(dict(state), indent=1).encode())
        files.write(RECIPE, recipe.to_yaml().encode())
        files.write(tokenizer.file_name, tokenizer.content)
        files.close()
    write_file(ckpt_dir / LATEST, f"{final.name}\n".encode())
    name_best(ckpt_dir, best)
    _remove_old(ckpt_dir, final, keep, best, keep_every)
    return final


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens the checkpoint in `path`: its folder, a folder of checkpoints, or the run folder around that.

    The newest one is taken; a last part ``best`` takes the one of the lowest held-out loss (RUN/best, CKPT_DIR/best).
    DataError if there is none, DamagedError if its files are not those of its manifest.
    """
    if (path / MANIFEST).is_file() or (FOLDER.fullmatch(path.name) and path.is_dir()):
        return _read_manifest(path)
    if path.name in (LATEST, BEST) and not path.is_dir():
        return _open_named(path)
    for ckpt_dir in (path, path / "checkpoints"):
        newest = newest_in(ckpt_dir)
        if newest:
            try:
                return _read_manifest(newest)
            except DamagedError:
                if newest.exists():
                    raise
                return open_checkpoint(path)  # a live run has removed it; there is a newer one
    runs = runs_below(path)
    if runs:
        listed = ", ".join(runs[:5]) + (", ..." if len(runs) > 5 else "")
        raise DataError(f"{path}: no checkpoint there, but runs are: {listed}; name one, such as {path / runs[0]}")
    raise DataError(f"{path}: no checkpoint there (a folder step-NNNNNNNN, or one that holds such folders)")


def use_checkpoint(path: Path, use: Callable[[Checkpoint], T]) -> T:
    """Opens a checkpoint as :func:`open_checkpoint` does and returns what `use` makes of it.

    If a live run removes it meanwhile, `use` is called again with the newest one of that moment.
    """
    while True:
        checkpoint = open_checkpoint(path)
        try:
            return use(checkpoint)
        except (KoGPT2Error, OSError):
            if checkpoint.path.exists():
                raise


def _open_named(path: Path) -> Checkpoint:
    """Opens the checkpoint that the text file `path` names, in a folder of checkpoints or in the one of a run."""
    for ckpt_dir in (path.parent, path.parent / "checkpoints"):
        named = named_in(ckpt_dir, path.name)
        if named:
            return _read_manifest(named)
    why = " (a run keeps it with checkpoint.keep_best=true and held-out data)" if path.name == BEST else ""
    raise DataError(f"{path}: names no checkpoint{why}")


def move_best_aside(checkpoint: Checkpoint, ckpt_dir: Path) -> str:
    """Moves the best checkpoint, with the file that names it, to where no pruning is: ``before-step-N-TIME``.

    `checkpoint` is the newest one, of step N; it stays and is copied if it is the best itself. Returns a line that says
    so, "" if there is no best one. Only one process of a run calls this.
    """
    best = named_in(ckpt_dir, BEST)
    if best is None:
        return ""
    aside = folder_aside(ckpt_dir, step_of(checkpoint.path))
    if best.name == checkpoint.path.name:
        _copy(checkpoint, aside / best.name)
    else:
        move_all([best], aside)
    move(ckpt_dir / BEST, aside / BEST)
    return f"{best.name} is kept in {aside}; nothing was deleted"


def go_back_to(checkpoint: Checkpoint, ckpt_dir: Path) -> tuple[Checkpoint, str]:
    """Makes a checkpoint the newest one of a run: those of later steps move to ``before-step-N-TIME``, next to it.

    A checkpoint of another folder is copied, and all of this run's own move aside. So a run that dies before its first
    save resumes from there too. A crash on the way leaves the newest checkpoint of before, or the one gone back to.
    The file ``best`` moves with the checkpoint that it names. Nothing is deleted. Returns the run's own checkpoint, and
    a line that says what was moved ("" if nothing was). Only one process of a run calls this.
    """
    step = int(checkpoint.state()["step"])
    is_own = checkpoint.path.parent.resolve() == ckpt_dir.resolve()
    own = ckpt_dir / name_of(step)
    others = [folder for folder in committed(ckpt_dir) if not is_own or step_of(folder) > step]
    aside = folder_aside(ckpt_dir, step)
    if named_in(ckpt_dir, BEST) in others:  # first, since a checkpoint of the same name may take that one's place
        aside.mkdir(parents=True, exist_ok=True)
        move(ckpt_dir / BEST, aside / BEST)
    if not is_own:
        if own in others:  # the copy gets its name
            _copy(_read_manifest(own), aside / own.name)
        _copy(checkpoint, own)
    write_file(ckpt_dir / LATEST, f"{own.name}\n".encode())  # from here on, it is the newest
    move_all([folder for folder in others if folder != own or is_own], aside)
    names = ", ".join(sorted(folder.name for folder in others))
    moved = f"the run went back to step {step:,}: {names} moved to {aside}; nothing was deleted" if others else ""
    return _read_manifest(own), moved


def _copy(checkpoint: Checkpoint, folder: Path) -> None:
    """Copies a checkpoint to a folder that appears whole, in the place of one that has the name already."""
    with replace_folder(folder) as partial:
        for name in (*checkpoint.files, MANIFEST):
            shutil.copyfile(checkpoint.path / name, partial / name)


def newest_checkpoint(ckpt_dir: Path) -> Checkpoint | None:
    """Opens and verifies the newest checkpoint that is whole; None if there is none at all. See newest_whole."""
    return newest_whole(ckpt_dir)[0]


def newest_whole(ckpt_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """Opens and verifies the newest checkpoint that is whole; returns it with what is wrong with each newer one.

    (None, []) if there is no checkpoint at all. DamagedError if there are some and none is whole; DataError if one
    cannot be read now, or is of a later version of this program: those are not passed over.
    """
    newest = newest_in(ckpt_dir)
    if newest is None:
        return None, []
    faults: list[str] = []
    for folder in [newest, *(each for each in committed(ckpt_dir) if step_of(each) < step_of(newest))]:
        try:
            checkpoint = _read_manifest(folder)
            checkpoint.verify()
            return checkpoint, faults
        except DamagedError as error:
            faults.append(str(error))
    raise DamagedError(f"no checkpoint is whole: {'; '.join(faults)}")


def _read_manifest(folder: Path) -> Checkpoint:
    files = read_manifest(folder)
    kinds = [{model, OPTIMIZER, STATE, RECIPE, name} for model in (MODEL, CODES) for name in NAMES]
    if files.keys() not in kinds:
        path, listed = folder / MANIFEST, ", ".join(sorted(files)) or "none"
        raise DamagedError(f"{path}: does not list a checkpoint's files, but {listed}")
    for name, facts in files.items():
        try:
            size = (folder / name).stat().st_size if (folder / name).is_file() else -1
        except OSError as error:
            check_is_damage(error, folder / name)
            size = -1
        if size != facts.size:
            raise damaged(folder / name)
        if leads_out(folder / name):
            raise DamagedError(f"{folder / name}: a link out of the checkpoint's folder; put the file itself there")
    return Checkpoint(folder, files)


def _remove_old(ckpt_dir: Path, newest: Path, keep: int, best: int | None, keep_every: int) -> None:
    """Removes all checkpoints but those that are kept; those of later steps, which were left, move aside."""
    folders = committed(ckpt_dir)
    if newest not in folders:
        raise KoGPT2Error(f"{newest}: was saved just now and is gone; is the disk of {ckpt_dir} still there?")
    place = folders.index(newest)
    move_all(folders[:place], folder_aside(ckpt_dir, step_of(newest)))
    counted = [folder for folder in folders[place:] if not _is_only_best(folder)] if keep else folders
    best_one = [folder for folder in folders if step_of(folder) == best]
    multiples = [folder for folder in folders if keep_every and not step_of(folder) % keep_every]
    stay = [newest, *counted[: keep or None], *best_one, *multiples]
    for folder in folders[place:]:
        if folder not in stay:
            remove_folder(folder)


def _is_only_best(folder: Path) -> bool:
    try:
        return Checkpoint(folder, {}).state().get(ONLY_AS_BEST) is True
    except DataError:
        return False
