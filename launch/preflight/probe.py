"""Print the facts of one host as JSON, without a judgement. preflight.py sends this file to every host.

It runs there from stdin (``ssh host exec python3 -``), so it needs nothing but Python's standard library, 3.9 or later.
preflight.py adds a last line, which calls :func:`main` with what to look for. A tool that is missing or hangs is a fact
like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from importlib import metadata, util
from pathlib import Path
from typing import Any

TOOL_SECONDS = 20
GPU_QUERY = "index,name,compute_cap,driver_version,memory.total"


def main(wanted: dict[str, Any]) -> None:
    """Prints the facts. wanted : packages, folders, manifests, peers (host names), ssh_port."""
    facts = {
        "time": time.time(),
        "hostname": socket.gethostname(),
        "python": sys.version.split()[0],
        "tools": {
            "fi_info": run(["fi_info", "-p", "efa"]),
            "fi_info_version": run(["fi_info", "--version"]),
            "nvidia_smi": run(["nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader"]),
            "addresses": run(["ip", "-json", "address"]),
            "ldd_mxnet": run(["ldd", library("mxnet", "libmxnet.so")]),
        },
        "infiniband": {"devices": names("/dev/infiniband"), "class": names("/sys/class/infiniband")},
        "plugins": plugins(),
        "memlock": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        "packages": {name: version(name) for name in wanted["packages"]},
        "code": code_revision("kogpt2_gluon"),
        "mounts": text("/proc/mounts"),
        "folders": {name: folder(name) for name in wanted["folders"]},
        "manifests": {name: manifest(name) for name in wanted["manifests"]},
        "peers": {name: reach(name, wanted["ssh_port"]) for name in wanted["peers"]},
    }
    print(json.dumps(facts))


def run(argv: list[str | None]) -> dict[str, Any]:
    """Runs a tool and returns its output; the code is None if the tool is not installed or did not end."""
    if argv[-1] is None or shutil.which(str(argv[0])) is None:
        return {"code": None, "output": "", "problem": "not installed"}
    try:
        done = subprocess.run(
            [str(part) for part in argv], capture_output=True, text=True, errors="replace", timeout=TOOL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"code": None, "output": "", "problem": f"no answer within {TOOL_SECONDS} s"}
    except OSError as error:
        return {"code": None, "output": "", "problem": str(error.strerror)}
    said = done.stderr.strip() or (done.stdout.strip() if done.returncode else "")  # nvidia-smi puts errors on stdout
    return {"code": done.returncode, "output": done.stdout[:100_000], "problem": said[-300:]}


def library(package: str, name: str) -> str | None:
    """Finds a library inside an installed package, without importing the package."""
    found = util.find_spec(package)
    for place in (found.submodule_search_locations or []) if found else []:
        path = Path(place) / name
        if path.is_file():
            return str(path)
    return None


def names(path: str) -> list[str]:
    """The names in a folder; an empty list if the folder does not exist."""
    try:
        return sorted(each.name for each in Path(path).iterdir())
    except OSError:
        return []


def plugins() -> list[str]:
    """Finds the libraries of aws-ofi-nccl: where its installers put them, and on LD_LIBRARY_PATH."""
    places = ["/opt/aws-ofi-nccl", "/opt/amazon/ofi-nccl"]
    found = {str(path) for place in places for path in sorted(Path(place).glob("**/libnccl-net*.so"))}
    for place in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        found |= {str(path) for path in Path(place or "/nowhere").glob("libnccl-net*.so")}
    return sorted(found)


def version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def code_revision(package: str) -> str | None:
    """A hash of the package's source files: equal checkouts have equal hashes."""
    found = util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    root, digest = Path(found.submodule_search_locations[0]), hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".cc", ".cu", ".h", ".cuh") and path.is_file():
            digest.update(f"\0{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def text(path: str) -> str:
    """The text of a small file; empty if it does not exist."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def folder(name: str) -> dict[str, Any]:
    """The facts of a folder that a run reads or writes, or of the nearest existing folder above it."""
    path = Path(name)
    place = next((each for each in (path, *path.parents) if each.is_dir()), Path("/"))
    usage = shutil.disk_usage(place)
    return {
        "exists": path.is_dir(),
        "real": os.path.realpath(place),
        "writable": os.access(place, os.W_OK),
        "free": usage.free,
    }


def manifest(name: str) -> dict[str, Any]:
    """The hash of a shard manifest, and the shards of its folder that are only on tape or in the object store."""
    path = Path(name)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return {"sha256": None, "problem": str(error.strerror), "released": []}
    released = []
    if shutil.which("lfs"):
        shards = sorted(str(each) for each in path.parent.glob("*.ktok"))
        state = run(["lfs", "hsm_state", *shards]) if shards else {"output": ""}
        released = [line.split(":")[0] for line in state["output"].splitlines() if " released" in line]
    return {"sha256": digest, "problem": "", "released": released}


def reach(host: str, port: int | None) -> dict[str, Any]:
    """Tries ssh from here to another host, without any question asked."""
    options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "StrictHostKeyChecking=accept-new"]
    return run(["ssh", *options, *(["-p", str(port)] if port else []), host, "true"])
