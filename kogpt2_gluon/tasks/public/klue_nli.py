"""KLUE-NLI: does the second sentence follow from the first, contradict it, or neither? The answers of test are hidden.

It is one array of objects; in version 1 ``source`` was called ``genre``. Neither is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.json_records import read_json_array, text_of
from kogpt2_gluon.tasks.public.published import klue
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Split, Task

CLASSES = {"entailment": "entailment", "neutral": "neutral", "contradiction": "contradiction"}


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of KLUE-NLI; its label is what most of five people said."""
    for where, record in read_json_array(path):
        texts = (text_of(where, record, "premise"), text_of(where, record, "hypothesis"))
        yield Row(texts, class_of(where, text_of(where, record, "gold_label"), CLASSES), where=where)


KLUE_NLI = Task(
    name="klue-nli",
    about="KLUE-NLI: does a sentence follow from another, contradict it, or neither?",
    head=CLASSIFICATION,
    read=read,
    splits={
        "train": Split(
            (
                "klue_benchmark/klue-nli-v1.1/klue-nli-v1.1_train.json",
                "klue_benchmark/klue-nli-v1/klue-nli-v1_train.json",
            ),
            24_998,
        ),
        "dev": Split(
            ("klue_benchmark/klue-nli-v1.1/klue-nli-v1.1_dev.json", "klue_benchmark/klue-nli-v1/klue-nli-v1_dev.json"),
            3_000,
        ),
    },
    metrics=("accuracy",),
    labels=tuple(CLASSES),
    is_pair=True,
    published=klue("accuracy", 73.20, 77.33, 85.93, 77.17, 85.63, 81.63, 79.33, 84.83, 89.17),
    source="https://github.com/KLUE-benchmark/KLUE, version 1.1 (revision 3efd987), CC BY-SA 4.0",
    names={"entailment": "함의", "neutral": "중립", "contradiction": "모순"},
)
