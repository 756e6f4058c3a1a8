"""Hosts and their slots, from ``h1:8,h2:8`` or a hostfile. A slot runs one worker.

Hosts keep the order in which they are written. Horovod numbers the workers in that order, so the first host has rank 0.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kogpt2_gluon.errors import RecipeError

# A DNS name or an IPv4 address, label by label. Nothing else may reach the command line of horovodrun or ssh:
# a name that begins with '-' would be read as an option. IPv6 addresses are refused, because Horovod splits at ':'.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Host:
    """One machine and the number of workers it runs; RecipeError if either is not valid."""

    name: str
    slots: int

    def __post_init__(self) -> None:
        if len(self.name) > 253 or not _HOST_NAME.fullmatch(self.name):
            raise RecipeError(
                f"host {self.name!r}: not a host name or IPv4 address (letters, digits and inner hyphens between dots)"
            )
        if self.slots < 1:
            raise RecipeError(f"host {self.name}: {self.slots} slots; a host needs at least 1")

    @property
    def is_loopback(self) -> bool:
        """Returns True if the name means whatever machine reads it."""
        return self.name.lower() in _LOOPBACK

    @property
    def is_local(self) -> bool:
        """Returns True if the name is one of this machine's own. Only names are compared; the network is not asked."""
        name, own = self.name.lower(), socket.gethostname().lower()
        return name in (*_LOOPBACK, own, own.partition(".")[0])


@dataclass(frozen=True)
class FileSystem:
    """An FSx for Lustre. subnet : the subnet in which it answers."""

    id: str
    dns_name: str
    mount_name: str
    subnet: str

    def mount_command(self, folder: str) -> str:
        return f"mount -t lustre -o noatime,flock {self.dns_name}@tcp:/{self.mount_name} {folder}"


def parse_hosts(text: str) -> tuple[Host, ...]:
    """Reads hosts from ``h1:8,h2:8``; RecipeError for anything else, and for a host that is named twice."""
    return _unique(_parse_item(item.strip(), f"--hosts {text!r}") for item in text.split(","))


def read_hostfile(path: Path) -> tuple[Host, ...]:
    """Reads a hostfile, a host on each line: ``h1 slots=8`` (Horovod, Open MPI) or ``h1:8`` (MPICH); ``#`` comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"hostfile {path}: not readable: {error}") from None
    hosts: list[Host] = []
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].strip()
        if entry:
            hosts.append(_parse_line(entry, f"hostfile {path}, line {number}"))
    if not hosts:
        raise RecipeError(f"hostfile {path}: names no host; write lines such as h1 slots=8")
    return _unique(hosts)


def available_cores() -> int:
    """The logical cores that this process may use; a container or taskset may grant fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parse_item(item: str, where: str) -> Host:
    """Reads a host from ``name:slots``."""
    name, colon, slots = item.partition(":")
    # The number of slots is never guessed: Open MPI's meaning of a bare name changed between its versions.
    if not colon:
        raise RecipeError(f"{where}: {item!r} has no slots; write {item or 'HOST'}:SLOTS")
    return Host(name.strip(), _parse_slots(slots.strip(), where))


def _parse_line(entry: str, where: str) -> Host:
    """Reads a host from ``name slots=N [max_slots=N]`` or ``name:slots``."""
    name, *options = entry.split()
    if not options:
        return _parse_item(name, where)
    settings = dict(option.split("=", 1) for option in options if "=" in option)
    unknown = [option for option in options if option.partition("=")[0] not in ("slots", "max_slots", "max-slots")]
    if unknown or "slots" not in settings:
        raise RecipeError(f"{where}: {entry!r} is not understood; write {name} slots=N")
    return Host(name, _parse_slots(settings["slots"], where))


def _parse_slots(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise RecipeError(f"{where}: slots must be a whole number, not {text!r}")
    return int(text)


def _unique(hosts: Iterable[Host]) -> tuple[Host, ...]:
    """Returns the hosts in their order; RecipeError if one is named twice: Horovod would number its ranks twice."""
    seen: list[Host] = []
    for host in hosts:
        if any(host.name.lower() == other.name.lower() for other in seen):
            raise RecipeError(f"host {host.name} is named twice; give it once, with all its slots")
        seen.append(host)
    return tuple(seen)
