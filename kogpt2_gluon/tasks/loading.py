"""From the name of a task and a folder to rows that are checked, with what is known of their number."""

from __future__ import annotations

import difflib
import errno
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import xxhash

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tasks.own_table import load_own_task
from kogpt2_gluon.tasks.public import PUBLIC
from kogpt2_gluon.tasks.public.json_records import check_text
from kogpt2_gluon.tasks.public.partitions import PartitionedReader
from kogpt2_gluon.tasks.public.text_lines import shown
from kogpt2_gluon.tasks.task import CLASSIFICATION, JOINT, REGRESSION, SPLITS, TOKEN_LABELS, Row, Split, Task
from kogpt2_gluon.wording import Say, counted

_NAMED = 8  # files of a folder that a message names
_HASHES = 2**64  # how many values a hash has


def open_task(name: str) -> Task:
    """Returns a public task by its name, or a person's own by the path of its YAML file.

    RecipeError for a name of no task, with the nearest, and for whatever is wrong with the file.
    """
    if name in PUBLIC:
        return PUBLIC[name]
    path = Path(name)
    if path.suffix.lower() in (".yaml", ".yml") or is_there(path):
        return load_own_task(path)
    near = difflib.get_close_matches(name.lower().replace("_", "-"), PUBLIC, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; the tasks: {', '.join(PUBLIC)}"
    raise RecipeError(f"task {name}: no such task, and no file FILE.yaml of your own{hint}")


def find_split(task: Task, data: Path, split: str) -> Path | None:
    """Returns the file of a split below the folder `data`, or None if it is not there.

    A public file may also be there without the first folders of its name. Of a task in several locales it is the file
    of the first one. DataError if there is no such folder, and for a file that the task of a person names: without its
    dev or test rows others would take their place.
    """
    if task.parts:
        return find_split(task.parts[0], data, split)
    if not is_there(data, Path.is_dir):
        what = "is a file" if is_there(data) else "no such folder"
        raise DataError(f"{data}: {what}; name the folder of the data")
    files = task.splits[split].files if split in task.splits else ()
    for name in files:
        for candidate in _places_of(task, name):
            if is_there(data / candidate):
                return data / candidate
    if files and not _is_public(task):
        raise _not_there(task, data, split)
    return None


def is_there(path: Path, kind: Callable[[Path], bool] = Path.is_file) -> bool:
    """Returns True for a file, or what `kind` asks for; False for a name that is too long to be one."""
    try:
        return kind(path)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _is_public(task: Task) -> bool:
    public = PUBLIC.get(task.name)
    return public is not None and (public is task or public.in_locale is not None)


def _places_of(task: Task, name: str) -> Iterator[Path]:
    parts = Path(name).parts
    yield Path(name)
    if _is_public(task):
        yield from (Path(*parts[first:]) for first in range(1, len(parts)))


def read_split(task: Task, data: Path, split: str, say: Say) -> list[Row]:
    """Reads and checks the rows of a split, in the order of its file.

    `say` is called with what was read, as ``train: 60,000 rows of nsmc/ratings_train.txt (published: 150,000)``, and
    with what was left out. Of a task in several locales they are those of one after another; locales that are left out
    of training have rows for test alone. DataError, which names file and line, for a row that the task cannot have; and
    for no rows.
    """
    assert split in SPLITS
    if task.parts:
        chosen = task.parts if split == "test" else task.parts[: len(task.parts) - len(task.zero_shot)]
        return [row for part in chosen for row in read_split(part, data, split, say)]
    path = find_split(task, data, split)
    if path is None:
        raise _not_there(task, data, split)
    read = task.read.of(split) if isinstance(task.read, PartitionedReader) else task.read
    rows = []
    for row in read(path, say):
        check_row(task, row)
        rows.append(row)
    name = path.relative_to(data) if path.is_relative_to(data) else path
    if not rows:
        raise DataError(f"{path}: no rows for {split}")
    say(f"{split}: {counted(len(rows), 'row')} of {name}{_beside(task.splits[split], len(rows))}")
    for line in _remarks(task, rows):
        say(f"{split}: {line}")
    return rows


def _beside(split: Split, count: int) -> str:
    if not split.rows:
        return ""
    return " (as published)" if count == split.rows else f" (published: {split.rows:,})"


def _not_there(task: Task, data: Path, split: str) -> DataError:
    if split not in task.splits:
        return DataError(f"task {task.name}: has no {split} ({', '.join(task.splits)})")
    names = " or ".join(dict.fromkeys(task.splits[split].files))
    there = sorted(each.name for each in data.iterdir())
    more = f", and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
    have = ", ".join(there[:_NAMED]) + more if there else "nothing"
    source = f"; its source: {task.source}" if task.source else ""
    if split != "train" and not _is_public(task):
        source += f"; if there are none, leave {split} out of its files"
    return DataError(f"{data}: has no {names} for {split} of {task.name} (it has {have}){source}")


def check_row(task: Task, row: Row) -> None:
    """Raises DataError, which says where, for a row that the task cannot have."""
    if len(row.texts) != 1 + task.is_pair:
        raise DataError(f"{row.where}: {counted(len(row.texts), 'text')}, where {1 + task.is_pair} are expected")
    needs_text = task.is_pair or task.head in (TOKEN_LABELS, JOINT)
    for text in row.texts:
        check_text(row.where, text)
        if needs_text and not text.strip():
            raise DataError(f"{row.where}: an empty text")
    if task.head in (CLASSIFICATION, JOINT) and row.label not in task.labels:
        raise DataError(f"{row.where}: the label {shown(row.label)} is none of {shown(', '.join(task.labels), 200)}")
    if task.head == REGRESSION:
        lowest, highest = task.value_range
        if not math.isfinite(row.value) or not lowest <= row.value <= highest:
            raise DataError(f"{row.where}: the value {row.value:g} is not from {lowest:g} to {highest:g}")
    if task.head in (TOKEN_LABELS, JOINT):
        _check_spans(task, row)


def _check_spans(task: Task, row: Row) -> None:
    end = 0
    for span in row.spans:
        if span.kind not in task.kinds:
            kinds = shown(", ".join(task.kinds), 200)
            raise DataError(f"{row.where}: the kind {shown(span.kind)} of a span is none of {kinds}")
        if not end <= span.begin < span.end <= len(row.texts[0]):
            raise DataError(
                f"{row.where}: a span from {span.begin} to {span.end} after {end}, in a text of {len(row.texts[0])} "
                "characters; spans are in order, do not overlap, and are not empty"
            )
        end = span.end


def _remarks(task: Task, rows: Sequence[Row]) -> Iterator[str]:
    """Yields what is unusual in rows that are all admissible."""
    if empty := sum(not any(map(str.strip, row.texts)) for row in rows):
        yield f"{counted(empty, 'row')} without text among them"
    if task.head in (CLASSIFICATION, JOINT):
        counts = Counter(row.label for row in rows)
        if missing := [label for label in task.labels if label not in counts]:
            yield f"no row has the label {shown(' or '.join(missing), 200)}"


def split_dev(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Splits rows in two, of which the second has about `share` of the different texts; the order is kept.

    A hash of a row's texts and the seed decides, so that rows with the same texts are on one side, whatever the order
    of the rows and whatever rows come or go. RecipeError for a share that is not between 0 and 1; DataError if all rows
    have the same texts.
    """
    if not 0 < share < 1:
        raise RecipeError(f"a share of {share:g} of the rows cannot be held out; it is between 0 and 1")
    hashes = [_hash_of(row, seed) for row in rows]
    lowest, highest = min(hashes, default=0), max(hashes, default=0)
    if lowest == highest:
        raise DataError(f"{counted(len(rows), 'row')} with one and the same text: nothing can be held out of them")
    # Of few rows perhaps all are on one side: then the one nearest to the other side changes it.
    limit = min(max(int(share * _HASHES), lowest + 1), highest)
    train = [row for row, value in zip(rows, hashes) if value >= limit]
    dev = [row for row, value in zip(rows, hashes) if value < limit]
    return train, dev


def _hash_of(row: Row, seed: int) -> int:
    digest = xxhash.xxh3_64(seed=seed % _HASHES)
    for text in row.texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.intdigest()
