"""A sharding that was interrupted: what is finished of it, and the block of the corpus at which it resumes.

``OUT.work`` has the folder ``set``, which becomes `OUT` when it is whole, and ``state.json``, written each time a shard
is finished. A shard ends within a block, and the tokens of earlier blocks may still have been in memory then. So the
state names the last block that begins in a finished shard; a resume tokenizes it again and leaves out its first tokens.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.corpus.store import CORPUS_FILE, Corpus
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.format import MANIFEST, Manifest, ShardInfo
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.storage.work_folder import Plan, Stage, other_plan

STATE_FILE = "state.json"
SET_FOLDER = "set"
FORMAT = "kogpt2-sharding"


@dataclass(frozen=True)
class Start:
    """A place in the corpus: `block` blocks come before it, with these counts of the manifest."""

    block: int = 0
    tokens: int = 0
    documents: int = 0
    text_bytes: int = 0
    words: int = 0
    unknown: int = 0

    @classmethod
    def of(cls, block: int, manifest: Manifest) -> Start:
        """Returns the start of a block; the manifest counts all blocks before it."""
        counts = ("tokens", "documents", "text_bytes", "words", "unknown")
        return cls(block, *(getattr(manifest, name) for name in counts))


class State:
    """Keeps ``state.json`` up to date while the set is written.

    Attributes
    ----------
    start : Start
        Where to go on: the beginning, or what the file says.
    shards : list of ShardInfo
        The finished shards.
    """

    def __init__(self, work: Path) -> None:
        self._path = work / STATE_FILE
        self.start, self.shards = Start(), list[ShardInfo]()
        if self._path.is_file():
            self._load(work / SET_FOLDER)
        self._starts = deque([self.start])

    def _load(self, folder: Path) -> None:
        try:
            plain = json.loads(self._path.read_bytes())
            self.start = Start(**plain["start"])
            self.shards = [ShardInfo(**shard) for shard in plain["shards"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._path}: damaged ({error}); say --restart to start from the beginning") from None
        for shard in self.shards:
            path = folder / shard.name
            if not path.is_file() or path.stat().st_size != shard.bytes:
                raise DataError(f"{path}: not as it was finished; say --restart to start from the beginning")

    def restore(self, manifest: Manifest) -> None:
        """Gives a new manifest the counts at `start`, and the finished shards."""
        for name, count in asdict(self.start).items():
            if name != "block":
                setattr(manifest, name, count)
        manifest.shards = list(self.shards)

    @property
    def skip(self) -> int:
        """Tokens from `start` on that are in finished shards."""
        return sum(shard.tokens for shard in self.shards) - self.start.tokens

    def note(self, block: int, manifest: Manifest) -> None:
        """Takes note of what was written up to the beginning of `block`; writes the state if a shard was finished."""
        new = len(manifest.shards) > len(self.shards)
        self._starts.append(Start.of(block, manifest))
        if not new:
            return
        finished = sum(shard.tokens for shard in manifest.shards)
        while len(self._starts) > 1 and self._starts[1].tokens <= finished:
            self._starts.popleft()
        self.start, self.shards = self._starts[0], list(manifest.shards)
        plain = {"start": asdict(self.start), "shards": [asdict(shard) for shard in self.shards]}
        write_file(self._path, json.dumps(plain).encode())


def has_shards(work: Path) -> bool:
    """Returns True if a work folder has a finished shard."""
    return (work / STATE_FILE).is_file()


def make_plan(corpus: Corpus, manifest: Manifest, release: str) -> Plan:
    """Returns everything that the shards depend on, as plain data."""
    split = manifest.split
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in corpus.files(split)]
    return {
        "release": release,
        "split": split,
        "tokenizer": manifest.tokenizer_sha256,
        "chunk_bytes": manifest.chunk_bytes,
        "corpus": str(corpus.folder.resolve()),
        "files": files,
    }


def _refuse(work: Path, old: Plan, new: Plan) -> None:
    words = {"chunk_bytes": "chunks of {} bytes", "files": "the corpus's text changed"}
    changes = []
    for name in new:
        if old.get(name) != new[name]:
            changes.append(words.get(name, f"the {name} {{}}").format(_short(new[name])))
    raise other_plan(work, "sharding", changes)


def _short(value: Any) -> str:
    return str(value)[:60]


STAGE = Stage("shard", FORMAT, has_shards, _refuse)


def is_finished(out: Path, corpus: Corpus, manifest: Manifest) -> Manifest | None:
    """Returns the manifest of the set in `out` if it is of this corpus and tokenizer, and younger than the corpus."""
    if not (out / MANIFEST).is_file():
        return None
    found = Manifest.load(out)
    wanted = ("split", "tokenizer_sha256", "chunk_bytes", "dtype", "special_ids")
    same = all(getattr(found, name) == getattr(manifest, name) for name in wanted)
    same = same and Path(found.source).resolve() == corpus.folder.resolve()
    same = same and found.documents == corpus.count(manifest.split)
    made, cleaned = (
        (folder / name).stat().st_mtime_ns for folder, name in ((out, MANIFEST), (corpus.folder, CORPUS_FILE))
    )
    return found if same and made >= cleaned else None
