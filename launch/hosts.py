"""Hosts and their slots, from ``h1:8,h2:8`` or a hostfile. A slot runs one worker.

Hosts keep the order in which they are written. Horovod numbers the workers in that order, so the first host has rank 0.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.user_files import read_user_text

# A DNS name or an IPv4 address, label by label. Nothing else may reach the command line of horovodrun or ssh:
# a name that begins with '-' would be read as an option. ssh and horovodrun accept underscores, mpirun does not.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_IPV6 = re.compile(r"\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?\]?(:[0-9]+)?")  # with slots too
MOST_SLOTS = 1024
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Host:
    """One machine and the number of workers it runs; RecipeError if either is not valid.

    The dot at the end of a full name, h1.example.com., is left out: mpirun takes such a name for another host.
    """

    name: str
    slots: int

    def __post_init__(self) -> None:
        if self.name.endswith(".") and not self.name.endswith(".."):
            object.__setattr__(self, "name", self.name[:-1])
        if len(self.name) > 253 or not _HOST_NAME.fullmatch(self.name):
            raise RecipeError(f"host {self.name!r}: {_why_not(self.name)}")
        if self.slots < 1:
            raise RecipeError(f"host {self.name}: {self.slots} slots; a host needs at least 1")
        if self.slots > MOST_SLOTS:  # a plan lists the ranks of each host
            raise RecipeError(f"host {self.name}: {self.slots} slots; a host has at most {MOST_SLOTS:,}")

    @property
    def is_loopback(self) -> bool:
        """Returns True if the name means whatever machine reads it."""
        return self.name.lower() in _LOOPBACK

    @property
    def is_local(self) -> bool:
        """Returns True if the name is one of this machine's own. Only names are compared; the network is not asked."""
        name, own = self.name.lower(), socket.gethostname().lower()
        return name in (*_LOOPBACK, own, own.partition(".")[0])


def _why_not(name: str) -> str:
    """Says why ssh or the engines cannot take a host by this name, and what they can."""
    user, at, host = name.rpartition("@")
    if at and _HOST_NAME.fullmatch(host):
        return (
            f"horovodrun and mpirun take no user with a host; write {host}, and 'User {user}' under 'Host {host}' in "
            "~/.ssh/config of every host"
        )
    if _IPV6.fullmatch(name):
        return (
            "horovodrun separates host and slots at the first colon and listens on IPv4 alone, so an IPv6 address "
            "cannot be a host; give its IPv4 address, or a name that has one"
        )
    return "not a host name or IPv4 address (letters, digits, underscores and inner hyphens between dots)"


@dataclass(frozen=True)
class FileSystem:
    """An FSx for Lustre. subnet : the subnet in which it answers."""

    id: str
    dns_name: str
    mount_name: str
    subnet: str

    def mount_command(self, folder: str) -> str:
        return f"mount -t lustre -o noatime,flock {self.dns_name}@tcp:/{self.mount_name} {folder}"


def is_alone(hosts: Sequence[Host]) -> bool:
    """Returns True for one worker of localhost. Only that name counts: the answer is the same on every machine."""
    return sum(host.slots for host in hosts) == 1 and hosts[0].is_loopback


def parse_hosts(text: str) -> tuple[Host, ...]:
    """Reads hosts from ``h1:8,h2:8``; RecipeError for anything else, and for a host that is named twice."""
    return _unique(_parse_item(item.strip(), f"--hosts {text!r}") for item in text.split(","))


def read_hostfile(path: Path) -> tuple[Host, ...]:
    """Reads a hostfile, a host on each line: ``h1 slots=8`` (Horovod, Open MPI) or ``h1:8`` (MPICH); ``#`` comments."""
    hosts: list[Host] = []
    for number, line in enumerate(read_user_text(path, "hostfile").splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        where = f"hostfile {path}, line {number}"
        if entry:
            try:
                hosts.append(_parse_line(entry, where))
            except RecipeError as error:
                raise RecipeError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    if not hosts:
        raise RecipeError(f"hostfile {path}: names no host; write lines such as h1 slots=8")
    try:
        return _unique(hosts)
    except RecipeError as error:
        raise RecipeError(f"hostfile {path}: {error}") from None


def available_cores() -> int:
    """The logical cores that this process may use; a container or taskset may grant fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parse_item(item: str, where: str) -> Host:
    """Reads a host from ``name:slots``."""
    if _IPV6.fullmatch(item):
        raise RecipeError(f"{where}: host {item!r}: {_why_not(item)}")
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
    keys = [option.partition("=")[0].replace("max-slots", "max_slots") for option in options]
    settings = dict(option.split("=", 1) for option in options if "=" in option)
    if not set(keys) <= {"slots", "max_slots"} or "slots" not in settings:
        raise RecipeError(f"{where}: {entry!r} is not understood; write {name} slots=N")
    if len(set(keys)) < len(keys):
        raise RecipeError(f"{where}: {entry!r} gives one setting twice; write {name} slots=N")
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
