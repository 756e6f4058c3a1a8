"""Lustre's stripe layouts, and its files whose data lies in an archive (HSM), by way of the tool `lfs`.

On FSx for Lustre the archive is S3: a file that was imported, or released to make room, has a name and a size but no
data until it is read or restored. `lfs` gets absolute paths, one argument each, so that it cannot take a name for an
option, and its output is compared byte for byte with the names that it was given.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.wording import counted

MOUNTS = Path("/proc/mounts")
TIMEOUT = 120.0  # seconds for one call of lfs; a server that fails over can take a minute
STRIPE_SIZE = 4 << 20  # the largest chunk of a shard, so that none lies on two servers
FIRST_EXTENT = 64 << 20  # bytes of a file on one OST: reading a manifest or a tokenizer asks one server, not many
BYTES_PER_STRIPE = 256 << 20  # a shard gets one OST for so many bytes
SHARD_BYTES = 1 << 30  # a full shard of `kogpt2 shard`

_STATE = re.compile(rb": \((0x[0-9a-f]{1,8})\)((?: [a-z_]+)*)(?:, archive_id:(\d+))?\n")
_ACTION = re.compile(rb": ([A-Z]+)(?: [a-z]+ \((?:(\d+) bytes moved|from [^()\n]*)\))?\n")
_ACTIVE_OST = re.compile(rb"^\d+: \S+ ACTIVE", re.MULTILINE)
_FIELD = re.compile(rb"(lcme_extent\.e_end|(?:lmm_)?stripe_count|(?:lmm_)?stripe_size):\s+(-?\d+|EOF)(?=\s)")
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A line of /proc/mounts. `kind` is the file system's type, such as ``lustre`` or ``ext4``."""

    device: str
    point: Path
    kind: str
    options: tuple[str, ...]


class HsmState(NamedTuple):
    """The state that `lfs hsm_state` reports for a file: flags as Lustre numbers them."""

    flags: int

    @property
    def released(self) -> bool:
        """True if its data is only in the archive."""
        return bool(self.flags & 0x04)

    @property
    def lost(self) -> bool:
        """True if the archive has lost its data."""
        return bool(self.flags & 0x40)


class HsmAction(NamedTuple):
    """The action that `lfs hsm_action` reports for a file: ``NOOP``, ``RESTORE``, ...; `moved` is the bytes so far."""

    name: str
    moved: int


class Stripes(NamedTuple):
    """One extent of a layout, up to byte `end` (None: the file's end): stripes of `size` bytes on `osts` (-1: all)."""

    end: int | None
    osts: int
    size: int

    def __str__(self) -> str:
        until = "" if self.end is None else f" up to {self.end >> 20} MiB"
        count = "all OSTs" if self.osts == -1 else counted(self.osts, "OST")
        return f"{count} x {self.size / (1 << 20):g} MiB{until}"


def find_mount(path: Path, mounts: Path | None = None) -> Mount | None:
    """Returns the file system that holds `path`, or will hold it; None if /proc/mounts does not say."""
    try:
        lines = (mounts or MOUNTS).read_bytes().splitlines()
    except OSError:
        return None
    place = path.resolve()
    found: Mount | None = None
    for line in lines:
        fields = [os.fsdecode(_OCTAL.sub(lambda m: bytes([int(m[1], 8) & 255]), part)) for part in line.split(b" ")]
        if len(fields) < 4:
            continue
        mount = Mount(fields[0], Path(fields[1]), fields[2], tuple(fields[3].split(",")))
        inside = mount.point == place or mount.point in place.parents
        # If two are mounted at one point, the later one hides the other.
        if inside and (found is None or len(mount.point.parts) >= len(found.point.parts)):
            found = mount
    return found


def is_lustre(path: Path) -> bool:
    """Returns True if `path` lies on Lustre."""
    mount = find_mount(path)
    return mount is not None and mount.kind == "lustre"


def mount_advice(mount: Mount) -> list[str]:
    """Returns advice on the options of a Lustre mount, a line for each."""
    advice = []
    if "noatime" not in mount.options:
        advice.append(
            "noatime saves the servers the update of an access time for each file read; leave it out if files are "
            "released by their last access"
        )
    if not {"flock", "localflock"} & set(mount.options):
        advice.append(
            "without flock nothing can be locked here: two runs of `kogpt2 clean`, or two trainings, may write into "
            "one folder"
        )
    if "nolazystatfs" in mount.options:
        advice.append("nolazystatfs makes `df` wait for an OST that does not answer; lazystatfs does not")
    return advice


def choose_stripe_count(shard_bytes: int, num_osts: int) -> int:
    """Returns the number of OSTs for one shard: one for each 256 MiB, at most all."""
    return max(1, min(num_osts, -(-shard_bytes // BYTES_PER_STRIPE)))


class Lustre:
    """Calls of the tool `lfs`. Every method raises DataError, in one line, if a call fails or its answer is unknown.

    Parameters
    ----------
    command : str
        The path of lfs.
    timeout : float
        The seconds that one call may take.
    """

    def __init__(self, command: str, timeout: float = TIMEOUT) -> None:
        self._command, self._timeout = command, timeout

    @classmethod
    def find(cls) -> Lustre | None:
        """Returns the lfs on the PATH, None if there is none."""
        command = shutil.which("lfs")
        return cls(command) if command else None

    def states(self, paths: Sequence[Path]) -> dict[Path, HsmState | DataError]:
        """Returns the HSM state of each file, or the error for it."""
        found: dict[Path, HsmState | DataError] = {}
        left = list(paths)
        while left:  # lfs stops at the first file that it has no answer for
            done = self._run("hsm_state", *left)
            rest, answered = done.stdout, 0
            for path in left:
                name = _argument(path)
                match = _STATE.match(rest, len(name)) if rest.startswith(name) else None
                if match is None:
                    break
                found[path] = HsmState(int(match[1], 16))
                rest, answered = rest[match.end() :], answered + 1
            if rest or (answered < len(left) and not done.returncode):
                raise DataError(
                    f"{show(left[0].parent)}: lfs hsm_state answered {_shown(rest)}, which is not understood"
                )
            if answered < len(left):
                found[left[answered]] = _failure(left[answered], "hsm_state", done)
                answered += 1
            left = left[answered:]
        return found

    def action(self, path: Path) -> HsmAction:
        """Returns the action of HSM on a file at this moment."""
        done = self._checked(path, "hsm_action", path)
        name = _argument(path)
        match = _ACTION.fullmatch(done, len(name)) if done.startswith(name) else None
        if match is None:
            raise DataError(f"{show(path)}: lfs hsm_action answered {_shown(done)}, which is not understood")
        return HsmAction(match[1].decode(), int(match[2] or 0))

    def restore(self, paths: Sequence[Path]) -> None:
        """Asks for the data of released files in one request; returns at once, long before the data is there."""
        self._checked(paths[0], "hsm_restore", *paths)

    def num_osts(self, path: Path) -> int:
        """Returns the number of active OSTs (the servers' stores) of the file system that holds `path`."""
        count = len(_ACTIVE_OST.findall(self._checked(path, "osts", path)))
        if not count:
            raise DataError(f"{show(path)}: lfs osts names no active OST")
        return count

    def layout(self, path: Path) -> list[Stripes]:
        """Returns the layout of a file, or of new files in a folder; empty if the folder has no layout of its own."""
        out = self._checked(path, "getstripe", *(["-d"] if path.is_dir() else []), path)
        name = _argument(path)
        out = out[len(name) :] if out.startswith(name) else out  # older versions print it first
        stripes: list[Stripes] = []
        end: int | None = None
        count: int | None = None
        for field, value in _FIELD.findall(out):
            if field.endswith(b"e_end"):
                end = None if value in (b"EOF", b"-1") else int(value)
            elif value == b"EOF":
                continue
            elif field.endswith(b"count"):
                # Unsigned in some versions: all OSTs are then 4,294,967,295 or 65,535.
                count = -1 if int(value) in (0xFFFFFFFF, 0xFFFF) else int(value)
            elif count is not None:
                stripes.append(Stripes(end, count, int(value)))
                end = count = None
        return stripes

    def set_layout(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> list[Stripes]:
        """Sets the layout of new files in a folder: 64 MiB on one OST, then stripes over as many as a shard needs."""
        count = choose_stripe_count(shard_bytes, self.num_osts(folder))
        stripes = [Stripes(FIRST_EXTENT, 1, STRIPE_SIZE), Stripes(None, count, STRIPE_SIZE)]
        if count == 1:
            stripes = stripes[1:]
        arguments: list[str] = []
        for each in stripes:
            if count > 1:
                arguments += ["-E", "-1" if each.end is None else str(each.end)]
            arguments += ["-c", str(each.osts), "-S", str(each.size)]
        self._checked(folder, "setstripe", *arguments, folder)
        return stripes

    def _run(self, verb: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        argv = [_argument(each) if isinstance(each, Path) else each for each in arguments]
        place = next(each for each in arguments if isinstance(each, Path))
        try:
            return subprocess.run(
                [self._command, verb, *argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise DataError(
                f"{show(place)}: lfs {verb} did not answer in {self._timeout:g} s; ask `lfs check all` why"
            ) from None
        except OSError as error:
            raise DataError(f"{self._command}: cannot be run: {error.strerror}") from None

    def _checked(self, place: Path, verb: str, *arguments: str | Path) -> bytes:
        done = self._run(verb, *arguments)
        if done.returncode:
            raise _failure(place, verb, done)
        return done.stdout


def prepare_folder(folder: Path, shard_bytes: int = SHARD_BYTES) -> str:
    """Sets the layout for shards of a new folder on Lustre; elsewhere does nothing. Returns a line to print, or ""."""
    if not is_lustre(folder):
        return ""
    lustre = Lustre.find()
    if lustre is None:
        return f"{show(folder)}: on Lustre, but the tool lfs is missing: new shards get the file system's own layout"
    try:
        stripes = lustre.set_layout(folder, shard_bytes)
    except DataError as error:  # shards can be read in any layout
        return f"{error}; new shards get the file system's own layout"
    return f"{show(folder)}: new files on {', then '.join(map(str, stripes))}"


def show(path: Path) -> str:
    """Returns a path for a message, in one line whatever the name contains."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(path))


def _argument(path: Path) -> bytes:
    return os.fsencode(Path.cwd() / path)  # absolute, so never an option; links stay as they are


def _shown(output: bytes) -> str:
    return ascii(output[:80].decode("utf-8", "replace"))


def _failure(place: Path, verb: str, done: subprocess.CompletedProcess[bytes]) -> DataError:
    """Returns the error of a call that failed, with the end of what lfs printed, in one line."""
    said = " ".join(done.stderr.replace(_argument(place), b"it").decode("utf-8", "replace").split())
    said = "".join(each if each.isprintable() else "?" for each in said)[-200:]
    hint = ""
    if "Operation not permitted" in said or "Permission denied" in said:
        hint = "; it may need root: try sudo"
    return DataError(f"{show(place)}: lfs {verb} failed: {said or f'exit status {done.returncode}'}{hint}")
