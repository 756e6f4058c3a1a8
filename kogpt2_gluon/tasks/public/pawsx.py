"""PAWS-X: do two sentences that share nearly all their words mean the same?

A sentence that a person could not translate is "NS" (in two rows of dev "ns"); the paper's numbers are those without
(google-research-datasets/paws issue 15). Of train, some machine translations are empty (issue 4). Such rows are left
out and counted. One sentence of dev has U+001C inside, and quotation marks are as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.published import lm_kor
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Split, Task
from kogpt2_gluon.wording import counted

CLASSES = {"0": "different", "1": "same"}
COLUMNS = {"first": ("sentence1",), "second": ("sentence2",), "label": ("label",), "id": ("id",)}
NOT_A_SENTENCE = "NS"


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of PAWS-X that have two sentences."""
    placeholders = empty = 0
    for where, fields in read_table(path, say, COLUMNS):
        texts = (fields["first"], fields["second"])
        if any(text.strip().upper() == NOT_A_SENTENCE for text in texts):
            placeholders += 1
        elif not all(map(str.strip, texts)):
            empty += 1
        else:
            yield Row(texts, class_of(where, fields["label"], CLASSES), where=where)
    if placeholders:
        say(f"{path.name}: left out {counted(placeholders, 'row')} with {NOT_A_SENTENCE} for a sentence")
    if empty:
        say(f"{path.name}: left out {counted(empty, 'row')} with an empty sentence")


PAWSX = Task(
    name="pawsx",
    about="PAWS-X: do two sentences with nearly the same words mean the same?",
    head=CLASSIFICATION,
    read=read,
    splits={
        "train": Split(("x-final/ko/translated_train.tsv",), 49_401),
        "dev": Split(("x-final/ko/dev_2k.tsv",), 1_965),
        "test": Split(("x-final/ko/test_2k.tsv",), 1_972),
    },
    metrics=("accuracy",),
    labels=tuple(CLASSES.values()),
    is_pair=True,
    published=lm_kor("accuracy", "test", 81.25, 82.95, 67.40, 84.45, 81.20, 82.80, 85.50, 83.90),
    source="https://github.com/google-research-datasets/paws, pawsx (x-final.tar.gz), free for any purpose",
    names={"different": "다름", "same": "같음"},
)
