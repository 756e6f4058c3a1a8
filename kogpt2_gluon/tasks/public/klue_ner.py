"""KLUE-NER: which stretches of a sentence name a person, a place, an organisation, a date, a time or a quantity?

A line has one character and its label with a tab between, spaces included; an empty line ends a sentence, and lines
with ``##`` are remarks: five at the top, and one before each sentence with the sentence in another notation, which is
wrong in places (KLUE-benchmark/KLUE pull request 39) and not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.labelled_lines import read_labelled
from kogpt2_gluon.tasks.public.published import klue
from kogpt2_gluon.tasks.task import TOKEN_LABELS, Row, Split, Task

REMARK = "##"


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the sentences of a file of KLUE-NER."""
    return read_labelled(path, say, remark=REMARK)


KLUE_NER = Task(
    name="klue-ner",
    about="KLUE-NER: names of people, places and organisations, dates, times and quantities in a sentence",
    head=TOKEN_LABELS,
    read=read,
    splits={
        "train": Split(
            (
                "klue_benchmark/klue-ner-v1.1/klue-ner-v1.1_train.tsv",
                "klue_benchmark/klue-ner-v1/klue-ner-v1_train.tsv",
            ),
            21_008,
        ),
        "dev": Split(
            ("klue_benchmark/klue-ner-v1.1/klue-ner-v1.1_dev.tsv", "klue_benchmark/klue-ner-v1/klue-ner-v1_dev.tsv"),
            5_000,
        ),
    },
    metrics=("entity_f1", "character_f1"),
    kinds=("PS", "LC", "OG", "DT", "TI", "QT"),
    published=(
        *klue("entity_f1", 76.50, 80.37, 82.27, 74.58, 86.11, 83.97, 83.65, 84.60, 85.00),
        *klue("character_f1", 89.23, 92.12, 93.22, 90.13, 92.56, 91.39, 91.14, 91.44, 91.86),
    ),
    source="https://github.com/KLUE-benchmark/KLUE, version 1.1 (revision 3efd987), CC BY-SA 4.0",
)
