"""Debian's own Slurm on the two hosts of netns_helpers.py: munged and slurmctld on h1, slurmd on both.

All of it runs inside the hosts' namespaces, so no other program uses its ports, and all of it is gone when these end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.chaos import netns_helpers
from tests.chaos.netns_helpers import HOSTS, Cluster, wait_for

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel")
GPUS = 8
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
# cred_expire is also the time that a requeued job waits: 120 seconds by default, and 5 at least. The nodes claim to
# have more than this machine, so that jobs for GPU instances fit. Jobs of "urgent" preempt those of "usual", with the
# signal of --signal and time to save.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=h1
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=h[1-2] CPUs=96 RealMemory=1000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=usual Nodes=h[1-2] Default=YES PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes=h[1-2] PriorityTier=2 State=UP
"""


def why_not() -> str:
    """Why this machine cannot have it; empty if it can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (make system-packages)"
    return netns_helpers.why_not()


class Slurm:
    """The daemons on a Cluster that is up, and commands on h1, which is where a person would log in."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        for name in ("state", *(f"spool-{host}" for host in HOSTS)):
            (folder / name).mkdir()
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, gpus=GPUS))
        # Devices that are none: Slurm notes that, and counts them.
        for number in range(GPUS):
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
        # Jobs inherit this: the package of this checkout, and its commands.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        self.daemons: list[subprocess.Popen] = []
        self._start_munged()
        self._start("h1", "slurmctld", "-D")
        for host in HOSTS:
            self._start(host, "slurmd", "-D", "-N", host)
        wait_for(lambda: self.run("sinfo", "-h", "-N", "-o", "%t", check=False).stdout.split() == ["idle"] * 4, "nodes")

    def _start_munged(self) -> None:
        """With a key, socket and files of its own; --force, since its folder is not one for everybody."""
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._start("h1", "munged", "--foreground", "--force", *options)
        wait_for(lambda: (self.folder / "munge.socket").exists(), "munged")

    def _start(self, host: str, *argv: str) -> None:
        with (self.folder / f"{argv[0]}-{host}.log").open("wb") as log:
            self.daemons.append(
                subprocess.Popen(
                    self.cluster.argv(host, *argv),
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def run(self, *argv: object, cwd: object = None, check: bool = True) -> subprocess.CompletedProcess:
        return self.cluster.run("h1", *(["env", f"--chdir={cwd}"] if cwd else []), *argv, check=check, env=self.env)

    def submit(self, script: Path, *options: str) -> str:
        """The number of the job; its folder is that of the script."""
        return self.run("sbatch", "--parsable", *options, script, cwd=script.parent).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """Slurm's facts about a job."""
        words = self.run("scontrol", "show", "job", "--oneliner", number).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, seconds: float) -> dict[str, str]:
        """The job once it has ended for good."""
        wait_for(lambda: self.job(number)["JobState"] in ENDED, f"job {number} ends", seconds)
        return self.job(number)

    def forget(self) -> None:
        """Ends every job that is still there."""
        self.run("scancel", "--user=root", "--full", "--signal=KILL", check=False)
        self.run("scancel", "--user=root", check=False)
        wait_for(lambda: not self.run("squeue", "-h").stdout, "no job is left")

    def close(self) -> None:
        """After the hosts are closed, with which the daemons end."""
        for daemon in self.daemons:
            daemon.wait(timeout=30)
