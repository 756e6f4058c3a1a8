"""KLUE-STS: how similar are two sentences, from 0 to 5? The answers of test are hidden.

The value is real-label, the mean of seven people, as KLUE's own baselines take it; label is the same to one decimal,
and binary-label says whether it is 3 or more, which the F1 counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.json_records import number_of, read_json_array, text_of
from kogpt2_gluon.tasks.public.published import klue
from kogpt2_gluon.tasks.task import REGRESSION, Row, Split, Task


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of KLUE-STS."""
    for where, record in read_json_array(path):
        labels = record.get("labels")
        if not isinstance(labels, dict):
            raise DataError(f"{where}: labels is missing; an object with real-label is expected")
        texts = (text_of(where, record, "sentence1"), text_of(where, record, "sentence2"))
        yield Row(texts, value=number_of(f"{where}: labels", labels, "real-label"), where=where)


KLUE_STS = Task(
    name="klue-sts",
    about="KLUE-STS: how similar are two sentences?",
    head=REGRESSION,
    read=read,
    splits={
        "train": Split(
            (
                "klue_benchmark/klue-sts-v1.1/klue-sts-v1.1_train.json",
                "klue_benchmark/klue-sts-v1/klue-sts-v1_train.json",
            ),
            11_668,
        ),
        "dev": Split(
            ("klue_benchmark/klue-sts-v1.1/klue-sts-v1.1_dev.json", "klue_benchmark/klue-sts-v1/klue-sts-v1_dev.json"),
            519,
        ),
    },
    metrics=("pearson", "f1:3"),
    is_pair=True,
    value_range=(0.0, 5.0),
    published=(
        *klue("pearson", 84.66, 89.16, 92.97, 88.61, 92.46, 90.85, 91.54, 92.50, 93.35),
        *klue("f1:3", 76.00, 82.01, 85.86, 81.07, 84.84, 82.84, 85.16, 85.40, 86.63),
    ),
    source="https://github.com/KLUE-benchmark/KLUE, version 1.1 (revision 3efd987), CC BY-SA 4.0",
)
