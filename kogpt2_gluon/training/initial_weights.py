"""The weights that a new run begins with: those of another network, if they fit or can be extended; without MXNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.convert.names import POSITIONS
from kogpt2_gluon.convert.source import Source, open_source
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import EMBEDDING, HEADS, PROMPT, TIED_COPY
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.tokens.tokenizer import SPACE, UNUSED, Tokenizer
from kogpt2_gluon.training.network_rules import Network, check_can_begin

Array = NDArray[Any]


class NewWeights(Protocol):
    """The weights that a new run begins with, made of those of another network."""

    @property
    def path(self) -> Path:
        """The other network."""

    @property
    def notes(self) -> list[str]:
        """Lines that say what was taken for granted or is new."""

    def arrays(self) -> Mapping[str, Array]:
        """{structural name: float32 array} of the new run's sizes; each is made when it is read."""


@dataclass(frozen=True)
class InitialWeights:
    """Weights to begin with. `notes` say what was taken for granted or is new; `known` rows of pieces are kept.

    `renamed` has the rows that begin as the mean of other ones: {id: ids of these}.
    """

    source: Source
    model: ModelRecipe  # of the new run
    positions: str  # the rule for new ones
    known: int
    notes: list[str]
    renamed: Mapping[int, list[int]] = field(default_factory=dict)
    prompt: list[int] = field(default_factory=list)  # ids of tokens whose vectors a prompt begins with

    @property
    def path(self) -> Path:
        return self.source.path

    def arrays(self) -> Mapping[str, Array]:
        """{structural name: float32 array} of the new run's sizes; each is made when it is read."""
        arrays = _Extended(self.source.model_arrays(), self)
        return _WithPrompt(arrays, self.prompt) if self.prompt else arrays


def find_initial_weights(recipe: Recipe, tokenizer: Tokenizer | None) -> InitialWeights:
    """Opens and verifies ``training.init_from``; `tokenizer` is the data's, None where there is no data yet.

    RecipeError if it is of another network, or of a tokenizer with other ids. A tokenizer in which `kogpt2 tokenizer
    rename` gave some of its ``<unusedN>`` a name has the same ids. More positions or pieces than there are refused
    unless ``training.init_positions`` or ``training.init_vocabulary`` says how to make their rows.
    """
    training = recipe.training
    source, notes = open_source(Path(training.init_from))
    source.verify(optimizer=False)
    network = Network.of_source(source)
    grown = check_can_begin(network, recipe)
    theirs = network.recipe.model
    known = theirs.vocab_size
    renamed = renamed_tokens(Tokenizer.load(source.tokenizer_path), tokenizer) if tokenizer else {}
    if tokenizer and (new := _check_tokenizer(source, tokenizer, may_grow=training.init_vocabulary != "none")):
        known = tokenizer.vocab_size - new
        notes.append(f"rows of {new:,} new pieces: the mean of the {known:,} others")
    if network.has_head:
        notes.append(f"{source.path} is fine-tuned; the head of its task is left out")
    if "max_length" in grown:
        rule, method = training.init_positions, recipe.adaptation.method
        stays = "" if method == "none" else f"; the new ones stay so: adaptation.method={method} trains no embedding"
        notes.append(
            f"{recipe.model.max_length:,} positions are made of {theirs.max_length:,}: init_positions={rule}{stays}"
        )
    notes += _note_on(renamed, training.init_renamed, recipe.adaptation.method)
    means = renamed if training.init_renamed == "mean" else {}
    prompt = prompt_tokens(recipe, tokenizer) if tokenizer and recipe.adaptation.method == "prompt" else []
    return InitialWeights(source, recipe.model, training.init_positions, known, notes, means, prompt)


def renamed_tokens(before: Tokenizer, now: Tokenizer) -> dict[int, list[int]]:
    """Returns the ids of tokens that were unused and have a name now: {id: ids that spelled this name before}.

    Letters that had no piece are left out: the row of ``<unk>`` says nothing of them.
    """
    if before.sha256 == now.sha256:
        return {}
    found = {}
    for token, (old, name) in enumerate(zip(before.pieces, now.pieces)):
        if old != name and UNUSED.fullmatch(old):
            text = name.replace(SPACE, " ")
            ids = before.encode(text[1:] if name.startswith(SPACE) and before.adds_space else text)
            if not name.startswith(SPACE) and len(ids) > 1 and before.pieces[ids[0]] == SPACE:
                ids = ids[1:]  # the space that the tokenizer puts before a text
            if known := [each for each in ids if each != before.unk_id]:
                found[token] = known
    return found


def _note_on(renamed: Mapping[int, list[int]], rule: str, adaptation: str) -> list[str]:
    if not renamed:
        return []
    how = "the mean of the rows that spelled it before" if rule == "mean" else "that of an unused token"
    line = f"the row of each of {len(renamed):,} renamed tokens begins as {how} (training.init_renamed={rule})"
    if adaptation == "none":
        return [line]
    way = "" if rule == "mean" else "; training.init_renamed=mean gives it a meaning"
    return [f"{line} and stays so: adaptation.method={adaptation} trains no embedding{way}"]


def prompt_tokens(recipe: Recipe, tokenizer: Tokenizer) -> list[int]:
    """Returns the ids of the tokens whose vectors a prompt begins with.

    Those of words are repeated or cut, as in peft; without words they are drawn (Lester et al., 2021, section 3.2: both
    ways are better than random numbers).
    """
    wanted = recipe.adaptation
    if wanted.prompt_text:
        ids = tokenizer.encode(wanted.prompt_text)
        if not ids:
            raise RecipeError(f"adaptation.prompt_text={wanted.prompt_text!r}: the tokenizer finds no token in it")
        return [ids[place % len(ids)] for place in range(wanted.prompt_length)]
    usual = [token for token in range(tokenizer.vocab_size) if not tokenizer.is_special(token)]
    return np.random.RandomState(recipe.training.seed).choice(usual, wanted.prompt_length).tolist()


class _WithPrompt(LazyArrays[None]):
    """Arrays of a network, and a prompt of some of its tokens' vectors."""

    def __init__(self, arrays: Mapping[str, Array], tokens: list[int]) -> None:
        super().__init__(dict.fromkeys([*arrays, PROMPT]))
        self._arrays, self._tokens = arrays, tokens

    def __getitem__(self, name: str) -> Array:
        return self._arrays[EMBEDDING][self._tokens] if name == PROMPT else self._arrays[name]


def _check_tokenizer(source: Source, tokenizer: Tokenizer, may_grow: bool) -> int:
    """Returns how many pieces are new, the last ones; RecipeError if another id has another meaning."""
    theirs = Tokenizer.load(source.tokenizer_path)
    if theirs.sha256 == tokenizer.sha256:
        return 0
    for token, (before, now) in enumerate(zip(theirs.pieces, tokenizer.pieces)):
        if before != now and not UNUSED.fullmatch(before):
            meanings = f"id {token} is {now!r} in the data's, {before!r} in the network's"
            raise _other_tokenizer(source, tokenizer, meanings)
    if theirs.vocab_size != tokenizer.vocab_size and not (may_grow and tokenizer.vocab_size > theirs.vocab_size):
        sizes = f"{tokenizer.vocab_size:,} pieces in the data's, {theirs.vocab_size:,} in the network's"
        raise _other_tokenizer(source, tokenizer, sizes)
    return tokenizer.vocab_size - theirs.vocab_size


def _other_tokenizer(source: Source, tokenizer: Tokenizer, what: str) -> RecipeError:
    return RecipeError(
        f"{tokenizer.path}: the data has another tokenizer than {source.path} ({what}); shard the text with "
        f"{source.tokenizer_path}"
    )


class _Extended(LazyArrays[None]):
    """Arrays of a network, with more rows where the new one has more."""

    def __init__(self, arrays: Mapping[str, Array], initial: InitialWeights) -> None:
        super().__init__(dict.fromkeys(name for name in arrays if name not in HEADS))
        self._arrays, self._initial = arrays, initial

    def __getitem__(self, name: str) -> Array:
        array, initial = self._arrays[name], self._initial
        if name == POSITIONS:
            return more_positions(array, initial.model.max_length, initial.positions)
        if name in (EMBEDDING, TIED_COPY):
            return means_of_pieces(more_pieces(array, initial.model.vocab_size, initial.known), initial.renamed)
        return array


def more_positions(array: Array, length: int, rule: str) -> Array:
    """Returns position embeddings (length, units), `length` at least that of `array`.

    repeat : the known ones again and again, so that they keep their meaning (Longformer, Beltagy et al., 2020)
    interpolate : the known ones drawn out over the new length, first and last where they were (Chen et al., 2023)
    """
    known = len(array)
    if known == length:
        return array
    if rule == "repeat":
        return array[np.arange(length) % known]
    places = np.linspace(0, known - 1, length)
    below = np.minimum(places.astype(np.int64), known - 2)
    share = (places - below)[:, None]
    return (array[below] * (1 - share) + array[below + 1] * share).astype(array.dtype)


def more_pieces(array: Array, size: int, known: int) -> Array:
    """Returns token embeddings (size, units) whose rows from `known` on are the mean of those before."""
    if known >= len(array) == size:
        return array
    extended = np.empty((size, array.shape[1]), array.dtype)
    extended[:known] = array[:known]
    extended[known:] = array[:known].mean(axis=0, dtype=np.float64)
    return extended


def means_of_pieces(array: Array, renamed: Mapping[int, list[int]]) -> Array:
    """Returns token embeddings in which each row of `renamed`, {id: ids}, is the mean of other rows.

    A term begins near the pieces that a text had for it so far (Gee et al., 2022, "Fast Vocabulary Transfer").
    """
    if not renamed:
        return array
    changed = array.copy()
    for token, pieces in renamed.items():
        changed[token] = array[pieces].mean(axis=0, dtype=np.float64)
    return changed
