"""NSMC: is a review of a film negative or positive?

The public file has a line ``id document label`` and a review a line, with tabs. Copies have no column for the id, or
the columns in another order. Some reviews have no text (3 of test, e9t/nsmc issue 2): they are rows as the others.
Under this name other data is handed round too, such as KFromage/nsmc with 3,000 rows of comments; the number of rows
shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.published import KOGPT2, KOGPT2_2, lm_kor
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.task import CLASSIFICATION, Published, Row, Split, Task

CLASSES = {"0": "negative", "1": "positive"}
COLUMNS = {"text": ("document",), "label": ("label",)}


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the rows of a file of NSMC."""
    for where, fields in read_table(path, say, COLUMNS):
        yield Row((fields["text"],), class_of(where, fields["label"], CLASSES), where=where)


NSMC = Task(
    name="nsmc",
    about="Naver sentiment movie corpus: is a review of a film negative or positive?",
    head=CLASSIFICATION,
    read=read,
    splits={
        "train": Split(("nsmc/ratings_train.txt", "nsmc/rebuilt_ratings_train.txt"), 150_000),
        "test": Split(("nsmc/ratings_test.txt", "nsmc/rebuilt_ratings_test.txt"), 50_000),
    },
    metrics=("accuracy",),
    labels=tuple(CLASSES.values()),
    published=(
        Published("KoGPT-2", "accuracy", 0.899, "test", KOGPT2),
        Published("KoGPT-2 version 2", "accuracy", 0.891, "test", KOGPT2_2),
        Published("KoBERT (SKT)", "accuracy", 0.901, "test", KOGPT2),
        Published("BERT base multilingual cased", "accuracy", 0.875, "test", KOGPT2),
        *lm_kor("accuracy", "test", 89.59, 90.06, 89.87, 90.63, 89.45, 90.87, 91.29, 91.36),
    ),
    source="https://github.com/e9t/nsmc, version 1.0 (revision cc0670e), CC0 1.0",
    names={"negative": "부정", "positive": "긍정"},
)
