"""The objective of distillation: a teacher's predictions and the text; see model/distillation.py for the mathematics.

The teacher is another network in the same process. Held-out scores are those of a language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kogpt2_gluon.convert.source import Source, open_source, verified_fingerprint_of
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.estimate import FLOAT_BYTES, count_parameters, flops_per_token
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.initial_weights import NewWeights
from kogpt2_gluon.training.language_model import LanguageModel
from kogpt2_gluon.training.network_rules import Network, check_can_teach
from kogpt2_gluon.training.teacher_layers import TeacherLayers
from kogpt2_gluon.wording import gib

TEACHER = "teacher"  # its place in the state of a checkpoint


class Distillation(LanguageModel):
    """Language modelling with a teacher.

    RecipeError or DataError if the teacher cannot be read, or does not fit: it needs the tokenizer of the data, the
    rows of the student's embedding, and positions for data.seq_length.
    """

    def __init__(self, recipe: Recipe, needs_data: bool = True) -> None:
        super().__init__(recipe, needs_data)
        path = Path(recipe.distillation.teacher)
        try:
            self._teacher, notes = open_source(path)
            self._fingerprint = verified_fingerprint_of(self._teacher)
        except (DataError, RecipeError) as error:
            raise type(error)(f"distillation.teacher={path}: {error}") from None
        self._model = self._teacher.recipe().model
        check_teacher(self._teacher, recipe, self.tokenizer)
        self.notes += [*notes, self._described()]

    def _described(self) -> str:
        """A line for the log and the dry run: the teacher, and the memory that it takes."""
        training, parameters = self.recipe.training, count_parameters(self._model)
        logits = FLOAT_BYTES * training.batch_size * self.recipe.data.seq_length * self._model.vocab_size
        share = self.flops_per_token / super().flops_per_token - 1
        return (
            f"teacher            {self._teacher.path}: {parameters:,} parameters; {gib(FLOAT_BYTES * parameters)}, and "
            f"{gib(logits)} for its logits of a micro step, in addition; {share:.0%} more operations a step"
        )

    @property
    def flops_per_token(self) -> float:
        forward = flops_per_token(self._model, self.recipe.data.seq_length) / 3
        return super().flops_per_token + forward

    def loss_block(self, net: Any) -> Any:
        from kogpt2_gluon.model.distillation import DistillationLoss, Teacher, Terms

        rules, source = self.recipe.distillation, self._teacher
        ctx = next(iter(net.collect_params().values())).list_ctx()[0]
        teacher = Teacher(self._model, source.model_arrays(), net.ops, ctx, str(source.path))
        terms = Terms(rules.temperature, rules.weight, rules.hidden_weight)
        block = DistillationLoss(net, teacher, terms, self.recipe.training.seed)
        block.hybridize(static_alloc=True, static_shape=True)
        return block

    def sums(self, losses: NDArray[Any], batch: NDArray[Any]) -> NDArray[Any]:
        return super().sums(losses[0], batch)  # the cross-entropy, which compares with held-out loss

    def initial_weights(self) -> NewWeights | None:
        if self.recipe.distillation.init_layers:
            return TeacherLayers.of(self._teacher, self.recipe)
        return super().initial_weights()

    def state(self) -> dict[str, Any]:
        return {TEACHER: {"fingerprint": self._fingerprint, "path": str(self._teacher.path)}}

    def check_saved(self, saved: Mapping[str, Any], source: str) -> None:
        before = saved.get(TEACHER)
        known = before if isinstance(before, dict) else {}
        if known.get("fingerprint") != self._fingerprint:
            raise DataError(
                f"distillation.teacher={self.recipe.distillation.teacher}: {self._teacher.path} has other weights than "
                f"the teacher of {source}, which was {known.get('path')}; name that one, or begin another run with "
                "--init-from"
            )


def check_teacher(teacher: Source, recipe: Recipe, tokenizer: Tokenizer | None) -> None:
    """Raises RecipeError if a network cannot teach a recipe's; `tokenizer` is the data's, None where there is none."""
    check_can_teach(Network.of_source(teacher), recipe)
    if tokenizer and Tokenizer.load(teacher.tokenizer_path).sha256 != tokenizer.sha256:
        raise RecipeError(
            f"distillation.teacher={recipe.distillation.teacher}: {tokenizer.path}, the tokenizer of the data, is not "
            f"the teacher's; shard the text with {teacher.tokenizer_path}"
        )
