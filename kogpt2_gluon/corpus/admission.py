"""One look at all sources of a run: each is what the kind of documents reads, or is refused by name.

Encodings are decided a file at a time, and where a file's own bytes leave two open, by the files that leave none.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from kogpt2_gluon.corpus.encodings import AUTO, ENCODINGS
from kogpt2_gluon.corpus.first_look import Look, look
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.forms import FORMS
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError, RecipeError

_THREADS = 16  # looks at a time, because each waits for a disk or network
_SHOWN = 3  # names in a message
_PACKED_FORMS = ("tar", "zip", "7z", "rar", "archive-part")
_NEARLY_TEXT = ("csv", "tsv", "wikitext")  # prose can look like these by chance
_PART = re.compile(r"(?P<whole>.*?\.[^./]+)\.(?:part)?(?P<number>\d{1,12}|[a-z]{2,4})|(?P<stem>.*)\.z\d\d", re.DOTALL)


@dataclass
class Admission:
    """The outcome of a look at all sources.

    `sources` are those that can be read, with their encodings; `refused` the others, each with its fault; `blank`
    are the names of sources that hold white space alone; `notes` say what was decided that a user may not expect.
    """

    sources: list[Source] = field(default_factory=list)
    refused: list[tuple[str, DataError]] = field(default_factory=list)
    blank: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def check(self, way: str = "--exclude 'PATTERN' or --skip-damaged") -> None:
        """Raises the fault of the first source that was refused; says how many others can be read, and the way."""
        if not self.refused:
            return
        (_, fault), *more = self.refused
        others = f"; {len(more):,} more cannot be read" if more else ""
        if self.sources:
            others += f"; {len(self.sources):,} others can: {way} goes on with them"
        raise DataError(f"{fault}{others}")


def check_encoding_name(encoding: str) -> None:
    """Raises RecipeError if a user's word is not AUTO or one of ENCODINGS."""
    if encoding not in (AUTO, *ENCODINGS):
        raise RecipeError(f"--encoding {encoding}: say {AUTO}, {', '.join(ENCODINGS[:-1])} or {ENCODINGS[-1]}")


def admit(sources: Sequence[Source], kind: Kind, encoding: str = AUTO, known: Sequence[Source] = ()) -> Admission:
    """Looks at every source; nothing is raised for those that are refused.

    `known` are sources admitted before, whose encodings count as well where a new one leaves it open.
    """
    check_encoding_name(encoding)
    found = _look_at_all(sources, encoding)
    admission = Admission()
    looks = [each for each in found if isinstance(each, Look)]
    majority = _majority(looks, known)
    parts = _parts_of_archives(sources, found)
    decided: Counter[str] = Counter()
    by_others: list[str] = []
    for source, seen in zip(sources, found):
        if source.name in parts:
            seen = Look("archive-part")
        fault = seen if isinstance(seen, DataError) else _fault_of(source, seen, kind)
        if fault is not None:
            admission.refused.append((source.name, fault))
            continue
        assert isinstance(seen, Look)
        if seen.form == "empty":
            admission.blank.add(source.name)
        chosen = _choose(seen, majority) if encoding == AUTO else seen.encoding
        if chosen != seen.encoding and seen.rival:
            by_others.append(source.name)
        decided[chosen or "utf-8"] += 1
        admission.sources.append(replace(source, encoding=chosen or "utf-8", line_end=seen.line_end, form=seen.form))
    admission.notes = _notes(admission, decided, by_others, looks)
    return admission


def _look_at_all(sources: Sequence[Source], encoding: str) -> list[Look | DataError]:
    def look_at(source: Source) -> Look | DataError:
        try:
            return look(source, encoding)
        except DataError as error:
            return error

    if len(sources) <= _THREADS:
        return [look_at(source) for source in sources]
    with ThreadPoolExecutor(_THREADS, "look") as pool:
        return list(pool.map(look_at, sources))


def _majority(looks: Sequence[Look], known: Sequence[Source]) -> str:
    """Returns the encoding of most files that leave no doubt: "utf-8" or "cp949"."""
    counts = Counter(seen.encoding for seen in looks if seen.is_sure) + Counter(source.encoding for source in known)
    return "cp949" if counts["cp949"] > counts["utf-8"] else "utf-8"


def _choose(seen: Look, majority: str) -> str:
    """Returns a file's encoding; the majority's where the file itself leaves it open."""
    if seen.is_sure or seen.encoding != "utf-8":
        return seen.encoding
    return majority if not seen.rival or seen.rival == majority else seen.encoding


def _fault_of(source: Source, seen: Look, kind: Kind) -> DataError | None:
    if seen.form in kind.forms or seen.form == "empty":
        return None
    insist = f" (plain:{kind.name} does)" if "text" in kind.forms and seen.form in _NEARLY_TEXT else ""
    return refusal(source, seen, f"--documents {kind.name} does not read it{insist}")


def refusal(source: Source, seen: Look, why: str) -> DataError:
    """Returns the error that says what a source is, why it is not read here, and what to do."""
    form = FORMS[seen.form]
    path = PurePath(source.name)
    stem = path.name[: -len("".join(path.suffixes))] if path.suffixes else f"{path.name}-text"
    part = _PART.fullmatch(source.name)
    whole = part["whole"] or f"{part['stem']}.zip" if part else source.name
    here = source.name if source.path is not None else path.name  # an object of S3 is downloaded first
    way = form.way.format(
        file=shlex.quote(here),
        out=shlex.quote(stem),
        pattern=f"'*{path.suffix}'" if path.suffix else shlex.quote(path.name),
        whole=shlex.quote(whole),
    )
    if source.path is None and "{file}" in form.way:
        way = f"download it, then {way}"
    return DataError(f"{source.name}: {form.what}; {why}; {way}")


def _parts_of_archives(sources: Sequence[Source], found: Sequence[Look | DataError]) -> set[str]:
    """Returns the names of parts of split archives: the first begins like an archive, or the others like nothing."""
    families: dict[str, list[int]] = {}
    for index, source in enumerate(sources):
        split = _PART.fullmatch(source.name)
        if split is not None:
            families.setdefault(split["whole"] or split["stem"], []).append(index)
    parts: set[str] = set()
    for members in families.values():
        first, *others = (found[index] for index in members)
        is_archive = isinstance(first, Look) and first.form in _PACKED_FORMS
        has_noise = any(isinstance(other, Look) and other.form in ("binary", "unknown") for other in others)
        if others and (is_archive or has_noise):
            parts.update(sources[index].name for index in members)
    return parts


def _notes(admission: Admission, decided: Counter[str], by_others: list[str], looks: Sequence[Look]) -> list[str]:
    notes: list[str] = []
    for encoding, count in sorted(decided.items()):
        if encoding != "utf-8":
            names = [source.name for source in admission.sources if source.encoding == encoding]
            notes.append(f"{count:,} of {sum(decided.values()):,} files read as {encoding}: {_few(names)}")
    if by_others:
        notes.append(
            f"{len(by_others):,} files could be utf-8 or cp949, and were read as most others are: {_few(by_others)}; "
            "--encoding decides otherwise"
        )
    rivals = sum(bool(seen.rival) for seen in looks) - len(by_others)
    if rivals > 0:
        notes.append(f"{rivals:,} short files could be cp949 too, and were read as utf-8, as most others are")
    return notes


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
