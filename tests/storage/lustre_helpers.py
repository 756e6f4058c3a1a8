"""A Lustre without Lustre: a script named lfs on the PATH that keeps its state in files, and a table of mounts."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.storage import lustre as module

# Prints what lfs prints (Lustre 2.10 to 2.15), as bytes. State: one JSON file a path, named by the path's hex digest.
SCRIPT = r"""
import hashlib, json, os, sys, time
state = os.fsencode(STATE)
verb, arguments = sys.argv[1], [os.fsencode(each) for each in sys.argv[2:]]
out = sys.stdout.buffer

def place(path):
    return os.path.join(state, hashlib.sha1(path).hexdigest().encode())

def load(path):
    try:
        with open(place(path)) as file:
            return json.load(file)
    except FileNotFoundError:
        return {"flags": 0}

def save(path, entry):
    with open(place(path), "w") as file:
        json.dump(entry, file)

def fail(message, code):
    sys.stderr.buffer.write(message + b"\n")
    sys.stderr.buffer.flush()
    out.flush()
    os._exit(code)

with open(os.path.join(state, b"log"), "a") as file:
    entry = {"verb": verb, "arguments": sys.argv[2:], "locale": os.environ.get("LC_ALL")}
    file.write(json.dumps(entry) + "\n")
try:
    with open(os.path.join(state, b"answer-" + verb.encode())) as file:
        answer = json.load(file)
except FileNotFoundError:
    answer = None
if answer:
    if answer["hang"]:
        time.sleep(60)
    out.write(os.fsencode(answer["out"]))
    if answer["code"]:
        fail(answer["err"].encode(), answer["code"])
elif verb == "osts":
    out.write(b"OBDS:\n" + b"".join(b"%d: fsx-OST%04x_UUID ACTIVE\n" % (i, i) for i in range(5)))
elif verb == "setstripe":
    save(arguments[-1], {**load(arguments[-1]), "layout": sys.argv[2:-1]})
elif verb == "getstripe":
    layout = load(arguments[-1]).get("layout", [])
    values = dict(zip(layout[::2], layout[1::2]))
    if "-E" in values:
        out.write(b"  lcm_layout_gen:    0\n  lcm_entry_count:   2\n")
        for i in range(0, len(layout), 6):
            end = b"EOF" if layout[i + 1] == "-1" else layout[i + 1].encode()
            out.write(b"    lcme_extent.e_end:   %s\n" % end)
            out.write(b"      stripe_count:  %s       stripe_size:   %s       pattern: raid0\n"
                      % (layout[i + 3].encode(), layout[i + 5].encode()))
    elif layout:
        out.write(b"stripe_count:  %s stripe_size:   %s pattern: raid0 stripe_offset: -1\n"
                  % (values["-c"].encode(), values["-S"].encode()))
elif verb == "hsm_state":
    for path in arguments:
        if not os.path.lexists(path):
            fail(b"can't get hsm state for " + path + b": No such file or directory", 2)
        entry = load(path)
        if entry.get("polls") is not None:
            entry["polls"] -= 1
            if entry["polls"] <= 0:
                del entry["polls"]
                if entry.get("failures", 0) > 0:
                    entry["failures"] -= 1
                else:
                    entry["flags"] &= ~4
            save(path, entry)
        flags = entry["flags"]
        words = [(4, b" released"), (1, b" exists"), (8, b" archived"), (64, b" lost_from_hsm")]
        line = b"%s: (0x%08x)" % (path, flags) + b"".join(word for bit, word in words if flags & bit)
        out.write(line + (b", archive_id:1\n" if flags else b"\n"))
elif verb == "hsm_action":
    for path in arguments:
        polls = load(path).get("polls")
        text = b"NOOP" if polls is None else b"RESTORE running (%d bytes moved)" % (100 // (1 + polls))
        out.write(b"%s: %s\n" % (path, text))
elif verb == "hsm_restore":
    for path in arguments:
        if load(path).get("refused"):
            fail(b"Cannot send HSM request (use of %s): Operation not permitted" % path, 1)
    for path in arguments:
        entry = load(path)
        entry["polls"] = entry.get("takes", 2)
        save(path, entry)
else:
    fail(b"unknown verb", 1)
"""


@dataclass
class FakeLustre:
    """Where the script and its state lie."""

    command: Path
    state: Path

    @classmethod
    def install(cls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLustre:
        """Puts lfs on the PATH, and says that all of `tmp_path` is on Lustre."""
        home = tmp_path / ".lustre"
        state = home / "state"
        state.mkdir(parents=True)
        command = home / "lfs"
        command.write_text(f"#!{sys.executable} -IS\nSTATE = {str(state)!r}\n{SCRIPT}")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
        mounts = home / "mounts"
        mounts.write_text(
            f"/dev/root / ext4 rw 0 0\n10.0.0.1@tcp:/fsx {tmp_path.resolve()} lustre rw,relatime,flock 0 0\n"
        )
        monkeypatch.setattr(module, "MOUNTS", mounts)
        return cls(command, state)

    @property
    def log(self) -> Path:
        return self.state / "log"

    def release(self, *paths: Path, **extra: Any) -> None:
        """Makes files released. `takes` looks until one is back, `failures` restores to nothing, `refused`."""
        import hashlib

        for path in paths:
            name = hashlib.sha1(os.fsencode(path)).hexdigest()
            (self.state / name).write_text(json.dumps({"flags": 0x0D, **extra}))

    def answer(self, verb: str, out: str, err: str = "", code: int = 0, hang: bool = False) -> None:
        """Sets the answer of lfs to a verb from now on."""
        plain = {"out": out, "err": err, "code": code, "hang": hang}
        (self.state / f"answer-{verb}").write_text(json.dumps(plain))

    def calls(self, verb: str) -> list[list[str]]:
        """The arguments of each call of a verb."""
        if not self.log.exists():
            return []
        entries = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [entry["arguments"] for entry in entries if entry["verb"] == verb]
