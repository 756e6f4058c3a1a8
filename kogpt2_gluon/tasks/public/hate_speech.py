"""korean-hate-speech (BEEP!): is a comment on a piece of news hateful, offensive, or neither?

The answers of test are not public, so dev is what scores are made on. A comment with quotation marks is in the quotes
of CSV (10 of train, 2 of dev). KoELECTRA's copy has the title of the news in a column of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.published import lm_kor
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Split, Task

CLASSES = {"none": "none", "offensive": "offensive", "hate": "hate"}
COLUMNS = {"text": ("comments", "comment"), "label": ("hate",)}


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of korean-hate-speech, with the column `hate` as the label."""
    for where, fields in read_table(path, say, COLUMNS):
        yield Row((fields["text"],), class_of(where, fields["label"], CLASSES), where=where)


HATE_SPEECH = Task(
    name="hate-speech",
    about="korean-hate-speech: is a comment hateful, offensive, or neither?",
    head=CLASSIFICATION,
    read=read,
    splits={
        "train": Split(("korean-hate-speech/labeled/train.tsv", "hate-speech/train.tsv"), 7_896),
        "dev": Split(("korean-hate-speech/labeled/dev.tsv", "hate-speech/val.tsv"), 471),
    },
    metrics=("macro_f1", "accuracy"),
    labels=tuple(CLASSES),
    published=lm_kor("macro_f1", "dev", 66.21, 68.32, 68.78, 67.61, 65.44, 68.45, 66.03, 68.18),
    source="https://github.com/kocohub/korean-hate-speech (revision f8d05dc), CC BY-SA 4.0",
    names={"none": "없음", "offensive": "모욕", "hate": "혐오"},
)
