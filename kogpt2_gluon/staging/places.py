"""The places that a user names: a folder, a recipe for the data that it names, or an S3 prefix."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.storage.s3_url import is_s3_url


def folders_of(places: Iterable[str]) -> list[Path]:
    """Returns folders as they are, and for each recipe the folders of its data.

    RecipeError for a name that is neither, DataError for a folder that a recipe names and that does not exist.
    """
    found: list[Path] = []
    for place in places:
        found += [Path(place)] if Path(place).is_dir() else _data_of(place)
    return found


def _data_of(name: str) -> list[Path]:
    """Returns the folders that a recipe names as its data."""
    try:
        data = load_recipe(name).data
    except RecipeError as error:
        if Path(name).suffix in (".yaml", ".yml"):
            raise
        raise RecipeError(f"{name}: neither a folder nor a recipe ({error})") from None
    folders = [folder for folder in (*data.train_sets, data.test) if folder]
    if not folders:
        raise RecipeError(f"{name}: its data.train names no folder; name the folder itself")
    for folder in folders:
        if not Path(folder).exists():
            raise DataError(f"{folder}: no such folder; {name} names it as its data")
    return [Path(folder) for folder in folders]


def checked_url(url: str) -> str:
    """Returns `url`. RecipeError if it is not an address of S3."""
    if not is_s3_url(url):
        raise RecipeError(f"{url}: not an address of S3; write s3://bucket/prefix")
    return url
