"""The answer of a row, as a file spells it: a class or a number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.text_lines import shown

_MOST_NAMED = 12  # classes that a message names


def class_of(where: str, spelling: str, classes: Mapping[str, str]) -> str:
    """Returns the class that a file's spelling means; DataError if it is none of them."""
    found = classes.get(spelling) or classes.get(spelling.strip())
    if found is None:
        named = ", ".join([*classes][:_MOST_NAMED]) + (", ..." if len(classes) > _MOST_NAMED else "")
        raise DataError(f"{where}: the label {shown(spelling)} is none of {named}")
    return found


def value_of(where: str, spelling: str) -> float:
    """Returns the number that a file's spelling means; DataError if it is not a finite number."""
    try:
        value = float(spelling)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in spelling:  # Python reads 1_0 as 10
        raise DataError(f"{where}: {shown(spelling)}, where a number is expected")
    return value
