"""The quantity that a run minimises: the loss of a language model (training/language_model.py), of a student with a
teacher (training/distillation.py) or of a task (training/task_objective.py).

The training loop and all around it ask an Objective for data, network, loss and scores. They do not know which one it
is. An Objective is made without MXNet, so that a dry run makes it too; its methods that need MXNet load it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from kogpt2_gluon.estimate import flops_per_token
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.reader import Reader
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.data_sets import facts_of_data
from kogpt2_gluon.training.initial_weights import NewWeights, find_initial_weights

if TYPE_CHECKING:
    from kogpt2_gluon.training.state import TrainingRun, TrainState


class Scores(Protocol):
    """The scores of one evaluation."""

    @property
    def loss(self) -> float:
        """The held-out loss, in the objective's unit."""

    @property
    def shown(self) -> dict[str, float]:
        """The figures for the log, by name."""

    @property
    def chooses(self) -> tuple[str, float]:
        """The figure that chooses the best checkpoint: ("loss", the lowest is best), or a metric (the highest is)."""

    def to_dict(self) -> dict[str, float]:
        """All figures, by name, as a checkpoint's state holds them."""


class HeldOut(Protocol):
    """Data to score the network on."""

    @property
    def fingerprint(self) -> str:
        """Identifies the data."""

    def close(self) -> None:
        """Closes its files."""


class Objective(ABC):
    """The quantity that a run minimises, its data and its scores.

    Attributes
    ----------
    unit : str
        Of the loss.
    tokenizer : Tokenizer or None
        None only where no training data is named.
    held_out : HeldOut or None
        None: the run evaluates nothing.
    notes : list of str
        Lines for the log on what was found in the data.
    """

    unit: str
    tokenizer: Tokenizer | None
    held_out: HeldOut | None

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.notes: list[str] = []

    # ---- the data --------------------------------------------------------------------------------------------------

    def facts_of_data(self) -> list[dict[str, Any]]:
        """Returns the facts of each set that is trained or scored on, as plain data, for the page of the run."""
        return facts_of_data(self.recipe)

    @abstractmethod
    def open_reader(
        self, worker: Worker, saved: dict[str, Any] | None, source: str, changed: Mapping[str, Any]
    ) -> Reader:
        """Opens the reader of the training data on one worker; see reading/training_data.py for the arguments."""

    @abstractmethod
    def check_reader(
        self, worker: Worker, saved: dict[str, Any] | None, source: str, changed: Mapping[str, Any]
    ) -> list[str]:
        """Raises what :meth:`open_reader` would raise, and opens nothing; returns lines on what was found."""

    @abstractmethod
    def batches(self, reader: Reader, ctx: Any) -> Iterator[tuple[Any, Any]]:
        """Yields each update's micro batches twice: for :meth:`sums`, and on the device for the loss block."""

    @property
    @abstractmethod
    def tokens_per_step(self) -> int:
        """Tokens of one update, over all workers; of sequences that differ in length, on average."""

    @property
    def flops_per_token(self) -> float:
        """Operations of one training token, forward and backward."""
        return flops_per_token(self.recipe.model, self.recipe.data.seq_length)

    def tokens(self, state: TrainState) -> int:
        """Tokens trained on so far, over all workers."""
        return state.step * self.tokens_per_step

    # ---- the network -----------------------------------------------------------------------------------------------

    @abstractmethod
    def build_model(self, ops: Any) -> Any:
        """Makes the network, not yet initialized, over an operator set."""

    @abstractmethod
    def loss_block(self, net: Any) -> Any:
        """Makes the block, hybridized, that takes a micro batch on the device to the loss of each of its parts."""

    @abstractmethod
    def sums(self, losses: NDArray[Any], batch: Any) -> NDArray[Any]:
        """The summed loss of a micro batch, and the number of parts that count: (2,) float64."""

    # ---- its scores ------------------------------------------------------------------------------------------------

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Says how a network is scored that may be the best one: scores compare if this is the same."""

    @abstractmethod
    def sequences(self, most: int) -> int:
        """How many held-out sequences are scored if at most `most` (0: all) are."""

    @abstractmethod
    def score(self, run: TrainingRun, most: int) -> Scores:
        """Scores `most` of the held-out sequences (0: all). Every worker calls this and gets the same."""

    def samples(self, run: TrainingRun) -> list[tuple[str, str]]:
        """(prompt, prompt with its continuation) for each of the recipe's prompts."""
        return []

    # ---- its checkpoints -------------------------------------------------------------------------------------------

    def initial_weights(self) -> NewWeights | None:
        """Finds the weights that a new run begins with; None: random ones."""
        return find_initial_weights(self.recipe, self.tokenizer) if self.recipe.training.init_from else None

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint holds in addition, as plain data."""
        return {}

    def check_saved(self, saved: Mapping[str, Any], source: str) -> None:
        """Raises DataError if the state of a checkpoint, `source`, is not one to go on from with this objective."""
        return


def open_objective(recipe: Recipe, needs_data: bool, opened: ExitStack) -> Objective:
    """Makes the objective of a recipe; RecipeError or DataError if its data does not fit.

    `opened` closes what is opened here. Without `needs_data` no training data need be named.
    """
    objective: Objective
    if recipe.task.name:
        from kogpt2_gluon.training.task_objective import TaskObjective

        objective = TaskObjective(recipe)
    elif recipe.distillation.teacher:
        from kogpt2_gluon.training.distillation import Distillation

        objective = Distillation(recipe, needs_data)
    else:
        from kogpt2_gluon.training.language_model import LanguageModel

        objective = LanguageModel(recipe, needs_data)
    if objective.held_out:
        opened.callback(objective.held_out.close)
    return objective
