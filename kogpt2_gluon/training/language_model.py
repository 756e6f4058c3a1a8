"""The objective of pretraining: the cross-entropy of each next token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.held_out import HeldOutReader
from kogpt2_gluon.reading.open_sets import open_held_out
from kogpt2_gluon.reading.reader import Batch, Reader, SequenceReader
from kogpt2_gluon.reading.training_data import check_training_reader, open_training_reader, training_tokenizer
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.training.objective import Objective

if TYPE_CHECKING:
    from kogpt2_gluon.inference.evaluation import LanguageModelScore
    from kogpt2_gluon.training.state import TrainingRun, TrainState


class LanguageModel(Objective):
    """Language modelling on shards or text, scored on a folder of held-out shards."""

    unit = "nats per token"

    def __init__(self, recipe: Recipe, needs_data: bool = True) -> None:
        super().__init__(recipe)
        if recipe.evaluation.stop_improvement and not recipe.data.test:
            raise RecipeError("evaluation.stop_improvement needs held-out data; set data.test=DIR")
        self.tokenizer = training_tokenizer(recipe) if needs_data or recipe.data.train_sets else None
        self.held_out = self._shards = open_held_out(recipe, self.tokenizer)

    def open_reader(
        self, worker: Worker, saved: dict[str, Any] | None, source: str, changed: Mapping[str, Any]
    ) -> Reader:
        return open_training_reader(self.recipe, worker, saved, source, changed)

    def check_reader(
        self, worker: Worker, saved: dict[str, Any] | None, source: str, changed: Mapping[str, Any]
    ) -> list[str]:
        return check_training_reader(self.recipe, worker, saved, source, changed)

    def batches(self, reader: Reader, ctx: Any) -> Iterator[tuple[Batch, Any]]:
        from kogpt2_gluon.training.batches import device_batches

        assert isinstance(reader, SequenceReader)
        return device_batches(reader, ctx)

    @property
    def tokens_per_step(self) -> int:
        return self.recipe.tokens_per_step

    def tokens(self, state: TrainState) -> int:
        return state.tokens(self.recipe)

    def build_model(self, ops: Any) -> Any:
        from kogpt2_gluon.model.prompt import build_network

        return build_network(self.recipe, ops)

    def loss_block(self, net: Any) -> Any:
        from kogpt2_gluon.model.recompute import LOSS_BLOCKS

        block = LOSS_BLOCKS[self.recipe.training.recompute](net, rows_apart=True)
        block.hybridize(static_alloc=True, static_shape=True)
        return block

    def sums(self, losses: NDArray[Any], batch: NDArray[Any]) -> NDArray[Any]:
        from kogpt2_gluon.inference.evaluation import scored_sums

        assert self.tokenizer
        return scored_sums(losses, batch, self.tokenizer.unscored_id)

    def measure(self) -> dict[str, Any]:
        assert self._shards
        sequences = self.sequences(self.recipe.evaluation.max_sequences)
        fingerprint, seq_length = self._shards.fingerprint, self.recipe.data.seq_length
        return {"held_out": fingerprint, "seq_length": seq_length, "sequences": sequences}

    def sequences(self, most: int) -> int:
        assert self._shards
        return HeldOutReader(self._shards, self.recipe.data.seq_length, most).num_sequences

    def score(self, run: TrainingRun, most: int) -> LanguageModelScore:
        from kogpt2_gluon.inference.evaluation import EvaluationOptions, evaluate

        assert self._shards
        options = EvaluationOptions(self.recipe.data.seq_length, self.recipe.evaluation.batch_size, most)
        return evaluate(run.loss_block, self._shards, options, run.ctx, run.worker, run.progress.beat)

    def samples(self, run: TrainingRun) -> list[tuple[str, str]]:
        from kogpt2_gluon.inference.generation import generate
        from kogpt2_gluon.inference.sampling import Sampling

        tracking, seed = self.recipe.tracking, self.recipe.training.seed
        sampling = Sampling(tracking.sample_length, top_k=40, seed=seed)
        return [
            (prompt, generate(run.decoder, run.tokenizer, prompt, sampling, ctx=run.ctx)[0])
            for prompt in tracking.sample_prompts
        ]
