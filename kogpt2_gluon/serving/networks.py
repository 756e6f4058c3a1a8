"""The networks of a service: loaded once, whole, so that what later happens to their files does not matter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.estimate import count_parameters
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.scoring import Likelihood, Request, Scorer
from kogpt2_gluon.inference.shared_prefixes import Ids
from kogpt2_gluon.inference.text_engine import TextEngine
from kogpt2_gluon.inference.token_scoring import TokenScorer
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.decoding import weights_note
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, use_checkpoint
from kogpt2_gluon.runs.tuned_prompt import prompts_for
from kogpt2_gluon.serving.forms import ModelAbout, ModelName, TunedAbout
from kogpt2_gluon.serving.refusals import bad_request
from kogpt2_gluon.tokens.tokenizer import Tokenizer

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Loading:
    """How networks are loaded; see the options of `kogpt2 serve`. `weights`: "" is the precision."""

    device: str = "auto"
    precision: str = "float32"
    ops: str = "auto"
    weights: str = ""

    @property
    def options(self) -> dict[str, str]:
        """The options of the command line, and their values, that say the same; defaults are left out."""
        return {f"--{each.name}": value for each in fields(self) if (value := getattr(self, each.name)) != each.default}


class Network:
    """A network with its tokenizer, and all that is done with them.

    Its parameters and the tokenizer are in memory from the beginning: no file of the checkpoint is opened again.

    Parameters
    ----------
    key : str
        "a", or "b" for the second one.
    path : Path
        The checkpoint's folder, or the run's.
    loading : Loading
    num_slots : int
    tuned : mapping of str to Path, optional
        Tuned prompts that requests may name, by those names. RecipeError for a name that cannot be one, and what
        :func:`~kogpt2_gluon.runs.tuned_prompt.prompts_for` refuses.

    Attributes
    ----------
    tuned : dict
        Their vectors, (prompt_length, units) each.
    """

    def __init__(
        self,
        key: ModelName,
        path: Path,
        loading: Loading,
        num_slots: int,
        tuned: Mapping[str, Path] | None = None,
    ) -> None:
        for name in tuned or {}:
            if not _NAME.fullmatch(name) or name in ("a", "b"):
                raise RecipeError(
                    f"--prompt {name[:80]}=...: a name has up to 64 letters, digits, dots, lines; a and b are networks"
                )

        def load(checkpoint: Checkpoint) -> tuple[str, dict[str, Any], tuple[Any, Tokenizer, Recipe, Any]]:
            how = (loading.device, loading.precision, loading.ops, None, loading.weights)
            found = load_checkpoint(checkpoint.path, *how)
            vectors = prompts_for(checkpoint, list(tuned.values())) if tuned else []
            prompts = {name: mx.nd.array(each) for name, each in zip(tuned or {}, vectors)}
            return checkpoint.path.name, prompts, found

        step, self.tuned, (self._net, self.tokenizer, self.recipe, self._ctx) = use_checkpoint(path, load)
        self.key, self.path, self.num_slots = key, path, num_slots
        self._options, self._folders = loading.options, dict(tuned or {})
        self.name = f"{self.recipe.name}/{step}"
        self.weights = loading.weights or loading.precision
        self._reads_as_it_is = self.weights == loading.precision
        self.weights_note = weights_note(self._net, self.weights)
        self.max_length: int = self._net.max_length
        self.encoder = PromptEncoder(self.tokenizer)
        self._scorer = Scorer(self._net, self._ctx)
        self._spellings: list[str] = [_spelling(self.tokenizer, token) for token in range(self.tokenizer.vocab_size)]

    def make_engine(self) -> TextEngine:
        """Returns an engine for this network."""
        return TextEngine(self._net, self.tokenizer, self._ctx, self.num_slots, weights=self.weights, tuned=self.tuned)

    @cached_property
    def token_scorer(self) -> TokenScorer:
        """Scores each token of a prompt; for the worker's thread."""
        return TokenScorer(self._net, self.tokenizer, self._ctx, self.weights, self.tuned)

    def likelihoods(self, context: Ids, answers: Sequence[Ids], tuned: str = "") -> list[Likelihood]:
        """Returns how likely each of some answers is after a context, by the weights that texts are written by."""
        if self._reads_as_it_is and not tuned:
            return self._scorer.log_likelihoods([Request(context, answer) for answer in answers])
        return self.token_scorer.likelihoods(context, answers, tuned)

    def spelling(self, token: int) -> str:
        r"""Returns a token as text: with its space, specials by their names, parts of characters as ``bytes:\xed``."""
        return self._spellings[token]

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a prompt, ``<s>`` first. Refused if it is not Unicode."""
        try:
            return [self.tokenizer.bos_id, *self.tokenizer.encode(text)]
        except DataError as error:
            raise bad_request(f"prompt: {error}", "prompt") from None

    def check_ids(self, ids: Sequence[int], field: str) -> None:
        """Refused if an id is not one of the tokenizer's."""
        for token in ids:
            if not 0 <= token < self.tokenizer.vocab_size:
                raise bad_request(f"{field}: id {token} is not one of 0 to {self.tokenizer.vocab_size - 1:,}", field)

    def room(self, tuned: str = "") -> int:
        """Returns the most tokens of a text after a tuned prompt. Refused if there is none of this name."""
        if tuned and tuned not in self.tuned:
            names = ", ".join(self.tuned) or "none"
            raise bad_request(f"prompt_tuning: there is no {tuned[:80]!r}; there are: {names}", "prompt_tuning")
        return self.max_length - (len(self.tuned[tuned]) if tuned else 0)

    def check_room(self, ids: Sequence[int], new: int = 1, tuned: str = "") -> None:
        """Refused if `new` tokens do not fit after ids, which follow a tuned prompt."""
        most = self.room(tuned)
        if len(ids) + new > most:
            raise bad_request(
                f"the prompt has {len(ids):,} tokens with <s>; the network's {most:,} positions leave room "
                f"for {most - new:,}",
                "prompt",
            )

    def about(self) -> ModelAbout:
        """Returns what /about says of it."""
        model = self.recipe.model
        return ModelAbout(
            model=self.key,
            name=self.name,
            parameters=count_parameters(model),
            units=model.units,
            num_layers=model.num_layers,
            num_heads=model.num_heads,
            vocab_size=self.tokenizer.vocab_size,
            end_id=self.tokenizer.eos_id,
            max_length=self.max_length,
            weights=self.weights,
            checkpoint=str(self.path),
            options=self._options,
            tuned=[
                TunedAbout(name=name, positions=len(vectors), folder=str(self._folders[name]))
                for name, vectors in self.tuned.items()
            ],
        )


def _spelling(tokenizer: Tokenizer, token: int) -> str:
    if tokenizer.is_special(token):
        return tokenizer.pieces[token]
    spelled = tokenizer.spellings[token]
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)
