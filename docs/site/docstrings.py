"""The extension of griffe, which reads the docstrings for the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from griffe import Extension, Object

sys.path.insert(0, str(Path(__file__).parent))  # griffe loads this file alone

from dialect import prose_first, without_roles


class GluonDialect(Extension):
    """Moves prose that follows a docstring's sections in front of them; Inputs and Outputs get headings."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = without_roles(prose_first(obj.docstring.value))
