"""Arrays by name, each read or made when it is asked for, so that a network is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

Array = NDArray[Any]
Place = TypeVar("Place")


class LazyArrays(Mapping[str, Array], Generic[Place]):
    """A mapping whose `__getitem__` makes an array from its place. Names can be asked for, and nothing is read."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places  # Mapping's own would read the array
