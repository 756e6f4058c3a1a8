"""3i4K: what does somebody intend by an utterance: a fragment, a statement, a question, a command, ...?

Two columns without a header, label and utterance, with a tab and CRLF; the last line has no end. The numbers are the
order of the classes in the README; of train and validation together (55,134 rows) dev is held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Split, Task

CLASSES = {
    "0": "fragment",
    "1": "statement",
    "2": "question",
    "3": "command",
    "4": "rhetorical question",
    "5": "rhetorical command",
    "6": "intonation-dependent utterance",
}
COLUMNS = {"label": ("label",), "text": ("utterance",)}


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of 3i4K."""
    for where, fields in read_table(path, say, COLUMNS, names=("label", "utterance")):
        yield Row((fields["text"],), class_of(where, fields["label"], CLASSES), where=where)


THREE_I4K = Task(
    name="3i4k",
    about="3i4K: which of seven intentions does an utterance have?",
    head=CLASSIFICATION,
    read=read,
    splits={
        "train": Split(("3i4k/data/train_val_test/fci_train_val.txt",), 55_134),
        "test": Split(("3i4k/data/train_val_test/fci_test.txt",), 6_121),
    },
    metrics=("accuracy", "macro_f1"),
    labels=tuple(CLASSES.values()),
    source="https://github.com/warnikchow/3i4k (revision cfa90c1), CC BY-SA 4.0",
    names={
        "fragment": "조각",
        "statement": "진술",
        "question": "질문",
        "command": "명령",
        "rhetorical question": "수사 의문",
        "rhetorical command": "수사 명령",
        "intonation-dependent utterance": "억양 의존",
    },
)
