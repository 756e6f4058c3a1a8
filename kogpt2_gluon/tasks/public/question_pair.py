"""Question Pair: do two questions of a chat ask the same?

In the files **0 is the same and 1 is different**, as their README says, though the column is called is_duplicate. They
come in two splits: the first is CSV (with a byte-order mark; its test has a column without a name, in which one row has
something). For the second, aisolab/nlp_classification put all rows of the first together and split them again, with
tabs; so a train of one and a test of the other have rows in common. Copies of the second from before pull request 2 of
songys/Question_pair have a tab inside a quoted question; haven-jeon/Question_pair has the first with tabs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.published import KOGPT2, lm_kor
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.task import CLASSIFICATION, Published, Row, Split, Task

CLASSES = {"0": "same", "1": "different"}
COLUMNS = {"first": ("question1",), "second": ("question2",), "label": ("is_duplicate",)}


FIRST_SPLIT = {"kor_pair_train": 6_888, "kor_pair_test": 688}  # rows, as published


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of Question Pair: CSV by its name, else with tabs."""
    if published := FIRST_SPLIT.get(path.stem.lower()):
        say(f"{path.name}: the first split (published: {published:,} rows)")
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    for where, fields in read_table(path, say, COLUMNS, delimiter):
        label = class_of(where, fields["label"], CLASSES)
        yield Row((fields["first"], fields["second"]), label, where=where)


_FOLDERS = ("question_pair", "Question_pair", "question-pair", "qpair")


def _files(*names: str) -> tuple[str, ...]:
    """Returns names with the folders that they are found in; the second split is looked for before the first."""
    return tuple(f"{folder}/{name}" for name in names for folder in _FOLDERS)


QUESTION_PAIR = Task(
    name="question-pair",
    about="Question Pair: do two questions ask the same?",
    head=CLASSIFICATION,
    read=read,
    splits={
        "train": Split(_files("train.txt", "train.tsv", "kor_pair_train.csv", "kor_pair_train.tsv"), 6_136),
        "dev": Split(_files("validation.txt", "dev.tsv"), 682),
        "test": Split(
            _files("test.txt", "test.tsv", "kor_Pair_test.csv", "kor_pair_test.csv", "kor_pair_test.tsv"), 758
        ),
    },
    metrics=("accuracy",),
    labels=tuple(CLASSES.values()),
    is_pair=True,
    published=(
        Published("KoGPT-2", "accuracy", 0.943, "test", f"{KOGPT2}; it names the second split"),
        Published("KoBERT (SKT)", "accuracy", 0.911, "test", f"{KOGPT2}; it names the second split"),
        *lm_kor("accuracy", "test", 94.85, 94.72, 93.93, 95.25, 94.59, 95.25, 95.78, 95.51),
    ),
    source="https://github.com/songys/Question_pair, version 2 (revision e84b6f0), MIT",
    names={"same": "같음", "different": "다름"},
)
