"""Says which runs compare: those of one task or of none, by one figure, on the same held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kogpt2_gluon.runs.run_folder import RunFolder
from kogpt2_gluon.wording import counted

MOST_NAMES = 4  # of runs, in a note
TEXT_FACTS = ("documents", "bytes_of_text")  # of a set in data.json: the same for every tokenizer
NOT_ON_RECORD = "(what was in it is not on record)"


class Note(NamedTuple):
    """In which way runs do not compare: a heading, and which run is how."""

    heading: str
    text: str


class Kind(NamedTuple):
    """A task, "" for a language model, and the figure that judges its runs, "" before there is one."""

    task: str
    measure: str

    @property
    def words(self) -> str:
        """The figure in words, with the task: ``bits per byte``, ``accuracy of nsmc``."""
        return self.measure.replace("_", " ") + f" of {self.task}" * bool(self.task)


def kind_of(run: RunFolder) -> Kind:
    """Returns what a run is judged by: bits per byte or a task's score, or the loss if it has nothing else."""
    for measure in (run.measure, "loss"):
        if not math.isnan(run.last_of(measure)[1]):
            return Kind(run.recipe.task.name, measure)
    return Kind(run.recipe.task.name, "")


def held_out_of(runs: Sequence[RunFolder], look_up: Callable[[RunFolder], str] | None = None) -> list[str]:
    """Returns each run's held-out data in words, which are the same for runs on the same data, and "" without any.

    A task, its folder and its languages; the documents and the bytes of the held-out shards, whatever tokenizer they
    are by. Of shards that are not on record it is what `look_up` says of them, or their path. Shards of the same size
    by the same tokenizer that have different fingerprints have these in their words.
    """
    records = [_held_out_record(run) for run in runs]
    prints: dict[tuple[Any, ...], set[str]] = {}
    for record in filter(None, records):
        text = tuple(record[name] for name in TEXT_FACTS)
        prints.setdefault((*text, str(record.get("tokenizer"))), set()).add(str(record.get("fingerprint")))
    doubtful = {key[:2] for key, found in prints.items() if len(found) > 1}
    words = []
    for run, record in zip(runs, records):
        if run.recipe.task.name:
            words.append(_rows_of(run))
        elif record:
            documents, size = (record[name] for name in TEXT_FACTS)
            shown = text_in_words(documents, size)
            doubt = (documents, size) in doubtful
            words.append(f"{shown}, fingerprint {record.get('fingerprint')}" if doubt else shown)
        else:
            path = run.recipe.data.test
            words.append((look_up(run) if look_up else "") or (f"{path} {NOT_ON_RECORD}" if path else ""))
    return words


def is_on_record(words: str) -> bool:
    """Returns False for the words of `held_out_of` that are of a path alone, whose text may be any."""
    return not words.endswith(NOT_ON_RECORD)


def text_in_words(documents: int, size: int) -> str:
    """Returns the words for a held-out text of so many documents and bytes."""
    return f"{counted(documents, 'document')} of {size:,} bytes"


def vocabulary_of(run: RunFolder) -> str:
    """Returns the vocabulary in which a language model counts its loss, in words; "" for a task, which has rows."""
    if run.recipe.task.name:
        return ""
    sets = [each for each in run.data if isinstance(each.get("tokenizer"), str)]
    paths = (run.recipe.data.test, *run.recipe.data.train_sets)
    known = [each["tokenizer"] for each in sets if each.get("path") in paths]
    return known[-1] if known else f"{run.recipe.model.vocab_size:,} tokens"


def vocabularies_of(runs: Sequence[RunFolder]) -> list[str]:
    """Returns each run's vocabulary in words that are as short as they can be: its size, or with its hash.

    A run that has no hash on record counts as having the vocabulary of that size.
    """
    full = [vocabulary_of(run) for run in runs]
    hashes: dict[str, set[str]] = {}
    for words in full:
        size, _, digest = words.partition(", ")
        hashes.setdefault(size, set()).update({digest} - {""})
    return [words if len(hashes[size := words.partition(", ")[0]]) > 1 else size for words in full]


def notes_on(runs: Sequence[RunFolder], names: Sequence[str]) -> list[Note]:
    """Returns in which ways these runs do not compare, with their names; none if they all do."""
    kinds = [kind_of(run) for run in runs]
    notes = []
    judged = [place for place, kind in enumerate(kinds) if kind.measure]
    by_kind = _grouped(kinds, judged)
    if len(by_kind) > 1:
        notes.append(
            Note(
                "Different tasks or figures, which do not rank these runs against each other",
                _listed({kind.words: places for kind, places in by_kind.items()}, names),
            )
        )
    held_out = held_out_of(runs)
    for kind, places in by_kind.items():
        by_data = _grouped(held_out, places)
        if len(by_data) > 1:
            known = len([words for words in by_data if is_on_record(words)]) > 1
            what = "Different held-out data" if known else "Perhaps different held-out data"
            heading = f"{what}, so {kind.words} {'does' if known else 'may'} not rank these runs against each other"
            notes.append(Note(heading, _listed(by_data, names)))
    vocabularies = vocabularies_of(runs)
    by_vocabulary = _grouped(vocabularies, [place for place, words in enumerate(vocabularies) if words])
    if len(by_vocabulary) > 1:
        heading = "Different vocabularies: losses and perplexities are per token and do not compare; bits per byte do"
        notes.append(Note(heading, _listed(by_vocabulary, names)))
    return [*notes, *_conditions(runs, names, by_kind, held_out)]


def _conditions(
    runs: Sequence[RunFolder], names: Sequence[str], by_kind: Mapping[Kind, Sequence[int]], held_out: Sequence[str]
) -> list[Note]:
    """Returns notes on runs on the same data that were evaluated in different ways."""
    notes = []
    for kind, places in by_kind.items():
        for group in _grouped(held_out, places).values():
            shares = {place: runs[place].recipe.evaluation.max_sequences for place in group}
            lengths = {place: runs[place].recipe.data.seq_length for place in group}
            if len(set(shares.values())) > 1:
                words = [f"{shares[n]:,} sequences" if shares.get(n) else "all" for n in range(len(runs))]
                heading = "Evaluations in mid-run are over different numbers of the held-out sequences"
                notes.append(Note(heading, _listed(_grouped(words, group), names)))
            if len(set(lengths.values())) > 1 and not kind.task:
                words = [f"{lengths[n]:,} tokens" if n in lengths else "" for n in range(len(runs))]
                heading = "Held-out text is cut into sequences of different lengths, and longer contexts lower the loss"
                notes.append(Note(heading, _listed(_grouped(words, group), names)))
    return notes


def _held_out_record(run: RunFolder) -> Mapping[str, Any]:
    """Returns the facts of the held-out set that data.json has; empty if it has none, or those of another set."""
    for each in run.data:
        if each.get("role") == "held-out" and each.get("path") == run.recipe.data.test:
            return each if all(type(each.get(name)) is int for name in TEXT_FACTS) else {}
    return {}


def _rows_of(run: RunFolder) -> str:
    """Returns the rows that judge a task's run, in words: its dev rows follow from the task, its folder and a share."""
    task = run.recipe.task
    locales = f" ({', '.join(task.locales)})" if task.locales else ""
    share = f", a share of {task.dev_share:g}" if task.dev_share != type(task)().dev_share else ""
    return f"{task.name} in {task.data}{locales}{share}"


def _grouped(values: Sequence[Any], places: Iterable[int]) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = {}
    for place in places:
        groups.setdefault(values[place], []).append(place)
    return groups


def _listed(groups: Mapping[str, Sequence[int]], names: Sequence[str]) -> str:
    """Returns each group's words with the names of its runs."""
    return "; ".join(
        f"{words or 'none'}: {_some([names[place] for place in places])}" for words, places in groups.items()
    )


def _some(names: Sequence[str]) -> str:
    """Returns the names of runs, and of many the first and how many more there are."""
    if len(names) <= MOST_NAMES + 1:
        return ", ".join(names)
    return f"{', '.join(names[:MOST_NAMES])} and {len(names) - MOST_NAMES:,} more"
