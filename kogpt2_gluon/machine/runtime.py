"""The only way to MXNet: threads, CUDA libraries and versions are set before it is loaded.

Write ``from kogpt2_gluon.machine.runtime import mx, nlp`` in place of ``import mxnet as mx`` and
``import gluonnlp as nlp``: MXNet is loaded when ``mx`` or ``nlp`` is first taken from this module, and not before.
Everything else here works without MXNet.

What is set before, and why:

- the number of OpenMP threads: with ``OMP_NUM_THREADS`` unset MXNet's worker thread computes with one thread only;
  setting it gives 1.8 times the speed on two cores. MXNet reads it once, while it is being loaded.
- how long a thread that waits for others keeps its core (``GOMP_SPINCOUNT``). By libgomp's default that is some
  milliseconds, in which nothing goes on if another program has the other core: recipes/small_cpu.yaml with batches of
  8, next to one such program on two cores (AMD Zen 5), trained at 452 tokens/s, and at 5,700 with WAIT; alone the two
  were within 2%, at 12,700 to 15,900. ``OMP_WAIT_POLICY=passive`` was 12% slower alone.
- for ``mxnet-cu112``, the CUDA libraries of NVIDIA's wheels: it links them but does not know where they are.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_gluon.machine import cuda
from kogpt2_gluon.machine.job import local_size
from kogpt2_gluon.machine.limits import available_cores
from kogpt2_gluon.machine.mxnet_import import import_mxnet

if TYPE_CHECKING:  # both come from __getattr__ below
    mx: Any
    nlp: Any

CPU_WHEEL, CUDA_WHEEL = "mxnet", "mxnet-cu112"
# These install from a checkout, because the package is not on a registry.
INSTALL_CPU = "pip install -c constraints.txt -e '.[cpu]'"
INSTALL_CUDA = "pip install -c constraints.txt -e '.[cu112]'"

_chosen_threads = 0  # from prepare(), or the number that MXNet was loaded with; 0: not chosen yet
_waits_briefly = False  # from wait_briefly()
WAIT, BRIEF_WAIT = 4000, 400  # rounds of libgomp's loop, about 100 and 10 microseconds


# ---- threads -----------------------------------------------------------------------------------------------------


def prepare(threads: int = 0) -> None:
    """Sets the number of CPU threads of this process before MXNet is loaded; 0 keeps the automatic choice.

    Another number after MXNet is loaded is a mistake in the calling code, because it would have no effect.
    """
    global _chosen_threads
    assert threads >= 0, threads
    if threads == 0 or threads == num_threads():
        return
    assert "mxnet" not in sys.modules, f"prepare(threads={threads}) after MXNet was loaded with {num_threads()}"
    _chosen_threads = threads


def wait_briefly() -> None:
    """Makes CPU threads that wait for others sleep sooner, if MXNet is not loaded yet; for work next to a training.

    Compared with libgomp's own wait, at a load of 8 on two cores, a new token took 60 ms with this and 280 without;
    alone it took 13.3 ms and 12.6. For 2 x 256 tokens of an evaluation it was 2.1 s and 6.1, then 357 and 343 ms.
    OMP_WAIT_POLICY or GOMP_SPINCOUNT, where a user set it, wins.
    """
    global _waits_briefly
    _waits_briefly = True


def num_threads() -> int:
    """Returns this process's CPU threads: prepare()'s, else OMP_NUM_THREADS, else available cores / local workers."""
    return _chosen_threads or _environment_threads() or max(1, available_cores() // local_size())


def _environment_threads() -> int:
    """Returns OMP_NUM_THREADS, of nested levels such as "4,2" the first; 0 if it is unset or not a number."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() else 0


# ---- loading -----------------------------------------------------------------------------------------------------


def __getattr__(name: str) -> Any:
    """Loads MXNet when `mx` or `nlp` is first used."""
    if name == "mx":
        return _load_mxnet()
    if name == "nlp":
        _load_mxnet()
        import gluonnlp

        return gluonnlp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _load_mxnet() -> Any:
    # From 8 gradients of one array on, MXNet adds them up in place, which operators of a library cannot do: they would
    # silently overwrite each other. With this variable it adds up copies. MXNet reads it at the first gradient, so it
    # is never set too late here.
    os.environ.setdefault("MXNET_EXEC_INPLACE_GRAD_SUM_CAP", "1000")
    # MXNet copies arrays of 200,000 numbers and more to and from NumPy by OpenMP in Python's thread, which has its own
    # team from then on. If the teams have more threads than there are cores, libgomp puts waiting threads to sleep at
    # once, and every later parallel region must wake them first: a step of generation took 31 ms instead of 19.
    os.environ.setdefault("MXNET_CPU_PARALLEL_SIZE", str(2**31 - 1))
    if "mxnet" in sys.modules:  # a notebook may have begun with `import mxnet`
        warnings.warn(
            "mxnet was imported before kogpt2_gluon.machine.runtime: its thread count is OMP_NUM_THREADS, or 1 without",
            RuntimeWarning,
            stacklevel=3,
        )
        return sys.modules["mxnet"]
    wheel = installed_wheel()
    if wheel is None:
        raise KoGPT2Error(f"MXNet is not installed: {INSTALL_CPU}, or for NVIDIA GPUs {INSTALL_CUDA}")
    check_numpy()
    if wheel == CUDA_WHEEL:
        _require_cuda_libraries()
    try:
        with _thread_environment(), warnings.catch_warnings():
            # MXNet 1.9.1 uses aliases that NumPy 1.20 deprecated, and distutils' version classes: harmless here.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"mxnet\.numpy")
            return import_mxnet()
    except (ImportError, OSError) as error:
        raise KoGPT2Error(
            f"{wheel} is installed but cannot be loaded: {error}; `kogpt2 doctor` finds out more"
        ) from error


@contextmanager
def _thread_environment() -> Iterator[None]:
    """Sets what OpenMP reads while MXNet is loaded, then restores it: processes started from here choose themselves."""
    global _chosen_threads
    _chosen_threads = num_threads()
    wanted = {"OMP_NUM_THREADS": str(_chosen_threads)}
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        wanted["GOMP_SPINCOUNT"] = str(BRIEF_WAIT if _waits_briefly else WAIT)
    before = {name: os.environ.pop(name, None) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def installed_version(package: str) -> str | None:
    """Returns the version of an installed distribution, or None; nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_wheel() -> str | None:
    """Returns the name of the installed MXNet: "mxnet-cu112", "mxnet" (CPU only), or None."""
    return next((wheel for wheel in (CUDA_WHEEL, CPU_WHEEL) if installed_version(wheel)), None)


def check_numpy() -> None:
    """Raises KoGPT2Error if NumPy is too new: 1.24 removed names that MXNet 1.9.1 uses."""
    version = installed_version("numpy") or "0"
    major, minor = (int(part) for part in re.findall(r"\d+", version + ".0")[:2])
    if (major, minor) >= (1, 24):
        raise KoGPT2Error(f"NumPy {version} is too new for MXNet 1.9.1: pip install 'numpy<1.24'")


def _require_cuda_libraries() -> None:
    missing = cuda.load_libraries()
    if missing:
        files = ", ".join(library.file for library in missing)
        packages = " ".join(dict.fromkeys(library.package for library in missing))
        raise KoGPT2Error(f"{CUDA_WHEEL} lacks {files}: pip install {packages}")
    try:
        ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        raise KoGPT2Error(
            f"{CUDA_WHEEL} needs NVIDIA's driver (libcuda.so.1), which this machine lacks: install the driver, or "
            f"train on the CPU: pip uninstall -y {CUDA_WHEEL}, then {INSTALL_CPU}"
        ) from None


# ---- devices --------------------------------------------------------------------------------------------------------


def context(device: str = "auto", local_rank: int = 0) -> Any:
    """Returns the MXNet context of a worker: mx.gpu(local_rank), or mx.cpu() for 'cpu', and for 'auto' without a GPU.

    Raises RecipeError if `device` is 'gpu' and there is none, if this worker has no GPU of its own, or if MXNet's wheel
    contains no code for it.
    """
    assert device in ("auto", "cpu", "gpu"), device
    mxnet = _load_mxnet()
    if device == "cpu":
        return mxnet.cpu()
    try:
        count = mxnet.context.num_gpus()
    except mxnet.MXNetError as error:
        raise KoGPT2Error(f"the GPUs cannot be counted: {str(error).splitlines()[-1]}; see `kogpt2 doctor`") from None
    if count == 0:
        if device == "auto":
            return mxnet.cpu()
        reason = "no GPU is visible" if installed_wheel() == CUDA_WHEEL else f"this MXNet has no CUDA ({INSTALL_CUDA})"
        raise RecipeError(
            f"device gpu: {reason}; see `kogpt2 doctor`, or take the CPU (training.device=cpu, --device cpu)"
        )
    if local_rank >= count:
        raise RecipeError(
            f"local rank {local_rank} has no GPU of its own: {count} visible; start at most {count} a host"
        )
    capability = cuda.compute_capability(local_rank)
    refusal = cuda.unsupported_gpu(f"GPU {local_rank}", *capability) if capability else None
    if refusal:
        raise RecipeError(refusal)
    return mxnet.gpu(local_rank)
