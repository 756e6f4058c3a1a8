"""A network with trained vectors in front of each text: prompt tuning.

The vectors are in the place of tokens' embeddings at positions 0 to P - 1, and a text begins at position P (Lester et
al., "The Power of Scale for Parameter-Efficient Prompt Tuning", 2021). The network itself is not trained. P-tuning (Liu
et al., "GPT Understands, Too", 2021) is the same with an encoder that makes the vectors while they are trained;
model/prompt_encoder.py has those.

In the comments B is the batch size, P `prompt_length`, T the length of the text, and C `units`.
"""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.heads import HeadSizes, TaskModel
from kogpt2_gluon.ops.parameters import value
from kogpt2_gluon.ops.stock import StockOps
from kogpt2_gluon.recipe import Recipe


class PromptedModel(GPT2Model):
    """A language model with a prompt of `prompt_length` vectors; the other parameters are those of GPT2Model.

    Inputs and outputs are those of the text alone, and `max_length` is the longest text. `states` have the keys and
    values of prompt and text, so an input that follows them gets no second prompt.
    """

    def __init__(self, prompt_length: int, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prompt_length = prompt_length
        self.max_length -= prompt_length
        with self.name_scope():
            init = mx.init.Normal(0.02)
            self._prompt = mx.gluon.nn.Embedding(
                prompt_length, self._sizes[0], weight_initializer=init, prefix="prompt_"
            )

    def hidden_states(self, F, tokens, states=None, rows=None, choose=None):
        """Does what GPT2Model does; the places of the prompt are left out after the last layer's attention."""
        if states is not None:
            return super().hidden_states(F, tokens, states, rows, choose)

        def of_text(hidden):
            hidden = F.slice_axis(hidden, axis=1, begin=self.prompt_length, end=None)  # (B, T, C)
            return choose(hidden) if choose else hidden

        return super().hidden_states(F, tokens, None, rows, of_text)

    def embedded(self, F, tokens, past_length, seed, rows=None):
        """The input of the first layer: (B, P + T, C), or (B, T, C) after a past."""
        if past_length is not None:
            return super().embedded(F, tokens, past_length, seed, rows)
        text = self.ops.lookup(F, tokens, self._embed)  # (B, T, C)
        prompt = value(F, self._prompt.weight).expand_dims(0)  # (1, P, C)
        prompt = F.broadcast_like(prompt, text, lhs_axes=(0,), rhs_axes=(0,))
        return self.ops.vectors_embedding(F, F.concat(prompt, text, dim=1), self._pos_embed)

    def embedding_rows(self):
        """None: the embedding is not trained, and has no gradient to keep apart."""

    def with_ops(self, ops: Any) -> PromptedModel:
        """A language model over the same parameters, and over the operator set `ops`; see GPT2Model."""
        return PromptedModel(
            self.prompt_length, *self._sizes, ops=ops, prefix=self.prefix, params=self.collect_params()
        )


class PromptedTaskModel(PromptedModel, TaskModel):
    """A network with heads for a task and a prompt; the parameters after `prompt_length` are those of TaskModel."""


def build_network(recipe: Recipe, ops: Any = None, heads: HeadSizes | None = None) -> GPT2Model:
    """The network that a recipe describes, not initialized: with heads for a task, and with a prompt if it tunes one.

    `ops` is an operator set; None: stock MXNet.
    """
    model = recipe.model
    sizes: dict[str, Any] = {
        "units": model.units,
        "vocab_size": model.vocab_size,
        "max_length": model.max_length,
        "num_layers": model.num_layers,
        "num_heads": model.num_heads,
        "dropout": model.dropout,
        "ops": ops or StockOps(dropout=model.dropout, activation=model.activation),
    }
    if recipe.adaptation.method != "prompt":
        return TaskModel(heads, **sizes) if heads else GPT2Model(**sizes)
    length = recipe.adaptation.prompt_length
    return PromptedTaskModel(length, heads, **sizes) if heads else PromptedModel(length, **sizes)


def own_prompt(net: GPT2Model) -> Any:
    """The vectors (P, C) that a network puts in front of each text; None if it has none."""
    return net._prompt.weight.data() if net.prompt_length else None
