"""The extension of griffe, which reads the docstrings for the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from griffe import Extension, Object

sys.path.insert(0, str(Path(__file__).parent))  # griffe loads this file alone

from dialect import prose_first


class GluonDialect(Extension):
    """Moves prose that follows a docstring's sections in front of them, and makes headings of Inputs and Outputs."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = prose_first(obj.docstring.value)
