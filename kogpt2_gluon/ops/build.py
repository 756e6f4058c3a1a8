"""Compiles the fused CPU operators on the user's machine, and loads them into MXNet.

The operators are C++ (``ops/src/cpu``). They use MXNet's library interface, whose header and source are in MXNet's
wheel, and oneDNN, from the wheels ``onednn-cpu-gomp`` and ``onednn-devel-cpu-gomp``. They are compiled once, by
`kogpt2 ops build` or when first needed, into a cache folder: KOGPT2_CACHE, else XDG_CACHE_HOME/kogpt2_gluon, else
~/.cache/kogpt2_gluon. A library's name there contains a hash of everything that it was made from: sources, compiler,
flags, instruction set, MXNet and oneDNN. So a home folder that different machines share has one library for each.

The instruction set is the best that this CPU has; the environment variable KOGPT2_OPS_ISA chooses a lower one.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_gluon.machine import runtime  # MXNet is loaded by what needs it, not by importing this
from kogpt2_gluon.machine.limits import available_cores
from kogpt2_gluon.machine.runtime import installed_version, num_threads
from kogpt2_gluon.ops.load import load_operators
from kogpt2_gluon.storage.files import commit_file

SOURCES = Path(__file__).parent / "src"
ONEDNN, ONEDNN_HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"
INSTALL_ONEDNN = f"pip install -c constraints.txt {ONEDNN} {ONEDNN_HEADERS}"
FLAGS = [
    "-O3",
    "-std=c++17",
    "-fPIC",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",  # a * b + c in one instruction; with an ISO standard GCC does not do it by default
]

# -Bsymbolic: MXNet contains the interface's classes too, and Horovod makes MXNet's symbols global. Without this flag
# they would replace the library's own, and the process would crash.
LINK_FLAGS = ["-shared", "-Wl,-Bsymbolic"]
BUILDING = ".build-"  # begins the name of a folder in which a process compiles
ABANDONED_SECONDS = 3600  # a compilation takes a minute


@dataclass(frozen=True)
class InstructionSet:
    """A level of the CPU: our loops are compiled for it, and oneDNN, which chooses at run time, uses no higher one.

    cpu_flags : names in /proc/cpuinfo that the CPU must have. onednn : a value of ONEDNN_MAX_CPU_ISA.
    """

    name: str
    cpu_flags: tuple[str, ...]
    compiler_flags: tuple[str, ...]
    onednn: str

    @property
    def has_bfloat16(self) -> bool:
        """Returns True if oneDNN has products of bfloat16 factors for it, in hardware or emulated by AVX-512."""
        return "avx512f" in self.cpu_flags


_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
_AVX512_FLAGS = ("-mavx2", "-mfma", *(f"-m{flag}" for flag in _AVX512), "-mprefer-vector-width=512")
# The best comes first. The first three differ only for oneDNN, which has products for each.
INSTRUCTION_SETS = [
    InstructionSet("amx", ("avx512_bf16", "amx_bf16", "amx_tile", *_AVX512), _AVX512_FLAGS, "ALL"),
    InstructionSet("avx512_bf16", ("avx512_bf16", *_AVX512), _AVX512_FLAGS, "AVX512_CORE_BF16"),
    InstructionSet("avx512", _AVX512, _AVX512_FLAGS, "AVX512_CORE"),
    InstructionSet("avx2", ("avx2", "fma"), ("-mavx2", "-mfma"), "AVX2"),
    InstructionSet("x86-64", (), (), "SSE41"),
]


class OperatorsUnavailable(KoGPT2Error):  # noqa: N818
    """The fused operators cannot be built or loaded here; the message says why, and the way out."""


@dataclass(frozen=True)
class Library:
    """A compiled library. `built` is True if this call compiled it."""

    path: Path
    isa: InstructionSet
    built: bool


def instruction_set() -> InstructionSet:
    """Returns the best set that this CPU has, or the one in KOGPT2_OPS_ISA; RecipeError if the CPU lacks that.

    Without KOGPT2_OPS_ISA, oneDNN's own limit, ONEDNN_MAX_CPU_ISA, holds for our loops too if it names one of the sets.
    """
    has = _cpu_flags()
    usable = [isa for isa in INSTRUCTION_SETS if set(isa.cpu_flags) <= has]
    wanted = os.environ.get("KOGPT2_OPS_ISA")
    if not wanted:
        limits = [isa.onednn for isa in INSTRUCTION_SETS]
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
        below = limits[limits.index(limit) :] if limit in limits else limits
        return next(isa for isa in usable if isa.onednn in below)
    for isa in usable:
        if isa.name == wanted:
            return isa
    names = ", ".join(isa.name for isa in usable)
    raise RecipeError(f"KOGPT2_OPS_ISA={wanted}: this CPU has {names}")


def check_requirements() -> InstructionSet:
    """Returns the instruction set to build for; OperatorsUnavailable names what is missing. MXNet is not loaded."""
    _compiler()
    _onednn_files()
    return instruction_set()


def build_cpu_operators(force: bool = False) -> Library:
    """Compiles the operators, unless the cache has them; OperatorsUnavailable if that cannot be done.

    If several processes ask at once, one compiles and the others wait.
    """
    isa, onednn = instruction_set(), _onednn_files()
    command, path = _command_and_path()
    if path.is_file() and not force:
        return Library(path, isa, built=False)
    with one_at_a_time(path):
        if path.is_file() and not force:
            return Library(path, isa, built=False)
        mxnet_folder = Path(runtime.mx.__file__).parent
        # MXNet's folder itself for common/lib_api.cc, which includes a source of MXNet's.
        includes = [f"-I{mxnet_folder / 'include'}", f"-I{mxnet_folder}", f"-I{onednn.include}"]
        _compile(command, includes, onednn.library, path)
    return Library(path, isa, built=True)


def remove_other_libraries() -> tuple[list[Path], Path]:
    """Removes the compiled operators of other sources, compilers and machines.

    Returns the removed files, and the path of this machine's own library, whether it exists or not.
    """
    _, path = _command_and_path()
    others = [other for other in sorted(cache_folder().glob("kogpt2-cpu-*.so")) if other != path]
    for other in others:
        other.unlink(missing_ok=True)
        for beside in (".lock", ".kernels.json"):  # the latter is ops/kernels.py's
            other.with_suffix(beside).unlink(missing_ok=True)
    return others, path


@functools.cache
def load_cpu_operators() -> Library:
    """Registers the operators in this process's MXNet as ``mx.nd.kogpt2_*``, once; builds them first if needed.

    Raises OperatorsUnavailable if they cannot be built or loaded.
    """
    if os.environ.get("KOGPT2_OPS_ISA"):
        os.environ["ONEDNN_MAX_CPU_ISA"] = instruction_set().onednn  # oneDNN reads it at its first product
    library = build_cpu_operators()
    try:
        load_operators(library.path)
        ctypes.CDLL(str(library.path)).kogpt2_set_num_threads(num_threads())
    except (OSError, runtime.mx.MXNetError) as error:
        raise OperatorsUnavailable(
            f"{library.path}: the compiled operators do not load ({_first_line(str(error))}); "
            "compile them again: `kogpt2 ops build --force`"
        ) from None
    return library


def cache_folder() -> Path:
    """Returns the folder of the compiled libraries."""
    if os.environ.get("KOGPT2_CACHE"):
        return Path(os.environ["KOGPT2_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kogpt2_gluon"


def source_files() -> list[Path]:
    """Returns the C++ files to compile, in a fixed order."""
    return sorted([*(SOURCES / "cpu").glob("*.cc"), *(SOURCES / "common").glob("*.cc")])


# ---- what is needed -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OneDNN:
    library: Path
    include: Path


def _onednn_files() -> _OneDNN:
    """Returns the places where pip installed the library and its headers."""
    library = _installed_file(ONEDNN, "libdnnl.so.3")
    header = _installed_file(ONEDNN_HEADERS, "dnnl.hpp")
    if library is None or header is None:
        missing = ONEDNN if library is None else ONEDNN_HEADERS
        raise OperatorsUnavailable(f"{missing} is not installed: {INSTALL_ONEDNN}")
    # The wheel contains dnnl.hpp twice; one of them only includes the other, in oneapi/dnnl/.
    include = header.parent.parent.parent if header.parent.name == "dnnl" else header.parent
    return _OneDNN(library, include)


def _installed_file(package: str, name: str) -> Path | None:
    try:
        files = importlib.metadata.distribution(package).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(file.locate()).resolve() for file in files if file.name == name]
    return next((path for path in sorted(found) if path.is_file()), None)


def _compiler() -> tuple[str, str]:
    """(path, version line) of CXX or g++."""
    name = os.environ.get("CXX") or "g++"
    path = shutil.which(name)
    if path is None:
        raise OperatorsUnavailable(f"no C++ compiler ({name}) was found: install g++, or set CXX to one")
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise OperatorsUnavailable(f"{path} --version failed: {_first_line(answer.stderr)}")
    return path, _first_line(answer.stdout)


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """Returns the names in the flags line of /proc/cpuinfo; oneDNN's wheel is for x86-64 only."""
    if platform.machine() != "x86_64":
        raise OperatorsUnavailable(f"the fused operators are for x86-64 CPUs, not {platform.machine()}")
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


# ---- compiling ------------------------------------------------------------------------------------------------------


def _command_and_path() -> tuple[list[str], Path]:
    """Returns the compiler's command, and the library's path in the cache, which depends on all that goes into it."""
    compiler, version = _compiler()
    command = [compiler, *FLAGS, *instruction_set().compiler_flags]
    key = _key(
        [*command, *LINK_FLAGS],
        version,
        runtime.mx.__version__,
        installed_version(ONEDNN) or "",
        str(_onednn_files().library.parent),
    )
    return command, cache_folder() / f"kogpt2-cpu-{key}.so"


def _key(command: list[str], *versions: str) -> str:
    digest = hashlib.sha256("\0".join([*command, *versions]).encode())
    for path in sorted(SOURCES.rglob("*")):
        if path.suffix in (".cc", ".h") and path.parent.name != "cuda":
            digest.update(f"\0{path.relative_to(SOURCES)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Holds a lock that ends with this process; if the file system has no locks, every process compiles for itself."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise OperatorsUnavailable(
            f"{path.parent}: cannot be written ({error.strerror}); set KOGPT2_CACHE to a writable folder"
        ) from None
    with lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(command: list[str], includes: list[str], onednn: Path, path: Path) -> None:
    """Compiles the sources in parallel, links them, and moves the library to `path` once it is complete."""
    sources = source_files()
    print(f"compiling the fused operators ({len(sources)} files, about half a minute, once)", file=sys.stderr)
    _remove_abandoned(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=BUILDING) as folder:
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]
        steps = [[*command, *includes, "-c", str(s), "-o", str(o)] for s, o in zip(sources, objects)]
        with ThreadPoolExecutor(available_cores()) as pool:
            running = [pool.submit(_run, step) for step in steps]
            wait(running, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)  # one has failed, or all have ended
        for compiled in running:
            if not compiled.cancelled():
                compiled.result()
        linked = Path(folder) / path.name
        # -rpath: oneDNN is found where pip installed it, whatever LD_LIBRARY_PATH is later.
        link = [*LINK_FLAGS, f"-Wl,-rpath,{onednn.parent}", *map(str, objects), str(onednn), "-o", str(linked)]
        _run([*command, *link])
        with linked.open("rb+") as library:
            commit_file(library, path)


def _remove_abandoned(folder: Path) -> None:
    """Removes what a process that was killed while it compiled has left; another host may be compiling now."""
    for left in folder.glob(f"{BUILDING}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _run(command: list[str]) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        errors = [line for line in answer.stderr.splitlines() if "error" in line] or answer.stderr.splitlines()
        raise OperatorsUnavailable(f"the fused operators do not compile: {errors[0] if errors else command}")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
