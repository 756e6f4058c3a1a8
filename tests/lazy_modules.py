"""Libraries that a few tests compare with, imported when such a test first uses them.

Every process of the suite collects every file. Importing PyTorch and transformers there took 6 s and 230 MB of each.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest


class LazyModule:
    """Stands for a module; it is imported when one of its public names is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name != "__version__":  # pytest asks every object of a file what it is
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)


def needed(name: str, reason: str) -> Any:
    """Returns the library as a LazyModule. Skips the file that calls this if the library is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: {reason}", allow_module_level=True)
    return LazyModule(name)
