"""`kogpt2 doctor`: what this machine can do, what is missing, and the command that fixes it.

MXNet and Horovod are each tried in a process of their own. A library that cannot be loaded, or that crashes, is
therefore a finding like any other.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import psutil
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.findings import FAIL, PASS, WARN, Finding
from kogpt2_gluon.machine import cuda, job, limits, runtime
from kogpt2_gluon.ops.build import check_requirements
from kogpt2_gluon.ops.kernels import BASE, known_precision
from kogpt2_gluon.wording import counted, gib

STYLES = {PASS: "green", WARN: "yellow", FAIL: "bold red"}
BUILD_HOROVOD = "make horovod"
OLDEST_DRIVER = (450, 80, 2)  # the first that runs programs of every CUDA 11 minor version
PROBE_SECONDS = 180
GIB = 2**30


def main(as_json: bool = False) -> int:
    """Prints the findings as a table or as JSON; returns 0 if none of them fails, else 1."""
    findings = examine()
    if as_json:
        print(to_json(findings))
    else:
        Console().print(render_table(findings), crop=False)
    return int(any(finding.status == FAIL for finding in findings))


def examine() -> list[Finding]:
    """Checks everything, area by area. It takes a few seconds, because MXNet is loaded twice."""
    wheel = runtime.installed_wheel()
    return [
        *examine_software(),
        *examine_mxnet(wheel),
        *examine_horovod(wheel),
        *examine_cpu(),
        *examine_operators(),
        *examine_memory(),
        *examine_disk(),
        *examine_gpus(wheel, *cuda.list_gpus()),
        *(examine_cuda_libraries() if wheel == runtime.CUDA_WHEEL else []),
        *examine_tools(),
    ]


def render_table(findings: Sequence[Finding]) -> Group:
    """The findings as a rich table with the fixes below it; print it with crop=False to keep those lines whole."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(
            Text(finding.status, style=STYLES[finding.status]),
            Text(finding.where, style="dim"),
            Text(finding.what),
            Text(finding.text, overflow="fold"),
        )
    failed, warned = (sum(finding.status == status for finding in findings) for status in (FAIL, WARN))
    passed = len(findings) - failed - warned
    lines = [Text(f"\n{counted(failed, 'problem')}, {counted(warned, 'warning')}, {passed} ok")]
    for finding in findings:
        if finding.fix:
            head = Text(f"  {finding.what}: ", style=STYLES[finding.status])
            lines.append(Text.assemble(head, finding.fix, no_wrap=True, overflow="ignore"))
    return Group(table, *lines)


def to_json(findings: Sequence[Finding]) -> str:
    """{"ok": bool, "findings": [{"area", "name", "value", "status", "fix"}, ...]}"""
    plain = [
        {"area": each.where, "name": each.what, "value": each.text, "status": each.status, "fix": each.fix}
        for each in findings
    ]
    return json.dumps({"ok": all(f.status != FAIL for f in findings), "findings": plain}, indent=2, ensure_ascii=False)


# ---- software ----------------------------------------------------------------------------------------------------


def examine_software() -> list[Finding]:
    """Checks the versions of what is installed; nothing is imported."""
    version, machine = platform.python_version(), f"{platform.system()} {platform.machine()}"
    fits = (3, 9) <= sys.version_info[:2] <= (3, 11)
    known = machine == "Linux x86_64"
    return [
        Finding(
            PASS if fits else FAIL, "python", "software", version, "" if fits else "use Python 3.11 (3.9 and 3.10 work)"
        ),
        Finding(PASS if known else FAIL, "system", "software", machine, "" if known else "use Linux on x86-64"),
        _package("kogpt2-gluon", FAIL, "pip install -e '.[cpu]'"),
        _mxnet_wheel(),
        _package("gluonnlp", FAIL, "pip install gluonnlp==0.10.0"),
        _numpy(),
        _package("sentencepiece", FAIL, "pip install 'sentencepiece>=0.1.99'"),
        _package("tokenizers", FAIL, "pip install 'tokenizers>=0.15'"),
        _package("horovod", WARN, f"{BUILD_HOROVOD} (one worker trains without it)"),
        _package("torch", PASS, note="only the check of a conversion needs it"),
        _package("transformers", PASS, note="only the check of a conversion needs it"),
    ]


def _package(name: str, status_without: str, fix: str = "", note: str = "") -> Finding:
    version = runtime.installed_version(name)
    if version:
        return Finding(PASS, name, "software", version)
    return Finding(status_without, name, "software", "not installed" + (f": {note}" if note else ""), fix)


def _mxnet_wheel() -> Finding:
    cpu, gpu = (runtime.installed_version(wheel) for wheel in (runtime.CPU_WHEEL, runtime.CUDA_WHEEL))
    if cpu and gpu:  # both write to the same folder, so what runs is a mixture of the two
        fix = f"pip uninstall -y mxnet mxnet-cu112, then {runtime.INSTALL_CPU} or {runtime.INSTALL_CUDA}"
        return Finding(FAIL, "mxnet", "software", "both mxnet and mxnet-cu112 are installed, over each other", fix)
    if not (cpu or gpu):
        return Finding(FAIL, "mxnet", "software", "not installed", f"{runtime.INSTALL_CPU} or {runtime.INSTALL_CUDA}")
    return Finding(PASS, "mxnet", "software", cpu or "") if cpu else Finding(PASS, "mxnet-cu112", "software", gpu or "")


def _numpy() -> Finding:
    version = runtime.installed_version("numpy") or "not installed"
    try:
        runtime.check_numpy()
    except KoGPT2Error:
        return Finding(FAIL, "numpy", "software", f"{version}: MXNet 1.9.1 needs < 1.24", "pip install 'numpy<1.24'")
    return Finding(PASS, "numpy", "software", version)


def examine_tools() -> list[Finding]:
    """Finds the compiler that builds the fused operators and Horovod."""
    compiler = shutil.which("g++")
    if not compiler:
        return [Finding(WARN, "g++", "tools", "not found: no fused operators, no Horovod", "apt-get install g++ make")]
    version = _run([compiler, "-dumpfullversion"])
    if version is None or version.returncode:
        said = (version.stderr if version else "").strip().splitlines() or ["it does not run"]
        return [Finding(WARN, "g++", "tools", f"{compiler}: {said[-1]}", "apt-get install --reinstall g++")]
    return [Finding(PASS, "g++", "tools", version.stdout.strip())]


# ---- MXNet and Horovod, each in a process of its own -------------------------------------------------------------


def examine_mxnet(wheel: str | None) -> list[Finding]:
    """Loads MXNet, computes a product, and reports its features and threads."""
    if wheel is None:
        return []
    facts = run_probe("mxnet")
    if "error" in facts:
        return [Finding(FAIL, "load", "mxnet", facts["error"], "see the lines on numpy, CUDA libraries and driver")]
    features = set(facts["features"])
    wanted = {"OPENMP", "MKLDNN"} | ({"CUDA", "CUDNN", "NCCL"} if wheel == runtime.CUDA_WHEEL else set())
    lacking = sorted(wanted - features)
    value = " ".join(facts["features"]) + (f"; without {' '.join(lacking)}" if lacking else "")
    reinstall = f"pip install --force-reinstall --no-deps {wheel}==1.9.1"
    return [
        Finding(PASS, "load", "mxnet", f"{facts['version']}, computes on the CPU; {facts['gpus']} GPUs visible"),
        Finding(FAIL if lacking else PASS, "features", "mxnet", value, reinstall if lacking else ""),
        _threads(facts["threads"], limits.available_cores(), job.local_size()),
    ]


def _threads(threads: int, cores: int, workers: int) -> Finding:
    fair = max(1, cores // workers)
    value = f"{threads} (cores {cores}, local workers {workers})"
    if threads == fair:
        return Finding(PASS, "threads", "mxnet", value)
    return Finding(WARN, "threads", "mxnet", value, f"unset OMP_NUM_THREADS, or set it to {fair}")


def examine_horovod(wheel: str | None) -> list[Finding]:
    """Loads Horovod's MXNet extension and reports what it was built with."""
    if wheel is None or not runtime.installed_version("horovod"):
        return []
    build = BUILD_HOROVOD if wheel == runtime.CPU_WHEEL else "make horovod-gpu"
    facts = run_probe("horovod")
    if "error" in facts:
        return [Finding(WARN, "mxnet extension", "horovod", facts["error"], f"{build} (one worker trains without it)")]
    built = [name for name in ("gloo", "mpi", "nccl") if facts[name]]
    findings = [Finding(PASS, "mxnet extension", "horovod", f"loads; built with {' '.join(built) or 'nothing'}")]
    if wheel == runtime.CUDA_WHEEL and not facts["nccl"]:
        findings.append(Finding(WARN, "nccl", "horovod", "not built in: gradients pass through the CPU", build))
    return findings


def run_probe(name: str) -> dict[str, Any]:
    """The facts that `probe(name)` finds in a fresh process; {"error": one line} if that process fails in any way."""
    code = "import sys; from kogpt2_gluon import doctor; doctor.probe(sys.argv[1])"
    # The folder that holds this package comes first on the path of `python -c`, installed or not.
    done = _run([sys.executable, "-c", code, name], cwd=Path(__file__).resolve().parents[1])
    if done is None:
        return {"error": f"no answer within {PROBE_SECONDS} s"}
    try:
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return facts
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return {"error": f"the process ended with code {done.returncode}: {last}"}


def probe(name: str) -> None:
    """Prints the facts as one line of JSON. This runs in the fresh process."""
    probes: dict[str, Callable[[], dict[str, Any]]] = {"mxnet": _probe_mxnet, "horovod": _probe_horovod}
    try:
        facts = probes[name]()
    except KoGPT2Error as error:
        facts = {"error": str(error)}
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    print("\n" + json.dumps(facts))


def _probe_mxnet() -> dict[str, Any]:
    mx = runtime.mx
    ones = mx.nd.ones((64, 64))
    total = float(mx.nd.dot(ones, ones).sum().asscalar())
    if total != 64.0**3:
        raise KoGPT2Error(f"a product of matrices of ones gave {total}, not {64.0**3}")
    features = mx.runtime.Features()
    return {
        "version": mx.__version__,
        "features": [feature for feature in features if features.is_enabled(feature)],
        "gpus": mx.context.num_gpus(),
        "threads": runtime.num_threads(),
    }


def _probe_horovod() -> dict[str, Any]:
    assert runtime.mx  # before Horovod, whose extension links it
    import horovod.mxnet as hvd

    return {"gloo": bool(hvd.gloo_built()), "mpi": bool(hvd.mpi_built()), "nccl": bool(hvd.nccl_built())}


# ---- the machine -------------------------------------------------------------------------------------------------


def examine_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[Finding]:
    """Reports the model, its cores, and the instruction sets that decide how fast it multiplies."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return [Finding(WARN, "instructions", "cpu", f"unknown: {cpuinfo} cannot be read")]
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    flags = set(" ".join(re.findall(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)[:1]).split())
    sets = ", ".join(name if name in flags else f"no {name}" for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16"))
    slow = "avx2" not in flags
    return [
        Finding(
            PASS, "model", "cpu", f"{model.group(1) if model else 'unknown'}; {limits.available_cores()} cores to use"
        ),
        Finding(
            WARN if slow else PASS,
            "instructions",
            "cpu",
            sets,
            "expect slow training: use a CPU with AVX2" if slow else "",
        ),
    ]


def examine_operators() -> list[Finding]:
    """Checks if the fused CPU operators can be built here; nothing is compiled."""
    try:
        isa = check_requirements()
    except KoGPT2Error as error:
        fix = f"{error}; without them training takes about twice the time"
        return [Finding(WARN, "fused operators", "cpu", "not available", fix)]
    text = f"for {isa.name}; compiled and measured at first use, or by `kogpt2 ops build`"
    found = [Finding(PASS, "fused operators", "cpu", text)]
    if faster := known_precision(BASE):
        found.append(Finding(PASS, "faster precision", "cpu", faster))
    return found


def examine_memory() -> list[Finding]:
    """Checks the memory of the machine, and the limit of its container where there is one."""
    memory, limit = psutil.virtual_memory(), limits.memory_limit()
    scarce = memory.available < 2 * GIB
    value = f"{gib(memory.available)} available of {gib(memory.total)}"
    findings = [Finding(WARN if scarce else PASS, "ram", "memory", value, "close other programs" if scarce else "")]
    if limit is not None and limit < memory.total:
        tight = limit < 4 * GIB
        fix = "give the container more memory (docker run --memory)" if tight else ""
        findings.append(Finding(WARN if tight else PASS, "container limit", "memory", gib(limit), fix))
    return findings


def examine_disk() -> list[Finding]:
    """Checks the free space where runs, temporary files and shared memory go."""
    places = (
        ("here", Path.cwd(), 5, "free some space: a checkpoint of the 124M model takes 1.5 GB"),
        ("temporary", Path(tempfile.gettempdir()), 1, "free some space, or set TMPDIR"),
        ("shared memory", Path("/dev/shm"), 1, "workers talk through it: docker run --shm-size=1g"),
    )
    findings = []
    for name, path, least, fix in places:
        try:
            free = shutil.disk_usage(path).free
        except OSError:
            findings.append(Finding(WARN, name, "disk", f"{path} does not exist", fix))
            continue
        scarce = free < least * GIB
        findings.append(
            Finding(WARN if scarce else PASS, name, "disk", f"{gib(free)} free in {path}", fix if scarce else "")
        )
    return findings


# ---- GPUs --------------------------------------------------------------------------------------------------------


def examine_gpus(wheel: str | None, gpus: Sequence[cuda.Gpu], problem: str = "") -> list[Finding]:
    """Checks each GPU: if the installed MXNet uses it, and if it can run on it at all.

    `problem` is what nvidia-smi says instead of listing any.
    """
    with_cuda = wheel == runtime.CUDA_WHEEL
    findings = [_driver(with_cuda)]
    if problem:
        findings.append(Finding(WARN, "nvidia-smi", "gpu", problem, "make `nvidia-smi` work, or train on the CPU"))
    for gpu in gpus:
        value = f"{gpu.name}, {gpu.memory_mib} MiB, driver {gpu.driver}"
        refusal = cuda.unsupported_gpu(gpu.name, *gpu.capability) if gpu.capability else None
        status, fix = PASS, ""
        if refusal:
            value, _, fix = refusal.partition(": ")
            status = FAIL if with_cuda else WARN  # a CPU-only MXNet loses nothing by it
        elif not with_cuda:
            status, fix = WARN, f"to train on it: pip uninstall -y {runtime.CPU_WHEEL}, then {runtime.INSTALL_CUDA}"
        elif tuple(int(part) for part in re.findall(r"\d+", gpu.driver)) < OLDEST_DRIVER:
            status, fix = FAIL, "install NVIDIA's driver 450.80.02 or newer: CUDA 11 needs it"
        elif gpu.capability is None:
            status, value = WARN, f"{value}, compute capability unknown"
        findings.append(Finding(status, f"gpu {gpu.index}", "gpu", value, fix))
    return findings


def _driver(with_cuda: bool) -> Finding:
    state = cuda.driver_state()
    if state == "none" and with_cuda:
        fix = f"install NVIDIA's driver, or pip uninstall -y {runtime.CUDA_WHEEL}, then {runtime.INSTALL_CPU}"
        return Finding(FAIL, "driver", "gpu", "no libcuda.so.1, and mxnet-cu112 cannot be loaded without it", fix)
    if state in ("none", "stub"):
        return Finding(WARN if with_cuda else PASS, "driver", "gpu", f"{state}: training runs on the CPU")
    return Finding(PASS, "driver", "gpu", f"libcuda.so.1 loads, {state}")


def examine_cuda_libraries() -> list[Finding]:
    """Checks each library that mxnet-cu112 links; a missing one comes with the command that installs it."""
    missing = cuda.load_libraries()
    return [
        Finding(FAIL, library.file, "cuda", "missing", f"pip install {library.package}")
        if library in missing
        else Finding(PASS, library.file, "cuda", "loads")
        for library in cuda.LIBRARIES
    ]


def _run(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str] | None:
    """A finished process with its output, or None if it cannot start or does not end in time."""
    try:
        return subprocess.run(
            list(command), capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS, cwd=cwd, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
