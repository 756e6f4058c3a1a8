"""Compiles the CUDA operators with the machine's own nvcc, once for each state of sources, compiler and targets."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.machine.limits import available_cores
from kogpt2_gluon.storage.files import replace_folder

SOURCES = Path(__file__).resolve().parent / "src"
# V100, T4, A100, A10G: the GPUs that MXNet's wheel has code for.
ARCHITECTURES = ("70", "75", "80", "86")
FLAGS = ("-std=c++17", "-diag-suppress=1675", "-Xcompiler", "-fPIC,-Wall")  # 1675: pragmas that only g++ has
# Only the launch functions are marked for export. The wrapper has no such flag: MXNet looks for names of its own in it.
KERNEL_FLAGS = ("-O3", "-Xcompiler", "-fvisibility=hidden", "-Xptxas", "-v")
# As in build.py: Horovod makes MXNet's classes of the same names global, and loading the library would crash.
LINK_FLAGS = ("-shared", "-Xlinker", "-Bsymbolic")
LIBRARY, MXNET_LIBRARY, RECORD, LOG = "libkogpt2_cuda.so", "libkogpt2_cuda_mxnet.so", "build.json", "build.log"


@dataclass(frozen=True)
class CudaBuild:
    """The result of a build.

    Attributes
    ----------
    library : Path
        The launch functions of ``src/cuda/launch.h``, without MXNet.
    mxnet_library : Path or None
        The same functions and MXNet's operators over them, for ``mx.library.load``; None if MXNet's header is not
        installed.
    compiled : list of str
        Architectures in the libraries, such as "sm_80".
    not_compiled : list of str
        Requested architectures that this nvcc does not know.
    nvcc_version : str
        Such as "13.0.88".
    log : Path
        nvcc's output, with the registers and spills of every kernel.
    """

    library: Path
    mxnet_library: Path | None
    compiled: list[str]
    not_compiled: list[str]
    nvcc_version: str
    log: Path


def find_nvcc() -> Path | None:
    """Returns nvcc from CUDA_HOME or CUDA_PATH, else from PATH, else from NVIDIA's usual folder; None without one."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    for place in (*(str(Path(home) / "bin") for home in homes), None, "/usr/local/cuda/bin"):
        found = shutil.which("nvcc", path=place)
        if found:
            return Path(found)
    return None


def build_cuda(out_dir: Path, architectures: Sequence[str] = ARCHITECTURES) -> CudaBuild:
    """Builds both libraries in a folder below `out_dir`, or returns those of an earlier call if nothing has changed.

    Parameters
    ----------
    out_dir : Path
        Cache folder, made if missing. Several processes may build into it at once.
    architectures : sequence of str
        Compute capabilities without their dot, such as "70". Those that nvcc does not know are skipped and reported.

    Returns
    -------
    CudaBuild

    Raises KoGPT2Error when there is no nvcc, when it knows none of `architectures`, or when it fails.
    """
    nvcc = find_nvcc()
    if nvcc is None:
        raise KoGPT2Error(
            "nvcc was not found on PATH or in CUDA_HOME: install a CUDA toolkit, or train with training.ops=stock"
        )
    version = _nvcc_version(nvcc)
    known = set(re.findall(r"compute_(\w+)", _run([nvcc, "--list-gpu-arch"], f"nvcc {version}")))
    wanted = [a for a in architectures if a in known]
    if not wanted:
        asked = ", ".join(f"sm_{a}" for a in architectures)
        raise KoGPT2Error(f"nvcc {version} ({nvcc}) knows none of {asked}: use another CUDA toolkit")
    mxnet = mxnet_folder()
    folder = out_dir.resolve() / f"cuda-{_fingerprint(version, wanted, mxnet)}"
    record = {
        "mxnet": mxnet is not None,
        "compiled": [f"sm_{a}" for a in wanted],
        "not_compiled": [f"sm_{a}" for a in architectures if a not in known],
        "nvcc_version": version,
    }
    if not (folder / RECORD).is_file():
        with replace_folder(folder) as new:
            _compile_all(nvcc, version, new, wanted, mxnet)
            (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return CudaBuild(
        library=folder / LIBRARY,
        mxnet_library=folder / MXNET_LIBRARY if record.pop("mxnet") else None,
        log=folder / LOG,
        **record,  # type: ignore[arg-type]
    )


def _nvcc_version(nvcc: Path) -> str:
    text = _run([nvcc, "--version"], "nvcc")
    found = re.search(r"\bV(\d+(?:\.\d+)+)", text)
    if not found:
        raise KoGPT2Error(f"{nvcc} --version prints no version: is it NVIDIA's compiler?")
    return found.group(1)


def mxnet_folder() -> Path | None:
    """Returns the folder of MXNet if it has the header and source for operator libraries; MXNet is not loaded."""
    found = importlib.util.find_spec("mxnet")
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place)
        if (folder / "include" / "mxnet" / "lib_api.h").is_file() and (folder / "src" / "lib_api.cc").is_file():
            return folder
    return None


def _source_files() -> list[Path]:
    return sorted(path for part in ("common", "cuda") for path in (SOURCES / part).iterdir() if path.is_file())


def _fingerprint(version: str, architectures: list[str], mxnet: Path | None) -> str:
    """Returns a hash of everything that goes into the libraries."""
    digest = hashlib.sha256(json.dumps([version, architectures, FLAGS, KERNEL_FLAGS]).encode())
    files = _source_files() + (
        [mxnet / "include" / "mxnet" / "lib_api.h", mxnet / "src" / "lib_api.cc"] if mxnet else []
    )
    for path in files:
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _compile_all(nvcc: Path, version: str, folder: Path, architectures: list[str], mxnet: Path | None) -> None:
    """Writes both libraries and the log to `folder`; the object files are removed afterwards."""
    code = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    sources = [path for path in _source_files() if path.suffix == ".cu"]
    kernels = [path for path in sources if not path.name.startswith("mxnet_")]
    jobs = {path: [*FLAGS, *KERNEL_FLAGS, *code] for path in kernels}
    if mxnet:
        wrappers = [path for path in sources if path not in kernels] + [SOURCES / "common" / "lib_api.cc"]
        # These contain no kernels, so one architecture is enough. With __NVCC__ MXNet's source includes cuRAND, which
        # is not used.
        includes = f"-I{mxnet / 'include'}", f"-I{mxnet}"
        jobs.update({path: [*FLAGS, "-O1", *includes, "-Xcompiler", "-U__NVCC__", *code[:1]] for path in wrappers})

    def compile_one(path: Path) -> str:
        flags = jobs[path]
        return _run([nvcc, *flags, "-c", path, "-o", folder / f"{path.stem}.o"], f"nvcc {version}, {path.name}")

    # The largest file comes first, so that it is not compiled alone at the end.
    with ThreadPoolExecutor(max_workers=max(1, available_cores())) as pool:
        outputs = list(pool.map(compile_one, sorted(jobs, key=lambda path: path.stat().st_size, reverse=True)))
    (folder / LOG).write_text("".join(outputs), encoding="utf-8")
    for library, parts in ((LIBRARY, kernels), (MXNET_LIBRARY, list(jobs) if mxnet else [])):
        if parts:
            objects = [folder / f"{path.stem}.o" for path in parts]
            _run([nvcc, *LINK_FLAGS, *code[:1], *objects, "-o", folder / library], f"nvcc {version}, {library}")
    for path in jobs:
        (folder / f"{path.stem}.o").unlink()


def _run(command: Sequence[Any], what: str) -> str:
    """Returns the output of a command; KoGPT2Error with its first line of error if it fails."""
    argv = [str(part) for part in command]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise KoGPT2Error(f"{what}: {error}") from error
    output = done.stdout + done.stderr
    if done.returncode == 0:
        return output
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)]
    reason = (errors or lines or [f"exit code {done.returncode}"])[0]
    raise KoGPT2Error(f"{what}: {reason}")
