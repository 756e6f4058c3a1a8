"""Zero- and few-shot scores: the label whose word is the likeliest one after a prompt, without any training.

A prompt is some solved rows (shots) and the question of a row. The shots are drawn from train, balanced, several times
with different random numbers; in a draw all rows have the same shots, so the network reads them once. The answer is
chosen by, in this order:

likelihood       log p(answer | prompt)
per token        the same, divided by the tokens of the answer
per byte         the same, divided by the bytes of the answer, which do not depend on the tokenizer
against neutral  log p(answer | prompt) - log p(answer | the same shots and a text without meaning), which takes away
                 that a word is likely anyway, or after these shots: contextual calibration of Zhao et al. (2021), and
                 with one neutral text the domain-conditional PMI of Holtzman et al. (2021)

Of two answers that differ by no more than rounding the label that comes first in the task is taken, so that no batch
size decides; such rows are counted.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.scoring import Request, Scorer
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.tasks.harness_files import write_harness_task
from kogpt2_gluon.tasks.loading import find_split, open_task, read_split
from kogpt2_gluon.tasks.metrics import Predictions, check_metrics, evaluate_predictions, import_library
from kogpt2_gluon.tasks.prompts.prompts import Prompt, open_prompt
from kogpt2_gluon.tasks.shots import REFUSE, TOO_LONG, Asked, Asker, ShotPool
from kogpt2_gluon.tasks.task import Row, Task
from kogpt2_gluon.tasks.text_score import TextScore, score_texts
from kogpt2_gluon.wording import Say, counted, silent

LIKELIHOOD, PER_TOKEN, PER_BYTE, NEUTRAL = "likelihood", "per token", "per byte", "against neutral"
WAYS = (LIKELIHOOD, PER_TOKEN, PER_BYTE, NEUTRAL)
ROUNDING = 1e-5  # what likelihoods differ by if they are computed in other batches
ROWS = 1000  # whose prompts are in memory

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class InContextOptions:
    """Settings of a scoring.

    Attributes
    ----------
    shots : tuple of int
        Each number of shots is scored.
    draws : int
        How often shots are drawn; without shots there is one.
    rows : int
        So many of the rows, chosen at random and in their order; 0: all.
    seed : int
    too_long : str
        See :class:`~kogpt2_gluon.tasks.shots.Asker`.
    """

    shots: tuple[int, ...] = (0, 1, 4, 8)
    draws: int = 5
    rows: int = 0
    seed: int = 0
    too_long: str = REFUSE

    def __post_init__(self) -> None:
        for name, good, admitted in (
            ("shots", bool(self.shots) and min(self.shots) >= 0, "one number or more, each 0 or more"),
            ("draws", self.draws >= 1, "1 or more"),
            ("rows", self.rows >= 0, "0 or more"),
            ("seed", self.seed >= 0, "0 or more"),
            ("too_long", self.too_long in TOO_LONG, f"one of {', '.join(TOO_LONG)}"),
        ):
            if not good:
                raise RecipeError(f"{name}={getattr(self, name)}: it must be {admitted}")


@dataclass
class Condition:
    """The scores of one draw of shots.

    Attributes
    ----------
    shots, draw : int
    scores : mapping
        {way: {metric: score}}
    tokens : float
        Of a prompt, on average, ``<s>`` included.
    notes : Counter
        Rows of which something is to know: "tie", "fewer shots", "cut", "crossed".
    """

    shots: int
    draw: int
    scores: Mapping[str, Mapping[str, float]]
    tokens: float
    notes: Counter[str] = field(default_factory=Counter)


@dataclass
class InContextScores:
    """All scores of a task."""

    task: Task
    prompt: Prompt
    rows: int
    conditions: list[Condition]
    text: TextScore

    def values(self, shots: int, way: str, metric: str) -> list[float]:
        """Returns the score of each draw."""
        return [each.scores[way][metric] for each in self.conditions if each.shots == shots]

    def shots(self) -> list[int]:
        return list(dict.fromkeys(each.shots for each in self.conditions))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON; a score that does not exist is None."""
        return {
            "task": self.task.name,
            "rows": self.rows,
            "prompt": {
                "name": self.prompt.name, "template": self.prompt.template, "words": dict(self.prompt.words),
                "separator": self.prompt.separator, "neutral": list(self.prompt.neutral),
            },
            "text": self.text._asdict(),
            "shots": [self._of_shots(shots) for shots in self.shots()],
        }  # fmt: skip

    def _of_shots(self, shots: int) -> dict[str, Any]:
        chosen = [each for each in self.conditions if each.shots == shots]
        scores = {
            way: {metric: summary(self.values(shots, way, metric)) for metric in self.task.metrics} for way in WAYS
        }
        notes = {name: sum(each.notes[name] for each in chosen) for name in ("tie", "fewer shots", "cut", "crossed")}
        tokens = statistics.fmean(each.tokens for each in chosen)
        return {"shots": shots, "draws": len(chosen), "prompt_tokens": tokens, "rows_with": notes, "scores": scores}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Returns the mean of the draws and their standard deviation (of a sample: n - 1), which one draw does not have."""
    finite = [value for value in values if math.isfinite(value)]
    return {
        "mean": statistics.fmean(finite) if finite else None,
        "deviation": statistics.stdev(finite) if len(finite) > 1 else None,
        "draws": [value if math.isfinite(value) else None for value in values],
    }


def choose_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Returns `count` of the rows (0, or more than there are: all), chosen at random, in their order."""
    if not 0 < count < len(rows):
        return list(rows)
    chosen = np.random.default_rng([seed, len(rows)]).choice(len(rows), count, replace=False)
    return [rows[place] for place in sorted(chosen)]


class InContext:
    """Scores a task in context.

    Parameters
    ----------
    scorer : Scorer
    encoder : PromptEncoder
        Of the network's tokenizer.
    task : Task
    prompt : Prompt
    options : InContextOptions
    rows, train : sequence of Row
        What is scored, and what shots come from; `train` can be empty where no shots are asked for.
    say : callable
        Is called with what a reader of the scores should know.
    """

    def __init__(
        self,
        scorer: Scorer,
        encoder: PromptEncoder,
        task: Task,
        prompt: Prompt,
        options: InContextOptions,
        rows: Sequence[Row],
        train: Sequence[Row] = (),
        say: Say = silent,
    ) -> None:
        self._scorer, self._encoder, self._task, self._prompt = scorer, encoder, task, prompt
        self._options, self._say = options, say
        self._rows = choose_rows(rows, options.rows, options.seed)
        self._asker = Asker(task, prompt, encoder, scorer.max_length, options.too_long)
        self._pool = ShotPool(task, train, self._rows, say) if any(options.shots) else None
        if self._pool:
            self._pool.draw(
                max(options.shots), options.seed, 0
            )  # DataError before anything is computed if train has too few

    def run(self) -> InContextScores:
        """Scores the rows with every draw of shots."""
        remarks: Counter[str] = Counter()
        conditions = []
        for shots, draw in self._draws():
            began = time.perf_counter()
            conditions.append(self._condition(shots, draw, remarks))
            seconds, rows = time.perf_counter() - began, counted(len(self._rows), "row")
            self._say(f"{counted(len(shots), 'shot')}, draw {draw + 1}: {rows} in {seconds:.1f} s")
        words = self._prompt.template + self._prompt.separator
        if "\n" in words and not self._encoder.tokenizer.keeps_newlines:
            self._say("the tokenizer reads line ends, those of the prompt too, as spaces")
        for line, times in remarks.items():
            self._say(f"{line} ({times} of {len(conditions) * len(WAYS)} scores)")
        text = score_texts(self._scorer, self._encoder, self._rows)
        return InContextScores(self._task, self._prompt, len(self._rows), conditions, text)

    def export(self, folder: Path) -> list[Path]:
        """Writes the same prompts as tasks of lm-evaluation-harness; returns their YAML files."""
        gold = [self._task.labels.index(row.label) for row in self._rows]
        files = []
        for shots, draw in self._draws():
            name = re.sub(r"[^\w.-]", "_", f"{self._task.name}-{len(shots)}-shots-draw-{draw + 1}")
            asked = self._asker.ask(self._rows, shots)
            with full_disk_named(folder, lambda: "the prompts are not all there; make room, or name another --export"):
                files.append(write_harness_task(folder, name, self._prompt.delimiter, asked, gold))
        return files

    def _draws(self) -> Iterator[tuple[list[Row], int]]:
        """Yields the shots of each draw, and its number."""
        for count in dict.fromkeys(self._options.shots):
            for draw in range(self._options.draws if count else 1):
                yield self._pool.draw(count, self._options.seed, draw) if self._pool and count else [], draw

    def _condition(self, shots: Sequence[Row], draw: int, remarks: Counter[str]) -> Condition:
        rows = self._rows
        chosen: dict[str, list[NDArray[np.int64]]] = {way: [] for way in WAYS}
        notes: Counter[str] = Counter()
        tokens = 0
        for begin in range(0, len(rows), ROWS):
            asked = self._asker.ask(rows[begin : begin + ROWS], shots)
            for way, values in self.values(asked, shots).items():
                best = values >= values.max(axis=1, keepdims=True) - ROUNDING
                chosen[way].append(best.argmax(axis=1))  # the first of them
                if way == LIKELIHOOD:
                    notes["tie"] += int((best.sum(axis=1) > 1).sum())
            tokens += sum(len(each.encoded.context) for each in asked)
            notes["fewer shots"] += sum(each.shots < len(shots) for each in asked)
            notes["cut"] += sum(each.is_cut for each in asked)
            notes["crossed"] += sum(each.encoded.is_crossed for each in asked)
        scores = {}
        for way, parts in chosen.items():
            labels = [self._task.labels[place] for part in parts for place in part]
            lines: list[str] = []
            scores[way] = evaluate_predictions(self._task, rows, Predictions(labels=labels), lines.append)
            remarks.update(dict.fromkeys(lines, 1))
        return Condition(len(shots), draw, scores, tokens / max(1, len(rows)), notes)

    def values(self, asked: Sequence[Asked], shots: Sequence[Row]) -> dict[str, Floats]:
        """Returns what each way compares, by its name: (rows, labels)."""
        logs, tokens = self._likelihoods(asked)
        neutral = {count: self._neutral(shots, count) for count in sorted({each.shots for each in asked})}
        return {
            LIKELIHOOD: logs,
            PER_TOKEN: logs / tokens,
            PER_BYTE: logs / np.array([each.answer_bytes() for each in asked]),
            NEUTRAL: logs - np.stack([neutral[each.shots] for each in asked]),
        }

    def _likelihoods(self, asked: Sequence[Asked]) -> tuple[Floats, Floats]:
        """Returns the log-likelihood and the number of tokens of each answer, both (rows, labels)."""
        requests = [Request(each.encoded.context, answer) for each in asked for answer in each.encoded.answers]
        found = self._scorer.log_likelihoods(requests)
        both = np.array([(each.log_likelihood, each.tokens) for each in found])
        shape = len(asked), len(self._task.labels)
        return both[:, 0].reshape(shape), both[:, 1].reshape(shape)

    def _neutral(self, shots: Sequence[Row], count: int) -> Floats:
        """Returns the log-probability of each label after a neutral text, the mean of them if there are several.

        Each is made a distribution over the labels first, as Zhao et al. do.
        """
        texts = 1 + self._task.is_pair
        rows = [Row((text,) * texts, where="the neutral text") for text in self._prompt.neutral]
        logs, _ = self._likelihoods(self._asker.ask(rows, shots[len(shots) - count :]))
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        # An answer that is never likely after a neutral text must not win because of a division by 0.
        return np.log(np.maximum(shares.mean(axis=0), np.finfo(np.float64).tiny))


def score_checkpoint(
    path: Path,
    task: str,
    data: Path,
    options: InContextOptions,
    prompt: Path | None = None,
    split: str = "",
    device: str = "auto",
    precision: str = "float32",
    ops: str = "auto",
    export: Path | None = None,
    say: Say = silent,
) -> InContextScores:
    """Scores a checkpoint on a task; see :class:`InContext`.

    `task` and `data` are as :mod:`kogpt2_gluon.tasks.loading` takes them; `split` is "test" or "dev", and "" the first
    of them that is there. With `export`, the prompts are also written to that folder, for lm-evaluation-harness.
    """
    opened = open_task(task)
    asked = open_prompt(opened, prompt)
    check_metrics(opened)
    import_library("sklearn.metrics")  # if it is missing, that shows before anything is computed
    name = split or next((each for each in ("test", "dev") if find_split(opened, data, each)), "test")
    rows = read_split(opened, data, name, say)
    train = read_split(opened, data, "train", say) if any(options.shots) else []
    net, tokenizer, _, ctx = load_checkpoint(path, device, precision, ops)
    in_context = InContext(Scorer(net, ctx), PromptEncoder(tokenizer), opened, asked, options, rows, train, say)
    if export:
        for file in in_context.export(export):
            say(f"written: {file}")
    return in_context.run()
