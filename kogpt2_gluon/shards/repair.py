"""Makes a damaged set of shards usable again, from the shards that are whole.

What is done, in this order, so that it can be interrupted and run again:

- A wrong or missing tokenizer.model is copied from a set beside this one, if one has the right file.
- Damaged shards, and whole ones that belong to no place of the set, are moved into ``damaged/`` below the folder;
  nothing is ever deleted, and no shard's bytes are changed.
- Shards whose names were swapped get their names back, by their hashes.
- A new manifest names what is left, in the old one's order if that can be read, else in the order of names.

Chunks before a set's last are all full, so shards behind a lost one still fit. The document that ran into the lost
shard then runs on with the rest of the one that came out of it, or stops short: two documents a gap are cut at most, in
sequences that run across documents anyway. The manifest's `source` says which shards were lost, and `verify` then takes
such cuts for what they are.

The text's bytes, words and unknown tokens stand in the manifest alone. They are taken from the old one if nothing was
lost, and counted again from the tokens otherwise, which needs the set's tokenizer beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.check import Index, Layout
from kogpt2_gluon.shards.file_pool import FilePool
from kogpt2_gluon.shards.folders import ASIDE
from kogpt2_gluon.shards.format import SHARD_NAME, TOKENIZER, Manifest, ShardInfo, Tokens
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.verify import REPAIRED, SetReport
from kogpt2_gluon.storage.files import move, write_file
from kogpt2_gluon.tokens.counts import TokenCounter
from kogpt2_gluon.tokens.tokenizer import SPACE, Tokenizer

NUMBERED = re.compile(r"(.+)-([0-9]{5})\.ktok")
MOST_GAPS = 1000  # of numbers left out, beyond which they are no numbers of shards
PLACEHOLDER = "가"  # stands for an unknown character: most of them are Hangul, three bytes each


@dataclass
class Repair:
    """What was done to one folder, in lines for a person, and what the set lost by it."""

    folder: str
    actions: list[str] = field(default_factory=list)
    lost_shards: list[str] = field(default_factory=list)
    lost_tokens: int = 0  # of those the old manifest knew
    lost_documents: int = 0

    def lines(self) -> list[str]:
        """What a person is told."""
        lines = [f"{self.folder}: {action}" for action in self.actions]
        if self.lost_shards:
            count = f" ({self.lost_tokens:,} tokens, {self.lost_documents:,} documents)" if self.lost_tokens else ""
            lines.append(
                f"{self.folder}: lost {', '.join(self.lost_shards)}{count}; the documents that ran into them or out of "
                "them are cut"
            )
        return lines


def repair_set(report: SetReport) -> Repair:
    """Repairs the folder of a report; DataError, before anything is changed, if that cannot be done."""
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
        _recount(folder, manifest, done)
    manifest.save(folder)
    ShardSet(folder).close()  # it loads, or it says why not
    done.actions.append(
        f"wrote a manifest of {len(keep)} shards, {manifest.tokens:,} tokens, {manifest.documents:,} documents"
    )
    return done


def why_not(report: SetReport) -> str:
    """Why :func:`repair_set` cannot mend a set with faults; "" if it can. Changes nothing."""
    try:
        _plan(report, Repair(report.folder))
    except DataError as error:
        return str(error)
    return ""


def _plan(report: SetReport, done: Repair) -> tuple[dict[str, str], Manifest, Path | None]:
    """Name that a shard is to have -> name that it has; the new manifest; the right tokenizer, if it is elsewhere."""
    keep = _choose(report, done)
    _check_fits(report, keep)
    manifest = _new_manifest(report, keep, done)
    tokenizer = None
    if report.tokenizer_sha256 != manifest.tokenizer_sha256:
        tokenizer = _find_tokenizer(report, manifest.tokenizer_sha256)
    elif manifest == report.manifest and set(keep.items()) == {(name, name) for name in report.indexes}:
        raise DataError(f"{report.faults[0]}; no repair can mend that")
    return keep, manifest, tokenizer


def _choose(report: SetReport, done: Repair) -> dict[str, str]:
    """Which whole shards make up the set: the name that each is to have, in the set's order -> the name it has."""
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
    """Without a manifest: the shards of the tokenizer and format that most tokens have, each once, by name."""
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
    """Names that the numbers in `names` leave out, before and between them: train-00001.ktok, of 0 and 2."""
    found = [match for match in map(NUMBERED.fullmatch, names) if match]
    there = {int(match[2]) for match in found}
    prefix = found[0][1] if found else ""
    missing = set(range(max(there, default=-1) + 1)) - there
    return [f"{prefix}-{number:05d}.ktok" for number in missing] if len(missing) <= MOST_GAPS else []


def _layout(index: Index) -> Layout:
    assert index.layout is not None  # of a whole shard
    return index.layout


def _kind(index: Index) -> Layout:
    """What the shards of one set have in common."""
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
    """The set's tokenizer in a set beside it: train/ and test/ have the same. DataError if it is not there."""
    folder = Path(report.folder)
    for path in sorted(folder.absolute().parent.glob(f"*/{TOKENIZER}")):
        try:
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                return path
        except OSError:  # not for us to read
            continue
    fault = "not the tokenizer" if report.tokenizer_sha256 else "missing: the tokenizer"
    raise DataError(
        f"{folder / TOKENIZER}: {fault} of these shards, SHA-256 {sha256}; put the right file back, and repair again"
    )


def _replace_tokenizer(folder: Path, right: Path, done: Repair) -> None:
    data = right.read_bytes()
    if os.path.lexists(folder / TOKENIZER):
        done.actions.append(f"{TOKENIZER}: moved to {_move_aside(folder, TOKENIZER)}")
    write_file(folder / TOKENIZER, data)
    done.actions.append(f"{TOKENIZER}: copied from {right}, the tokenizer of these shards")


def _move_aside(folder: Path, name: str) -> str:
    (folder / ASIDE).mkdir(exist_ok=True)
    target, number = folder / ASIDE / name, 1
    while target.exists():
        number += 1
        target = folder / ASIDE / f"{name}.{number}"
    move(folder / name, target)
    return f"{ASIDE}/{target.name}"


def _rename(folder: Path, keep: dict[str, str], done: Repair) -> None:
    """Gives swapped shards their names, over names that no shard has: a cycle of names leaves no other way."""
    wrong = {name: having for name, having in keep.items() if name != having}
    for name, having in wrong.items():
        move(folder / having, folder / f"renaming-{name}")
        done.actions.append(f"{having}: renamed to {name}, which it is")
    for name in wrong:
        move(folder / f"renaming-{name}", folder / name)


def _recount(folder: Path, manifest: Manifest, done: Repair) -> None:
    """Counts text bytes, words and unknown tokens of what is left, over the whole set."""
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    counter = TokenCounter(tokenizer)
    spelling = _spelling(tokenizer)
    manifest.text_bytes = manifest.words = manifest.unknown = 0
    for ids, lengths in _documents(folder, manifest, tokenizer):
        text_bytes, words = counter.count(ids, lengths, _Texts(spelling, ids, lengths))
        manifest.text_bytes += int(text_bytes.sum())
        manifest.words += int(words.sum())
        manifest.unknown += int((ids == tokenizer.unk_id).sum())
    exact = f", and {manifest.unknown:,} unknown tokens taken for one Hangul syllable each" if manifest.unknown else ""
    done.actions.append(
        f"counted {manifest.text_bytes:,} text bytes and {manifest.words:,} words from the tokens{exact}"
    )


def _documents(
    folder: Path, manifest: Manifest, tokenizer: Tokenizer
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Ids of whole documents, without <s> and </s>, and how many each has; a chunk's worth at a time.

    The chunks were checked a moment ago, and the manifest that a ShardSet needs is not written yet.
    """
    left: NDArray[np.int32] = np.empty(0, np.int32)
    for part in _chunks(folder, manifest):
        tokens = np.concatenate([left, part.astype(np.int32)])
        ends = np.flatnonzero(tokens == tokenizer.eos_id) + 1
        if len(ends):
            yield _without_borders(tokens[: ends[-1]], ends, tokenizer)
            left = tokens[ends[-1] :]
        else:
            left = tokens
    if len(left):  # a document that was cut at the set's end
        yield _without_borders(left, np.array([len(left)]), tokenizer)


def _chunks(folder: Path, manifest: Manifest) -> Iterator[Tokens]:
    pool, buffer = FilePool(), np.empty(manifest.chunk_bytes, np.uint8)
    itemsize = np.dtype(manifest.dtype).itemsize
    try:
        for info in manifest.shards:
            for offset in range(0, info.tokens * itemsize, manifest.chunk_bytes):
                part = buffer[: min(manifest.chunk_bytes, info.tokens * itemsize - offset)]
                if pool.read(folder / info.name, part.data, offset, drop=True) < len(part):
                    raise DataError(f"{folder / info.name}: ends before byte {offset + len(part):,}")
                yield part.view(manifest.dtype)
    finally:
        pool.close()


def _without_borders(
    tokens: NDArray[np.int32], ends: NDArray[np.int64], tokenizer: Tokenizer
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    text = (tokens != tokenizer.bos_id) & (tokens != tokenizer.eos_id)
    return tokens[text], np.diff(np.cumsum(text)[ends - 1], prepend=0)


def _spelling(tokenizer: Tokenizer) -> list[bytes]:
    """What each id adds to a text, in UTF-8; what is unknown, one syllable."""
    table = []
    for token, piece in enumerate(tokenizer.pieces):
        if tokenizer.byte_ids[token]:
            table.append(bytes([int(piece[3:5], 16)]))  # <0xEA>
        elif token == tokenizer.unk_id:
            table.append(PLACEHOLDER.encode())
        else:
            table.append(b"" if tokenizer.is_special(token) else piece.replace(SPACE, " ").encode())
    return table


class _Texts(Sequence[bytes]):
    """The texts of documents, put together only if they are asked for."""

    def __init__(self, spelling: list[bytes], ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        self._spelling, self._ids = spelling, ids
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        assert not isinstance(index, slice)
        ids = self._ids[self._ends[index - 1] if index else 0 : self._ends[index]]
        text = b"".join([self._spelling[token] for token in ids.tolist()])
        return text.decode("utf-8", "replace").encode()  # a character of byte pieces can be cut in two
