"""Two real hosts on one machine: namespaces of network, processes, mounts and names, each with an sshd of its own.

It needs root. Everything belongs to the first processes of the two namespaces: when these end, all of it is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kogpt2_gluon.machine.job import LAUNCH_ID, LAUNCH_RANK
from kogpt2_launch.host.processes import process_state
from tests.helpers import MARK

HOSTS = ("h1", "h2")
TOOLS = ("unshare", "nsenter", "ip", "ssh-keygen", "/usr/sbin/sshd")
# The first process: it names the host, starts sshd, and reaps whatever loses its parent. /tmp becomes the host's own,
# except for folders that exist already: these are shared, like all other files. One of them may go meanwhile, because
# other tests run next to this one; a folder that is there and cannot be shared is an error.
INIT = """
set -e
mount --make-rprivate /
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/ssh" /root/.ssh
mkdir -p /run/sshd
mount --bind /tmp /mnt
mount -t tmpfs -o mode=1777 none /tmp
for folder in /mnt/*/; do
    shared="${folder%/}"
    shared="/tmp/${shared##*/}"
    mkdir "$shared"
    mount --bind "$folder" "$shared" || { rmdir "$shared"; [ ! -e "$folder" ]; }
done
umount -l /mnt
ip link set lo up
touch "$2/$1.up"
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip address add "$3/24" dev eth0
ip link set eth0 up
/usr/sbin/sshd -f "$2/sshd_config" -D &
while :; do sleep 1000 & wait $!; done
"""


def why_not() -> str:
    """The reason why this machine cannot have such hosts; empty if it can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (make system-packages)"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount", "--uts", "true"], capture_output=True)
    return f"no namespaces here: {tried.stderr.decode().strip()}" if tried.returncode else ""


class Cluster:
    """h1 (10.77.0.1) and h2 (10.77.0.2), joined by eth0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ssh = folder / "ssh"
        ssh.mkdir(mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "id_ed25519")], check=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key")], check=True)
        shutil.copy(ssh / "id_ed25519.pub", ssh / "authorized_keys")
        (ssh / "config").write_text("StrictHostKeyChecking no\nLogLevel ERROR\n")
        (folder / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 h1\n10.77.0.2 h2\n")
        (folder / "sshd_config").write_text(
            f"Port 22\nHostKey {folder / 'host_key'}\nPermitRootLogin yes\nUsePAM no\nStrictModes no\nPidFile none\n"
            "AuthorizedKeysFile /root/.ssh/authorized_keys\n"
        )
        Path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)
        self.shells = [self._start(host, f"10.77.0.{number}") for number, host in enumerate(HOSTS, start=1)]
        self.pids: dict[str, int] = {}
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        """Waits for both hosts, and connects them."""
        for host, shell in zip(HOSTS, self.shells):
            up = self.folder / f"{host}.up"
            wait_for(lambda up=up, shell=shell: up.exists() or shell.poll() is not None, f"{host} is up", 120)
            assert shell.poll() is None, f"the first process of {host} ended with exit code {shell.returncode}"
            children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()
            self.pids[host] = int(children[0])
        one, two = (f"kogpt2{os.getpid() % 100000}{end}" for end in "ab")
        subprocess.run(["ip", "link", "add", one, "type", "veth", "peer", "name", two], check=True)
        for name, host in zip((one, two), HOSTS):
            subprocess.run(["ip", "link", "set", name, "netns", str(self.pids[host]), "name", "eth0"], check=True)
        wait_for(lambda: self.run("h1", "ssh", "h2", "true", check=False).returncode == 0, "ssh from h1 to h2")
        wait_for(lambda: self.run("h2", "ssh", "h1", "true", check=False).returncode == 0, "ssh from h2 to h1")

    def _start(self, host: str, address: str) -> subprocess.Popen:
        spaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        argv = ["unshare", *spaces, "bash", "-c", INIT, "init", host, str(self.folder), address]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def argv(self, host: str, *argv: object) -> list[str]:
        """The command line that runs a command on a host."""
        spaces = ["--mount", "--uts", "--net", "--pid"]
        return ["nsenter", "--target", str(self.pids[host]), *spaces, f"--wd={Path.cwd()}", *map(str, argv)]

    def run(self, host: str, *argv: object, check: bool = True, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(self.argv(host, *argv), capture_output=True, text=True, check=check, **options)

    def link(self, host: str, state: str) -> None:
        """Cuts a host from the network (``down``), or connects it again (``up``)."""
        self.run(host, "ip", "link", "set", "eth0", state)

    def launched(self, rank: int | None = None) -> list[int]:
        """The living processes that any launch has started on these two hosts, or the workers of a rank."""
        ours = {Path(f"/proc/{pid}/ns/pid").readlink() for pid in self.pids.values()}
        found = []
        for pid, _ in _of_launches(rank):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/ns/pid").readlink() in ours:
                    found.append(pid)
        return found

    def close(self) -> None:
        for shell in self.shells:
            shell.kill()
            shell.wait()


def wait_for(is_so, what: str, seconds: float = 30.0) -> None:
    """Waits until `is_so()` is true; AssertionError after that time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def launched() -> list[int]:
    """The living processes that a launch of this test process has started on this host."""
    return [pid for pid, variables in _of_launches() if MARK in variables]


def _of_launches(rank: int | None = None) -> Iterator[tuple[int, str]]:
    """Each living process of any launch on this machine, also of other tests that run now, and its variables."""
    wanted = f"{LAUNCH_ID}=" if rank is None else f"{LAUNCH_RANK}={rank}\0"
    for entry in Path("/proc").iterdir():
        try:
            variables = "\0" + (entry / "environ").read_text(errors="replace") if entry.name.isdigit() else ""
        except OSError:
            continue
        if f"\0{wanted}" in variables and process_state(int(entry.name)) not in ("Z", "X", ""):
            yield int(entry.name), variables


def command_lines(pids: Sequence[int]) -> list[str]:
    """The command lines of processes, for a message."""
    lines = []
    for pid in pids:
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")[:150])
        except OSError:
            continue
    return lines
