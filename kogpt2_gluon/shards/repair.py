"""Makes a damaged set of shards usable again, from the shards that are whole.

A repair takes these steps, in this order, so that it can be interrupted and run again:

- A wrong or missing tokenizer is copied from a set next to this one, if one has the right file.
- Damaged shards, and whole ones that do not belong to the set, are moved into ``damaged/`` below the folder. Nothing is
  ever deleted, and no shard's bytes are changed.
- Shards whose names were swapped get their names back, by their hashes.
- A new manifest names the shards that are left, in the old one's order if that can be read, else in the order of names.

All chunks before a set's last are full, so the shards after a lost one still fit. The document that ran into the lost
shard then runs on with the rest of the one that came out of it, or stops short: a gap cuts two documents at most, in
sequences that run across documents anyway. The manifest's `source` says which shards were lost, so that `verify` knows
these cuts.

The counts of the text's bytes, words and unknown tokens exist in the manifest alone. They are taken from the old one if
nothing was lost, and otherwise counted again from the tokens, which needs the set's tokenizer (see :mod:`.recount`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.check import Index, Layout
from kogpt2_gluon.shards.folders import ASIDE, SUFFIX
from kogpt2_gluon.shards.format import SHARD_NAME, Manifest, ShardInfo
from kogpt2_gluon.shards.recount import recount
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.verify import REPAIRED, SetReport, VerifyReport
from kogpt2_gluon.storage.files import move, write_file
from kogpt2_gluon.storage.tokenizer_file import NAMES, tokenizer_in
from kogpt2_gluon.wording import counted, silent

NUMBERED = re.compile(rf"(.+)-([0-9]{{5}}){re.escape(SUFFIX)}")
MOST_GAPS = 1000  # if more numbers than these are left out between names, they do not number shards


@dataclass
class Repair:
    """The actions of a repair of one folder, as lines for a person, and what its set lost."""

    folder: str
    actions: list[str] = field(default_factory=list)
    lost_shards: list[str] = field(default_factory=list)
    lost_tokens: int = 0  # counted for shards that the old manifest names
    lost_documents: int = 0

    def lines(self) -> list[str]:
        """Returns every action, and the loss, each as a line."""
        lines = [f"{self.folder}: {action}" for action in self.actions]
        if self.lost_shards:
            lost = f"{counted(self.lost_tokens, 'token')}, {counted(self.lost_documents, 'document')}"
            lines.append(
                f"{self.folder}: lost {', '.join(self.lost_shards)}{f' ({lost})' if self.lost_tokens else ''}; "
                "documents are cut where these shards are missing"
            )
        return lines


@dataclass
class Repairs:
    """The result of :func:`repair_sets`: the reports before and after, the repairs, and why the rest is as it was."""

    before: VerifyReport
    after: VerifyReport  # the one before, if nothing was repaired
    done: list[Repair]
    refused: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Returns for JSON the last report with ``refused`` and, if a set was repaired, ``repaired`` and ``before``."""
        plain = self.after.to_dict()
        if self.done:
            plain |= {"repaired": [asdict(each) for each in self.done], "before": self.before.to_dict()}
        return {**plain, "refused": self.refused}


def repair_sets(
    report: VerifyReport, verify_again: Callable[[], VerifyReport], say: Callable[[str], object] = silent
) -> Repairs:
    """Repairs every set of a report that has faults and can be repaired, and checks all of them again.

    `say` is called with each line of a repair as soon as that is done, then with the faults that are left.
    """
    done = []
    for each in report.sets:
        if each.faults and not why_not(each):
            done.append(repair_set(each))
            for line in done[-1].lines():
                say(line)
    after = verify_again() if done else report
    if done:
        for line in [*map(str, after.faults), after.summary()]:
            say(line)
    return Repairs(report, after, done, refusals(after))


def refusals(report: VerifyReport) -> list[str]:
    """Returns why sets with faults cannot be repaired: a line for each of them."""
    return [reason for each in report.sets if each.faults and (reason := why_not(each))]


def is_beyond_repair(report: VerifyReport) -> bool:
    """Returns True if no set with faults can be repaired."""
    return len(refusals(report)) == sum(bool(each.faults) for each in report.sets)


def repair_set(report: SetReport) -> Repair:
    """Repairs the folder of a report. DataError, before anything is changed, if it cannot be repaired."""
    done, folder = Repair(report.folder), Path(report.folder)
    if not report.faults:
        return done
    keep, manifest, tokenizer = _plan(report, done)
    if tokenizer:
        _replace_tokenizer(folder, tokenizer, done)
    for name in sorted(report.indexes.keys() - keep.values()):
        done.actions.append(f"{name}: moved to {_move_aside(folder, name)}")
    _rename(folder, keep, done)
    if report.manifest is None or done.lost_shards:
        recount(folder, manifest)
        syllables = f", with a Hangul syllable for each of {counted(manifest.unknown, 'unknown token')}"
        done.actions.append(
            f"counted {counted(manifest.text_bytes, 'text byte')} and {counted(manifest.words, 'word')} "
            f"from the tokens{syllables if manifest.unknown else ''}"
        )
    manifest.save(folder)
    ShardSet(folder).close()  # raises an error if the set cannot be loaded
    done.actions.append(
        f"wrote a manifest of {counted(len(keep), 'shard')}, {counted(manifest.tokens, 'token')}, "
        f"{counted(manifest.documents, 'document')}"
    )
    return done


def why_not(report: SetReport) -> str:
    """Returns why :func:`repair_set` cannot repair a set with faults, or "" if it can. Changes nothing."""
    try:
        _plan(report, Repair(report.folder))
    except DataError as error:
        return str(error)
    return ""


def _plan(report: SetReport, done: Repair) -> tuple[dict[str, str], Manifest, Path | None]:
    """Returns {the right name of a shard: its present name}, the new manifest, and the tokenizer to copy, if any."""
    keep = _choose(report, done)
    _check_fits(report, keep)
    manifest = _new_manifest(report, keep, done)
    tokenizer = None
    if report.tokenizer_sha256 != manifest.tokenizer_sha256:
        tokenizer = _find_tokenizer(report, manifest.tokenizer_sha256)
    elif manifest == report.manifest and set(keep.items()) == {(name, name) for name in report.indexes}:
        raise DataError(f"{report.faults[0]}; no repair can fix that")
    return keep, manifest, tokenizer


def _choose(report: SetReport, done: Repair) -> dict[str, str]:
    """Returns the whole shards of the set, in its order: {the right name of a shard: its present name}."""
    whole = {name: index for name, index in report.indexes.items() if report.is_whole(name)}
    if report.manifest is None:
        keep = _choose_by_footer(whole)
        done.lost_shards += sorted({*(report.indexes.keys() - whole.keys()), *_gaps(list(keep))})
        return keep
    keep = {}
    for info in report.manifest.shards:
        having = [name for name, index in whole.items() if index.hash == info.hash]
        if having:
            keep[info.name] = info.name if info.name in having else having[0]
        else:
            done.lost_shards.append(info.name)
            done.lost_tokens += info.tokens
            done.lost_documents += info.documents
    return keep


def _choose_by_footer(whole: dict[str, Index]) -> dict[str, str]:
    """Chooses the shards without a manifest: of the tokenizer and format that most tokens have, each once, by name."""
    tokens: Counter[Layout] = Counter()
    for index in whole.values():
        tokens[_kind(index)] += _layout(index).tokens
    kind = tokens.most_common(1)[0][0] if tokens else None
    seen: set[str] = set()
    keep = {}
    for name, index in sorted(whole.items()):
        if _kind(index) == kind and index.hash not in seen and SHARD_NAME.fullmatch(name):
            seen.add(index.hash)
            keep[name] = name
    return keep


def _gaps(names: Sequence[str]) -> list[str]:
    """Returns the numbered names missing before and between `names`, as train-00001.ktok is between 0 and 2."""
    found = [match for match in map(NUMBERED.fullmatch, names) if match]
    there = {int(match[2]) for match in found}
    prefix = found[0][1] if found else ""
    missing = set(range(max(there, default=-1) + 1)) - there
    return [f"{prefix}-{number:05d}{SUFFIX}" for number in missing] if len(missing) <= MOST_GAPS else []


def _layout(index: Index) -> Layout:
    assert index.layout is not None  # of a whole shard
    return index.layout


def _kind(index: Index) -> Layout:
    """Returns the part of a shard's layout that all shards of one set have in common."""
    return replace(_layout(index), tokens=0, documents=0, document_ends_hash="")


def _check_fits(report: SetReport, keep: dict[str, str]) -> None:
    if not keep:
        if report.chunks > len(report.faults) and all(fault.chunk is not None for fault in report.faults):
            raise DataError(
                f"{report.folder}: no whole shard is left to make a set of; data.corrupt=skip trains without the "
                "damaged chunks, or make the set again"
            )
        raise DataError(f"{report.folder}: no whole shard is left to make a set of; make it again")
    for name in list(keep.values())[:-1]:
        layout = _layout(report.indexes[name])
        if layout.tokens % layout.chunk_tokens:
            raise DataError(
                f"{report.folder}: {name} ends within a chunk, so it was the last of its set, but others follow it; "
                "move away the shards that are not of the same set, and repair again"
            )


def _new_manifest(report: SetReport, keep: dict[str, str], done: Repair) -> Manifest:
    old = report.manifest
    kept = {name: report.indexes[having] for name, having in keep.items()}
    layouts = [_layout(index) for index in kept.values()]
    first = layouts[0]
    source = old.source if old else "unknown"
    special = dict(first.special_ids)
    if done.lost_shards or old is None:
        source += REPAIRED + ", ".join([*done.lost_shards, *([] if old else ["the old manifest"])]) + " lost"
    return Manifest(
        split=old.split if old else next(iter(kept)).rpartition("-")[0] or "train",
        dtype=first.dtype,
        chunk_bytes=first.chunk_bytes,
        vocab_size=first.vocab_size,
        tokenizer_sha256=first.tokenizer_sha256,
        special_ids=old.special_ids if old and old.special_ids == special else special,
        source=source,
        tokens=sum(layout.tokens for layout in layouts),
        documents=sum(layout.documents for layout in layouts),
        text_bytes=old.text_bytes if old else 0,
        words=old.words if old else 0,
        unknown=old.unknown if old else 0,
        shards=[
            ShardInfo(name, index.size, _layout(index).tokens, _layout(index).documents, index.hash)
            for name, index in kept.items()
        ],
    )


def _find_tokenizer(report: SetReport, sha256: str) -> Path:
    """Finds the set's tokenizer in a set next to it, as test/ is to train/. DataError if it is not there."""
    folder = Path(report.folder)
    for path in sorted(path for name in NAMES for path in folder.absolute().parent.glob(f"*/{name}")):
        try:
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                return path
        except OSError:  # we may not read this one
            continue
    fault = "not the tokenizer" if report.tokenizer_sha256 else "missing: the tokenizer"
    raise DataError(
        f"{tokenizer_in(folder)}: {fault} of these shards, SHA-256 {sha256}; put the right file back, and repair again"
    )


def _replace_tokenizer(folder: Path, right: Path, done: Repair) -> None:
    data = right.read_bytes()
    for name in NAMES:
        if os.path.lexists(folder / name):
            done.actions.append(f"{name}: moved to {_move_aside(folder, name)}")
    write_file(folder / right.name, data)
    done.actions.append(f"{right.name}: copied from {right}, the tokenizer of these shards")


def _move_aside(folder: Path, name: str) -> str:
    (folder / ASIDE).mkdir(exist_ok=True)
    target, number = folder / ASIDE / name, 1
    while target.exists():
        number += 1
        target = folder / ASIDE / f"{name}.{number}"
    move(folder / name, target)
    return f"{ASIDE}/{target.name}"


def _rename(folder: Path, keep: dict[str, str], done: Repair) -> None:
    """Gives swapped shards their names back, by way of names that no shard has: shards can be swapped in a circle."""
    wrong = {name: having for name, having in keep.items() if name != having}
    for name, having in wrong.items():
        move(folder / having, folder / f"renaming-{name}")
        done.actions.append(f"{having}: renamed to {name}, which it is")
    for name in wrong:
        move(folder / f"renaming-{name}", folder / name)
