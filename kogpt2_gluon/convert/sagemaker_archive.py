"""A checkpoint as the archive that Amazon SageMaker unpacks into /opt/ml/model: model data, and code to serve it.

It has the checkpoint where a run has it, so an image of one's own serves /opt/ml/model by `kogpt2 serve`. (Nearer to
the top it must not be: the server of AWS's container looks there, one folder deep, for a ``manifest.json`` of its own
kind, and fails with ours.) In ``code/`` is what AWS's container with MXNet looks for: ``inference.py`` with `model_fn`
and `transform_fn`, ``requirements.txt``, which that container installs, and the part of this package that serves, which
no registry has to have. That container has Python 3.8, so it is rewritten for that (:mod:`.older_python`).

The same source gives the same bytes: names are sorted, times and owners are fixed. The contract of that container is
that of aws/sagemaker-mxnet-inference-toolkit 1.5.5 and aws/sagemaker-inference-toolkit 1.10.1.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kogpt2_gluon.convert.heads import BODY_OF
from kogpt2_gluon.convert.model_card import card_title
from kogpt2_gluon.convert.names import bytes_of, checked
from kogpt2_gluon.convert.run_folder import CHECKPOINTS
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.vendored_code import code_files
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import DataRecipe
from kogpt2_gluon.runs.checkpoint import TIED_COPY, WEIGHTS_ALONE, save_checkpoint
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.files import replace_file
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.storage.tokenizer_file import (
    TOKENIZER_JSON,
    StoredTokenizer,
    read_tokenizer_json,
    stored_tokenizer,
)
from kogpt2_gluon.wording import gigabytes

ENDING = ".tar.gz"
CODE = "code"
TIME = 315532800  # 1980-01-01, the earliest that a wheel or a zip file can have
LEVEL = 1  # of gzip: weights do not get smaller by more
HANDLERS = "kogpt2_gluon.serving.mxnet_container"
ENTRY = f'''"""AWS's container with MXNet calls model_fn(model_dir), then transform_fn for each request."""

from {HANDLERS} import model_fn, transform_fn

__all__ = ["model_fn", "transform_fn"]
'''
REQUIREMENTS = {  # of the code, for Python 3.8 and later; MXNet is the container's
    "numpy": ">=1.21,<1.24",
    "PyYAML": ">=6.0",
    "xxhash": ">=3.0",
    "fastapi": ">=0.115",
    "prometheus-client": ">=0.20",
    "eval-type-backport": ">=0.2",  # `int | None` of the service's forms
}
TOKENIZERS = {  # by: is it a tokenizer.json?
    True: {"tokenizers": ">=0.19"},
    False: {"sentencepiece": ">=0.2.0", "protobuf": ">=3.20"},
}


def refuse_unfit(out: Path) -> None:
    """RecipeError if `out` is there already, or has a name that SageMaker does not take."""
    if not out.name.endswith(ENDING):
        raise RecipeError(f"{out}: SageMaker takes an archive {ENDING}; name it so, such as {out.name}{ENDING}")
    if out.exists() or out.is_symlink():
        raise RecipeError(f"{out}: is there already; name a new one, or remove it")


def write_sagemaker(source: Source, out: Path) -> None:
    """Verifies a source and writes it as archive `out`, which appears complete or not at all.

    RecipeError if `out` is there or has an unfit name, DiskFullError if there is no room for it and for a copy of the
    weights next to it, DataError naming what of the source cannot be converted.
    """
    refuse_unfit(out)
    source.verify(optimizer=False)
    recipe, tokenizer = source.recipe(), stored_tokenizer(source.tokenizer_path)
    _refuse_morphemes(source.tokenizer_path, tokenizer)
    arrays = checked(source.model_arrays(), recipe.model, str(source.model_path))
    needed = 2 * bytes_of(recipe.model)

    def about() -> str:
        return f"the archive and a copy of the weights need {gigabytes(needed)}; make room, or name another place"

    try:
        with full_disk_named(out, about), _work_folder(out) as work, replace_file(out) as stream:
            checkpoint = _save(work, source, recipe, _WithoutTiedCopy(arrays), tokenizer)
            _write_archive(stream, _files(checkpoint, _card(recipe, source.state()), tokenizer))
    except OSError as error:
        raise RecipeError(f"{out}: cannot be written: {error.strerror or error}") from None


def _refuse_morphemes(path: Path, tokenizer: StoredTokenizer) -> None:
    """Raises RecipeError if texts must be cut at morphemes: the container's Python cannot run what does it."""
    if tokenizer.file_name == TOKENIZER_JSON and read_tokenizer_json(tokenizer.content, path).morphemes:
        raise RecipeError(
            f"{path}: its text is cut by kiwipiepy, which needs Python 3.9, and AWS's container with MXNet has 3.8; "
            "serve the checkpoint from an image of your own with kogpt2 serve"
        )


class _WithoutTiedCopy(LazyArrays[None]):
    """The arrays of a network with the tied matrix once; whoever reads a checkpoint finds it under both names."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__(dict.fromkeys(name for name in arrays if name != TIED_COPY))
        self._arrays = arrays

    def __getitem__(self, name: str) -> Any:
        if name not in self._places:
            raise KeyError(name)
        return self._arrays[name]


@contextmanager
def unpacked_model(archive: Path) -> Iterator[Path]:
    """Yields a temporary folder with the checkpoint of an archive that was written here, next to it."""
    with _work_folder(archive) as folder, tarfile.open(archive, "r|gz") as entries:
        for entry in entries:
            name = folder / entry.name
            content = entries.extractfile(entry)
            if content and not entry.name.startswith(CODE):
                name.parent.mkdir(parents=True, exist_ok=True)
                with name.open("wb") as file:
                    shutil.copyfileobj(content, file)
        yield folder


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A temporary folder next to `out`, where the room for it is; it has the name of what is not finished."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _save(work: Path, source: Source, recipe: Recipe, arrays: Mapping[str, Any], tokenizer: StoredTokenizer) -> Path:
    """Saves what serving needs as a checkpoint; paths of the training, which name its machine, are not in it."""
    whole = source.state()
    state = {key: whole[key] for key in ("step", "evaluation", BODY_OF) if whole.get(key) is not None}
    data = DataRecipe(seq_length=recipe.data.seq_length)
    served = Recipe(name=recipe.name, model=recipe.model, data=data)
    return save_checkpoint(work, {**state, WEIGHTS_ALONE: True}, arrays, {}, served, tokenizer)


def _files(checkpoint: Path, card: str, tokenizer: StoredTokenizer) -> dict[str, Path | bytes]:
    """{name in the archive: a file or its content}."""
    requirements = {**REQUIREMENTS, **TOKENIZERS[tokenizer.file_name == TOKENIZER_JSON]}
    folder = f"{CHECKPOINTS}/{checkpoint.name}"
    files: dict[str, Path | bytes] = {f"{folder}/{path.name}": path for path in checkpoint.iterdir()}
    files["README.md"] = card.encode()
    files[f"{CODE}/inference.py"] = ENTRY.encode()
    files[f"{CODE}/requirements.txt"] = "".join(f"{name}{bounds}\n" for name, bounds in requirements.items()).encode()
    return {**files, **{f"{CODE}/{name}": content for name, content in code_files(HANDLERS)}}


def _write_archive(stream: IO[bytes], files: Mapping[str, Path | bytes]) -> None:
    """Writes a tar.gz of ordinary files alone, whose bytes depend on names and contents only."""
    packed = gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=stream, mtime=TIME)
    with packed, tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime = 0o644, TIME
            content = files[name]
            with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
                entry.size = file.seek(0, io.SEEK_END)
                file.seek(0)
                archive.addfile(entry, file)


def _card(recipe: Recipe, state: dict[str, Any]) -> str:
    return f"""{card_title(recipe, state)}
This is what Amazon SageMaker unpacks into /opt/ml/model: a checkpoint, and code that serves it.

- AWS's container mxnet-inference 1.9.0 (Python 3.8) serves it by `{CODE}/inference.py`. It installs
  `{CODE}/requirements.txt` from a package index as it starts, so the endpoint needs a way to one.
- An image with `kogpt2` serves it as any checkpoint: `kogpt2 serve /opt/ml/model`.

A request is JSON, `{{"prompt": "오늘 날씨는", "max_new_tokens": 30, "top_k": 40, "seed": 1}}`, with the fields of
/generate of `kogpt2 serve`; so is the answer. docs/serving.md walks through both ways.
"""
