"""KorNLI: does the second sentence follow from the first, contradict it, or neither?

Three columns with tabs, and no quoting: a reader of CSV joins lines and fields, which is reported as broken lines
(kakaobrain/KorNLUDatasets issues 4 and 5, huggingface/datasets issue 821). Read as they are, all 2,490 and 5,010 lines
of dev and test have three fields.

Train is two files, 392,702 rows of MultiNLI and 550,152 of SNLI; SNLI's is read after MultiNLI's if it is next to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.published import lm_kor
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Split, Task
from kogpt2_gluon.wording import counted

CLASSES = {"entailment": "entailment", "neutral": "neutral", "contradiction": "contradiction"}
COLUMNS = {"first": ("sentence1",), "second": ("sentence2",), "label": ("gold_label",)}
MULTINLI, SNLI = "multinli.train.ko.tsv", "snli_1.0_train.ko.tsv"


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of KorNLI, and after MultiNLI's those of SNLI."""
    yield from _read_file(path, say)
    other = path.with_name(SNLI)
    if path.name == MULTINLI and other.exists():
        count = 0
        for row in _read_file(other, say):
            count += 1
            yield row
        say(f"{MULTINLI}: with {counted(count, 'row')} of {SNLI}")
    elif path.name in (MULTINLI, SNLI):
        say(f"{path.name}: half of train; the other one, {MULTINLI if path.name == SNLI else SNLI}, is not there")


def _read_file(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    for where, fields in read_table(path, say, COLUMNS):
        label = class_of(where, fields["label"], CLASSES)
        yield Row((fields["first"], fields["second"]), label, where=where)


KORNLI = Task(
    name="kornli",
    about="KorNLI: does a sentence follow from another, contradict it, or neither?",
    head=CLASSIFICATION,
    read=read,
    splits={
        "train": Split((f"KorNLUDatasets/KorNLI/{MULTINLI}", f"KorNLUDatasets/KorNLI/{SNLI}"), 942_854),
        "dev": Split(("KorNLUDatasets/KorNLI/xnli.dev.ko.tsv",), 2_490),
        "test": Split(("KorNLUDatasets/KorNLI/xnli.test.ko.tsv",), 5_010),
    },
    metrics=("accuracy",),
    labels=tuple(CLASSES),
    is_pair=True,
    published=lm_kor("accuracy", "test", 79.62, 80.32, 75.57, 82.24, 79.42, 82.32, 83.11, float("nan")),
    source="https://github.com/kakaobrain/KorNLUDatasets (revision 0df0fe7), CC BY-SA 4.0",
    names={"entailment": "함의", "neutral": "중립", "contradiction": "모순"},
)
