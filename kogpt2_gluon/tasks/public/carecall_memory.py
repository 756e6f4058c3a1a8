"""CareCall-memory: what becomes of a remembered sentence and a new one: pass, append, replace or delete?

A memory of a person is a list of sentences. After a call each of them is compared with each new sentence (Bae et al.,
2022, Keep Me Updated!): pass keeps the old one, append keeps both, replace keeps the new one, delete keeps neither.

**Licence**: use for research without commerce; neither changed nor handed on. The pairs with their operations were not
published, but the memory before a call, the new sentences and the memory before the next one. What became of a pair
follows from these where it cannot have been another pair's doing; all other pairs are left out, which is said.

Own pairs are a table with tabs and the columns memory, summary and operation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.json_records import check_text, read_json_arrays, text_of
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Split, Task
from kogpt2_gluon.wording import counted

OPERATIONS = ("pass", "append", "replace", "delete")
CLASSES = {spelling: each for each in OPERATIONS for spelling in (each, each.upper(), each.capitalize())}
COLUMNS = {"first": ("memory",), "second": ("summary",), "label": ("operation",)}
_SESSION = re.compile(r"(.*)-S(\d{1,9})")  # guid: "interactive-35-S2"
# (is the old sentence kept, is the new one)
_OPERATION = {(True, False): "pass", (True, True): "append", (False, True): "replace", (False, False): "delete"}


def read(path: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields pairs of sentences: of a table, or of the public sessions if the name ends in .json."""
    if path.suffix.lower() != ".json":
        for where, fields in read_table(path, say, COLUMNS):
            label = class_of(where, fields["label"], CLASSES)
            yield Row((fields["first"], fields["second"]), label, where=where)
        return
    left_out: Counter[str] = Counter()
    for where, sessions in read_json_arrays(path):
        for before, after in zip(sessions, sessions[1:]):
            yield from _pairs(where, before, after, left_out)
    for reason, count in left_out.items():
        say(f"{path.name}: left out {counted(count, 'pair')} {reason}")


def _pairs(where: str, before: dict[str, Any], after: dict[str, Any], left_out: Counter[str]) -> Iterator[Row]:
    """Yields the pairs of a session whose operation follows from the memories before and after it."""
    guid = text_of(where, before, "guid")
    here = f"{where} ({guid})"
    old, new = _sentences(here, before, "memory"), _sentences(here, before, "summary")
    kept = set(_sentences(here, after, "memory"))
    pairs = [(first, second) for first in old for second in new]
    if not _follows(guid, text_of(where, after, "guid")):
        left_out["of a session that the next one is missing of"] += len(pairs)
        return
    if not kept <= {*old, *new}:
        left_out["of a session whose sentences were rewritten"] += len(pairs)
        return
    for first, second in pairs:
        keeps_old, keeps_new = first in kept, second in kept
        # A sentence that is gone can be another pair's doing unless there is only one sentence to compare it with.
        if (keeps_old or len(new) == 1) and (keeps_new or len(old) == 1):
            yield Row((first, second), _OPERATION[keeps_old, keeps_new], where=here)
        else:
            left_out["whose operation does not follow from the memories"] += 1


def _follows(guid: str, other: str) -> bool:
    first, second = _SESSION.fullmatch(guid), _SESSION.fullmatch(other)
    if first is None or second is None:
        return False
    return first[1] == second[1] and int(first[2]) + 1 == int(second[2])


def _sentences(where: str, session: dict[str, Any], key: str) -> list[str]:
    found = session.get(key)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise DataError(f"{where}: {key} is not a list of texts")
    for each in found:
        check_text(where, each)
    return list(dict.fromkeys(each for each in found if each.strip()))


CARECALL_MEMORY = Task(
    name="carecall-memory",
    about="CareCall-memory: what becomes of a remembered sentence and a new one?",
    head=CLASSIFICATION,
    read=read,
    splits={
        "train": Split(
            (
                "carecall-memory/data/carecall-memory.json",
                "carecall-memory/train.tsv",
                "carecall-memory/data/carecall-memory-sample.json",
            )
        ),
        "dev": Split(("carecall-memory/dev.tsv",)),
        "test": Split(("carecall-memory/test.tsv",)),
    },
    metrics=("macro_f1", "accuracy"),
    labels=OPERATIONS,
    is_pair=True,
    source="https://github.com/naver-ai/carecall-memory (revision ba45381), NAVER Corp., for research without commerce",
    names={"pass": "유지", "append": "추가", "replace": "교체", "delete": "삭제"},
)
