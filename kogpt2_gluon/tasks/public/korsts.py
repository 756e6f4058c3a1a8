"""KorSTS: how similar are two sentences, from 0 (nothing in common) to 5 (the same)?

A quotation mark is a character as any other: 48, 16 and 10 lines have an odd number of them, and a reader of CSV gives
5,703 and 1,471 rows of train and dev, as the copies of huggingface's kor_nlu have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.answers import value_of
from kogpt2_gluon.tasks.public.published import KOGPT2_2, lm_kor
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.task import REGRESSION, Published, Row, Split, Task

COLUMNS = {"first": ("sentence1",), "second": ("sentence2",), "value": ("score",)}


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of KorSTS."""
    for where, fields in read_table(path, say, COLUMNS):
        yield Row((fields["first"], fields["second"]), value=value_of(where, fields["value"]), where=where)


KORSTS = Task(
    name="korsts",
    about="KorSTS: how similar are two sentences?",
    head=REGRESSION,
    read=read,
    splits={
        "train": Split(("KorNLUDatasets/KorSTS/sts-train.tsv",), 5_749),
        "dev": Split(("KorNLUDatasets/KorSTS/sts-dev.tsv",), 1_500),
        "test": Split(("KorNLUDatasets/KorSTS/sts-test.tsv",), 1_379),
    },
    metrics=("spearman", "pearson"),
    is_pair=True,
    value_range=(0.0, 5.0),
    published=(
        Published("KoGPT-2 version 2", "spearman", 0.778, "test", KOGPT2_2),
        *lm_kor("spearman", "test", 81.59, 82.73, 75.94, 85.53, 81.76, 84.31, 85.46, 84.52),
    ),
    source="https://github.com/kakaobrain/KorNLUDatasets (revision 0df0fe7), CC BY-SA 4.0",
)
