"""The record of a chain, FOLDER/chain.json: what each stage was begun with, and what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.chain.data_files import KnownData
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.storage.links import read_file

RECORD_FILE, VERSION = "chain.json", 1


@dataclass
class Entry:
    """A stage that was begun.

    Attributes
    ----------
    settings : dict
        All that decides its result, by dotted keys, but for its inputs.
    inputs : dict
        {path, or a reference: fingerprint}.
    done : bool
    seconds : float
        Over all its starts.
    result : str
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    done: bool = False
    seconds: float = 0.0
    result: str = ""


@dataclass
class Record:
    """The entries of a chain's folder, by the names of stages.

    `known` has fingerprints of large data, which is not read again as long as its files are as they were.
    """

    folder: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    known: KnownData = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Record:
        """Reads the record; an empty one if there is none. DataError if it is not what a chain writes there."""
        path = folder / RECORD_FILE
        if not path.exists():
            return cls(folder)
        try:
            plain = json.loads(read_file(path).decode())
            entries = {name: Entry(**each) for name, each in plain["stages"].items()}
            is_right = plain["version"] == VERSION and all(_is_right(each) for each in entries.values())
            known = plain.get("known", {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            is_right = False
        if not is_right:
            raise DataError(f"{path}: is not the record of a chain; name another folder with --out") from None
        return cls(folder, entries, known if _is_known(known) else {})

    def save(self) -> None:
        """Writes the record, durably."""
        plain = {"version": VERSION, "stages": {name: asdict(each) for name, each in self.entries.items()}}
        plain |= {"known": self.known} if self.known else {}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / RECORD_FILE, json.dumps(plain, ensure_ascii=False, indent=1).encode())


def _is_known(known: Any) -> bool:
    return isinstance(known, dict) and all(
        isinstance(each, list) and len(each) == 2 and all(isinstance(text, str) for text in each)
        for each in known.values()
    )


def _is_right(entry: Entry) -> bool:
    return (
        isinstance(entry.settings, dict)
        and isinstance(entry.inputs, dict)
        and all(isinstance(each, str) for each in entry.inputs.values())
        and type(entry.done) is bool
        and type(entry.seconds) in (int, float)
        and isinstance(entry.result, str)
    )
