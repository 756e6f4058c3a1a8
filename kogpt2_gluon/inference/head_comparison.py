"""Compares a fine-tuned network with what a conversion made of it, by the outputs of its heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.convert.heads import CLASS, SPANS, heads_of
from kogpt2_gluon.convert.source import Source, open_source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.comparison import SENTENCES, TOLERANCE
from kogpt2_gluon.machine.runtime import context, mx
from kogpt2_gluon.model.filling import fill_network_from
from kogpt2_gluon.model.heads import HeadSizes, build_task_model
from kogpt2_gluon.runs.saved_task import REGRESSION, SavedTask
from kogpt2_gluon.tokens.morphemes import FIELD, Cutter
from kogpt2_gluon.tokens.tokenizer import Tokenizer

Ids = Sequence[Sequence[int]]
Outputs = list[NDArray[np.float32]]  # of each row: (K,), or (tokens, K) of labels of tokens


@dataclass(frozen=True)
class HeadComparison:
    """The outputs of heads in two forms of a network, for the same rows.

    Attributes
    ----------
    rows : int
    difference, largest : float
        Of two outputs; the largest output.
    """

    rows: int
    difference: float
    largest: float

    def __str__(self) -> str:
        return f"{self.rows} rows: the head's outputs differ by at most {self.difference:.2g} (of {self.largest:.3g})"


def compare_fine_tuned(
    source: Source, task: SavedTask, out: Path, target: str, part: str, exact: bool
) -> HeadComparison:
    """Compares a source with folder `out`, made of it, on Korean sentences or pairs of them.

    A transformers folder gets them as texts in one batch, so its tokenizer, padding and pooling are compared too.

    DataError if they differ by more than rounding although the conversion is `exact`; RecipeError if transformers or
    PyTorch is missing.
    """
    rows = _framed(source, task)
    if target == "huggingface":
        chosen = part or heads_of(task)[0]
        theirs = {chosen: _in_transformers(out, task, rows, chosen)}
    else:
        theirs = _in_mxnet(open_source(out)[0], task, rows)
    ours = _in_mxnet(source, task, rows)
    pairs = [(mine, other) for name in theirs for mine, other in zip(ours[name], theirs[name])]
    difference = max(float(np.abs(mine - other).max()) for mine, other in pairs)
    found = HeadComparison(len(rows), difference, max(float(np.abs(mine).max()) for mine, _ in pairs))
    if exact and difference > TOLERANCE * found.largest:
        raise DataError(f"{out}: does not compute what {source.path} does: {found}")
    return found


def _texts(task: SavedTask) -> list[tuple[str, ...]]:
    return list(zip(SENTENCES, SENTENCES[::-1])) if task.is_pair else [(text,) for text in SENTENCES]


def _framed(source: Source, task: SavedTask) -> list[list[int]]:
    """Returns the ids of the rows that a fine-tuning would read; see tasks/encoding.py. Longer ones are left out."""
    tokenizer, most = Tokenizer.load(source.tokenizer_path), source.recipe().data.seq_length
    rows = []
    for texts in _texts(task):
        ids = [tokenizer.bos_id]
        for text in texts:
            ids += [*tokenizer.encode(text), tokenizer.eos_id]
        rows.append(ids)
    fitting = [ids for ids in rows if len(ids) <= most]
    return fitting or [[tokenizer.bos_id, *[tokenizer.eos_id] * (1 + task.is_pair)]]


def _in_mxnet(source: Source, task: SavedTask, rows: Ids) -> dict[str, Outputs]:
    """Runs the rows one by one, so without padding, over MXNet's own operators."""
    ctx, sizes = context("cpu"), HeadSizes(task.answers, len(task.tag_names), is_number=task.head == REGRESSION)
    net = build_task_model(source.recipe().model, sizes)
    fill_network_from(net, source.model_arrays(), ctx, str(source.model_path))
    outputs: dict[str, Outputs] = {CLASS: [], SPANS: []}
    for ids in rows:
        last = mx.nd.array([len(ids) - 1], ctx=ctx)
        found: Any = net(mx.nd.array([ids], ctx=ctx, dtype="int32"), last)
        for name, each in zip((CLASS, SPANS), found):
            if each is not None:
                outputs[name].append(each.asnumpy()[0])
    return outputs


def _in_transformers(folder: Path, task: SavedTask, rows: Ids, part: str) -> Outputs:
    """Runs the texts of the rows as one batch. DataError if the folder's tokenizer gives them other ids."""
    try:
        import torch
        from transformers import AutoTokenizer, GPT2ForSequenceClassification, GPT2ForTokenClassification
    except ImportError as error:
        raise RecipeError(f"--verify runs {folder} with transformers and PyTorch: {error}; pip install both") from None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind: Any = GPT2ForTokenClassification if part == SPANS else GPT2ForSequenceClassification
    net = kind.from_pretrained(folder).eval()
    cut = Cutter.of(folder).cut if FIELD in tokenizer.init_kwargs else None
    encoded = [
        tokenizer(*map(cut, texts), is_split_into_words=True)["input_ids"] if cut else tokenizer(*texts)["input_ids"]
        for texts in _texts(task)
    ]
    fitting = [ids for ids in encoded if len(ids) <= tokenizer.model_max_length]
    if fitting and fitting != [list(ids) for ids in rows]:
        raise DataError(f"{folder}: its tokenizer does not give rows the ids that the fine-tuning gave them")
    batch = tokenizer.pad({"input_ids": [list(ids) for ids in rows]}, return_tensors="pt")
    with torch.no_grad():
        logits = net(**batch).logits.float().numpy()
    return [each[: len(ids)] if part == SPANS else each for each, ids in zip(logits, rows)]
