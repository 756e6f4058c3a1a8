"""The space of a search: keys of a recipe, and the values that each may have."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import from_plain, unknown_key
from kogpt2_gluon.recipe import Recipe, known_keys, parse_recipe, value_of
from kogpt2_gluon.user_files import read_yaml

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Setting = Union[bool, int, float, str]

RANGE = ("low", "high", "log", "step")
MOST_COMBINATIONS = 100_000  # that are listed; a larger space is drawn from
FINEST = 1e-7  # a step, as a share of the largest number: with less, rounding hides which step a number is
# Keys that the search itself sets, or that make figures which do not compare.
OWN = (
    ("name", "about", "training.num_steps", "task.epochs", "task.name", "task.data", "task.dev_share", "data.test"),
    ("evaluation.", "checkpoint.", "tracking."),
)


@dataclass(frozen=True)
class Dimension:
    """A key and its values: `choices`, or the numbers from `low` to `high`.

    Attributes
    ----------
    key : str
        Dotted, of a recipe.
    choices : tuple
        Numbers, truths or texts; a choice that is a list or a mapping is the text of its JSON.
    low, high : float
        Both included; whole numbers if the key takes whole numbers.
    log : bool
        Draws evenly over orders of magnitude.
    step : float or None
        Between neighbours, counted from `low`; None for all numbers (1 for whole ones).
    """

    key: str
    choices: tuple[Setting, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    @property
    def distribution(self) -> BaseDistribution:
        """The values, as Optuna has them."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at steps that do not end at `high`; the space has a note then
            if isinstance(self.low, int):
                return distributions.IntDistribution(self.low, int(self.high), self.log, int(self.step or 1))
            return distributions.FloatDistribution(self.low, self.high, self.log, self.step)

    @property
    def size(self) -> float:
        """The number of values; infinite if they cannot be counted."""
        if self.choices:
            return len(self.choices)
        step = self._step
        return math.inf if step is None else round((self._last - self.low) / step) + 1

    @property
    def values(self) -> list[Setting] | None:
        """All values, the same numbers that Optuna draws; None if they cannot be counted."""
        if self.choices:
            return list(self.choices)
        step, last = self._step, self._last
        if step is None:
            return None
        # Sums of decimals end beyond the last one: 3 * 0.1 is above 0.3. Optuna cuts them off there.
        return [min(self.low + number * step, last) for number in range(int(self.size))]

    @property
    def _step(self) -> float | None:
        return self.step or (1 if isinstance(self.low, int) else None)

    @property
    def _last(self) -> Any:
        """The largest value, which is `high` if the steps end there."""
        return getattr(self.distribution, "high", None)


class Space:
    """The dimensions of a search over one recipe.

    `notes` say which values the recipe does not admit as it is: they can be tried only together with others. They also
    say where a range ends before its `high`.
    """

    def __init__(self, dimensions: Sequence[Dimension], notes: Sequence[str] = ()) -> None:
        self.dimensions, self.notes = tuple(dimensions), tuple(notes)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The values of each key, as Optuna has them."""
        return {each.key: each.distribution for each in self.dimensions}

    @property
    def size(self) -> float:
        """The number of combinations; infinite if a dimension has all numbers of a range."""
        return math.prod(each.size for each in self.dimensions)

    def combinations(self) -> Iterator[dict[str, Setting]]:
        """Yields every combination of a finite space."""
        values = [each.values for each in self.dimensions]
        assert all(each is not None for each in values)
        keys = [each.key for each in self.dimensions]
        for combination in itertools.product(*(each for each in values if each is not None)):
            yield dict(zip(keys, combination))

    def to_dict(self) -> dict[str, Any]:
        """The space as plain data, which says the same of the same space."""
        return {
            each.key: list(each.choices) or {"low": each.low, "high": each.high, "log": each.log, "step": each.step}
            for each in self.dimensions
        }


def overrides(settings: Mapping[str, Setting]) -> list[str]:
    """Returns settings as ``section.key=value``."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def read_space(path: Path, recipe: Recipe) -> Space:
    """Reads a space: a YAML mapping from keys to a list of choices, or to {low, high} with log or step if wanted.

    Each value is tried in `recipe` by itself. RecipeError for a key or value that a recipe does not admit, for a key
    that decides how runs are compared, or if there is none.
    """
    plain = read_yaml(path, "space")
    if not plain:
        raise RecipeError(f"space {path}: is empty; a line of it is: training.learning_rate: {{low: 1e-5, high: 1e-2}}")
    dimensions = []
    for key, values in plain.items():
        where = f"space {path}: {key}"
        if key not in known_keys():
            raise RecipeError(f"space {path}: {unknown_key(str(key), list(known_keys())).text}")
        if key in OWN[0] or key.startswith(OWN[1]):
            raise RecipeError(f"{where}: decides how runs are compared, or is set by the search; it cannot vary")
        if isinstance(values, list) and values:
            dimensions.append(Dimension(key, choices=_choices(where, key, values)))
        elif isinstance(values, Mapping):
            dimensions.append(_range(where, key, values))
        else:
            raise RecipeError(f"{where}: a list of values is expected, or {{low: .., high: ..}}")
    return Space(dimensions, list(_notes(recipe, dimensions)))


def _notes(recipe: Recipe, dimensions: Sequence[Dimension]) -> Iterator[str]:
    for each in dimensions:
        if each.step and not each.choices and each._last < each.high:
            ends = f"steps of {each.step:g} do not end at {each.high:g}"
            yield f"note: {each.key}: its largest value is {each._last:g}; {ends}"
        for value in each.choices or (each.low, each.high):
            try:
                parse_recipe(recipe.to_dict(), overrides({each.key: value}))
            except RecipeError as error:
                reason = str(error).partition(": ")[2].replace(" (on the command line)", "")
                yield f"note: {each.key}={value} does not fit the rest of the recipe: {reason}"


def _choices(where: str, key: str, values: Sequence[Any]) -> tuple[Setting, ...]:
    choices = [_admitted(where, key, value) for value in values]
    if twice := next((each for number, each in enumerate(choices) if each in choices[:number]), None):
        raise RecipeError(f"{where}: names {twice} twice")
    return tuple(choices)


def _range(where: str, key: str, values: Mapping[str, Any]) -> Dimension:
    if unknown := [name for name in values if name not in RANGE]:
        raise RecipeError(f"{where}: {unknown[0]} is not one of {', '.join(RANGE)}")
    if "low" not in values or "high" not in values:
        raise RecipeError(f"{where}: a range needs both low and high")
    low, high = (_admitted(where, key, values[name]) for name in ("low", "high"))
    if isinstance(low, (bool, str)) or isinstance(high, (bool, str)):
        raise RecipeError(f"{where}: is not a number; give a list of values")
    log, step = values.get("log", False), _step(where, values.get("step"))
    if not isinstance(log, bool):
        raise RecipeError(f"{where}: log is true or false")
    if isinstance(low, int) and step is not None and step != int(step):
        raise RecipeError(f"{where}: takes whole numbers, so its step is one too")
    if not low < high:
        raise RecipeError(f"{where}: low={low} is not below high={high}")
    largest = max(abs(low), abs(high))
    if isinstance(low, float) and step is not None and step < largest * FINEST:
        raise RecipeError(f"{where}: step={step} is too fine for numbers up to {largest}; leave it out")
    if log and (step is not None or low <= 0):
        raise RecipeError(f"{where}: log needs low > 0 and no step")
    return Dimension(key, low=low, high=high, log=log, step=None if step is None else type(low)(step))


def _step(where: str, value: Any) -> float | None:
    if isinstance(value, str):  # 1e-3, which is none in YAML 1.1
        with contextlib.suppress(ValueError):
            value = float(value)
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 < value <= sys.float_info.max):
        raise RecipeError(f"{where}: step must be a number above 0")
    return value


def _admitted(where: str, key: str, value: Any) -> Setting:
    """Returns a value as a recipe has it; RecipeError if a recipe does not admit it whatever the other keys are."""
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, (list, dict)) else repr(value)
    if isinstance(value, bool):
        text = json.dumps(value)
    changed, faults = from_plain(Recipe, {}, [f"{key}={text}"])
    if faults:
        raise RecipeError(f"{where}: {faults[0].text}")
    found = value_of(changed, key)
    return json.dumps(found, ensure_ascii=False) if isinstance(found, (list, dict)) else found
