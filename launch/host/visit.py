"""The launcher's work on a host, through ssh, before the engine starts and after it ends. Prints one JSON line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from kogpt2_gluon.machine import job
from kogpt2_launch.host.processes import kill_marked

ARCHIVE, LAUNCH = "agent.zip", "launch.json"


def prepare(data: dict[str, Any], archive: str) -> None:
    """Makes the launch's folder, of mode 700, with the archive and launch.json in it.

    The launcher's address is the one that this ssh connection came from: the host can reach the launcher there.
    """
    launch, problem = data["launch"], ""
    launch["address"] = os.environ.get("SSH_CONNECTION", "127.0.0.1").split()[0] if data["remote"] else "127.0.0.1"
    try:
        folder = Path(data["folder"])
        folder.mkdir(mode=0o700)  # fails if it exists: a folder that somebody else has made is not used
        shutil.copyfile(archive, folder / ARCHIVE)
        secret = os.open(folder / LAUNCH, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(secret, "w", encoding="utf-8") as file:
            json.dump(launch, file)
        if not Path(launch["cwd"]).is_dir():
            problem = f"no folder {launch['cwd']} here; the launcher's working folder must exist on every host"
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}"
    print(json.dumps({"problem": problem, "address": launch["address"]}))


def sweep(data: dict[str, Any], archive: str) -> None:
    """Ends what is left of a launch on this host, and removes its folder."""
    left = kill_marked({job.LAUNCH_ID: data["id"]})
    shutil.rmtree(data["folder"], ignore_errors=True)
    print(json.dumps({"problem": f"{left} processes do not end" if left else ""}))
