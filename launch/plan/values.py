"""Values that Horovod or NCCL cannot parse, or take otherwise than meant.

Horovod reads numbers with strtol, base 10, and NCCL with strtoll, base 0. Both stop at the first character that is not
part of the number and say nothing: 64MB is 64 bytes, 1e6 is 1, true is 0, and for NCCL 0100 is 64. Other variables hold
one word of a few, and any other word is taken for the default.
"""

from __future__ import annotations

import re
from typing import Callable

from kogpt2_gluon.findings import FAIL, Finding

HOROVOD_SOURCE = "Horovod 0.28.1, horovod/common: operations.cc, parameter_manager.cc, env_parser.cc, logging.cc"
NCCL_SOURCE = "NCCL 2.14.3, src/misc/param.cc and debug.cc"

HOROVOD_INTEGERS = (  # flags too: a flag is off at 0 and on above
    *("ADASUM_MPI_CHUNK_SIZE", "AUTOTUNE", "AUTOTUNE_BAYES_OPT_MAX_SAMPLES", "AUTOTUNE_STEPS_PER_SAMPLE"),
    *("AUTOTUNE_WARMUP_SAMPLES", "BATCH_D2D_MEMCOPIES", "CACHE_CAPACITY", "CCL_CACHE", "DISABLE_GROUP_FUSION"),
    *("DISABLE_NVTX_RANGES", "DYNAMIC_PROCESS_SETS", "ELASTIC", "ENABLE_ASYNC_COMPLETION", "ENABLE_XLA_OPS"),
    *("FUSION_THRESHOLD", "GLOO_TIMEOUT_SECONDS", "HIERARCHICAL_ALLGATHER", "HIERARCHICAL_ALLREDUCE", "LOG_HIDE_TIME"),
    *("MPI_THREADS_DISABLE", "NUM_NCCL_STREAMS", "STALL_CHECK_DISABLE", "STALL_CHECK_TIME_SECONDS"),
    *("STALL_SHUTDOWN_TIME_SECONDS", "TIMELINE_MARK_CYCLES", "TORUS_ALLREDUCE"),
)
HOROVOD_NUMBERS = ("AUTOTUNE_GAUSSIAN_PROCESS_NOISE", "CYCLE_TIME")
HOROVOD_LEVELS = ("trace", "debug", "info", "warning", "error", "fatal")

# Every NCCL_PARAM of 2.14.3, which mxnet-cu112 comes with, but those for debugging NCCL itself.
NCCL_INTEGERS = (
    *("AGG_CHANNEL_SIZE", "BUFFSIZE", "CHECK_POINTERS", "CHUNK_SIZE", "COLLNET_ENABLE", "COLLNET_NODE_THRESHOLD"),
    *("COMM_BLOCKING", "CREATE_THREAD_CONTEXT", "CROSS_NIC", "DMABUF_ENABLE", "GDRCOPY_ENABLE", "GDRCOPY_FIFO_ENABLE"),
    *("GDRCOPY_FLUSH_ENABLE", "GDRCOPY_SYNC_ENABLE", "GDR_FLUSH_DISABLE", "GRAPH_DUMP_FILE_RANK"),
    *("GRAPH_HELPER_DISABLE", "GRAPH_MIXING_SUPPORT", "GRAPH_REGISTER", "GROUP_CUDA_STREAM", "IB_AR_THRESHOLD"),
    *("IB_DISABLE", "IB_GID_INDEX", "IB_PCI_RELAXED_ORDERING", "IB_PKEY", "IB_QPS_PER_CONNECTION", "IB_RETRY_CNT"),
    *("IB_SL", "IB_TC", "IB_TIMEOUT", "IB_USE_INLINE", "IGNORE_CPU_AFFINITY", "IGNORE_DISABLED_P2P"),
    *("L1_SHARED_MEMORY_CARVEOUT", "LL128_BUFFSIZE", "LL128_NTHREADS", "LL_BUFFSIZE", "MAX_NCHANNELS", "MAX_NRINGS"),
    *("MAX_P2P_NCHANNELS", "MIN_NCHANNELS", "MIN_NRINGS", "MIN_P2P_NCHANNELS", "NCHANNELS_PER_NET_PEER"),
    *("NET_DISABLE_INTRA", "NET_GDR_READ", "NET_SHARED_BUFFERS", "NET_SHARED_COMMS", "NSOCKS_PERTHREAD", "NTHREADS"),
    *("NVB_DISABLE", "NVB_PRECONNECT", "P2P_DIRECT_DISABLE", "P2P_DISABLE", "P2P_LL_THRESHOLD", "P2P_NET_CHUNKSIZE"),
    *("P2P_PXN_LEVEL", "P2P_READ_ENABLE", "P2P_USE_CUDA_MEMCPY", "PROXY_DUMP_SIGNAL", "PXN_DISABLE", "SET_STACK_SIZE"),
    *("SET_THREAD_NAME", "SHM_DISABLE", "SHM_LOCALITY", "SHM_MEMCPY_MODE", "SHM_USE_CUDA_MEMCPY", "SOCKET_NTHREADS"),
    *("TOPO_DUMP_FILE_RANK", "WORK_FIFO_DEPTH"),
)
NCCL_LEVELS = ("version", "warn", "info", "abort", "trace")
NCCL_SUBSYSTEMS = ("init", "coll", "p2p", "shm", "net", "graph", "tuning", "env", "alloc", "call", "all")

LARGEST = 2**63 - 1
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def _decimal(value: str) -> str:
    if re.fullmatch(r"[0-9]+", value) and int(value) <= LARGEST:
        return ""
    return f"Horovod would read {_read(value, 10)}: give a whole number of decimal digits{_size(value)}"


def _real(value: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,2})?|\.[0-9]+", value):
        return ""
    found = re.match(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)", value)
    return f"Horovod would read {found[0].strip() if found else 0}: give a number, such as 3.5"


def _level(value: str) -> str:
    if value.lower() in HOROVOD_LEVELS:
        return ""
    return f"Horovod would take warning: give one of {', '.join(HOROVOD_LEVELS)}"


def _cores(value: str) -> str:
    if all(re.fullmatch(r"[0-9]{1,6}", each) for each in value.split(",")):
        return ""
    return "Horovod would read other cores: give their numbers with commas between them, such as 0,4,8"


def _any_base(value: str) -> str:
    if re.fullmatch(r"|[-+]?(0|[1-9][0-9]*|0[xX][0-9a-fA-F]+)", value):  # an empty value is the default
        return ""
    return f"NCCL would read {_read(value, 0)}: give a whole number without a leading 0{_size(value)}"


def _nccl_level(value: str) -> str:
    if value.lower() in NCCL_LEVELS:
        return ""
    return f"NCCL would log nothing: give one of {', '.join(NCCL_LEVELS).upper()}"


def _subsystems(value: str) -> str:
    unknown = [each for each in value.removeprefix("^").split(",") if each.lower() not in NCCL_SUBSYSTEMS]
    if not unknown:
        return ""
    return (
        f"NCCL would ignore {unknown[0]!r}: give some of {', '.join(NCCL_SUBSYSTEMS).upper()}, ^ in front for all but"
    )


def _read(value: str, base: int) -> int:
    """The number that strtol makes of a text."""
    pattern = r"\s*([-+]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[0-9]+)" if base == 0 else r"\s*([-+]?)([0-9]+)"
    found = re.match(pattern, value)
    if not found:
        return 0
    digits = found[2]
    octal = base == 0 and digits[:1] == "0" and digits[1:].isdigit()
    number = int(digits, 8) if octal else int(digits, 16 if digits[:2].lower() == "0x" else 10)
    return max(-LARGEST - 1, min(LARGEST, -number if found[1] == "-" else number))


def _size(value: str) -> str:
    """The bytes of a text such as 64MB, as a hint; empty for any other text."""
    found = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*([kmg]?)i?b?\s*", value, re.IGNORECASE)
    if not found or not (found[2] or "." in found[1] or value.strip()[-1:].lower() == "b"):
        return ""
    return f"; {value.strip()} is {round(float(found[1]) * UNITS[found[2].lower()])}"


CHECKS: dict[str, tuple[Callable[[str], str], str]] = {
    **{f"HOROVOD_{name}": (_decimal, HOROVOD_SOURCE) for name in HOROVOD_INTEGERS},
    **{f"HOROVOD_{name}": (_real, HOROVOD_SOURCE) for name in HOROVOD_NUMBERS},
    "HOROVOD_LOG_LEVEL": (_level, HOROVOD_SOURCE),
    "HOROVOD_THREAD_AFFINITY": (_cores, HOROVOD_SOURCE),
    **{f"NCCL_{name}": (_any_base, NCCL_SOURCE) for name in NCCL_INTEGERS},
    "NCCL_DEBUG": (_nccl_level, NCCL_SOURCE),
    "NCCL_DEBUG_SUBSYS": (_subsystems, NCCL_SOURCE),
}


def unreadable(name: str, value: str) -> Finding | None:
    """A failed finding on a variable whose value Horovod or NCCL would take otherwise than it says; None for others."""
    if name not in CHECKS:
        return None
    check, source = CHECKS[name]
    problem = check(value)
    return Finding(FAIL, name, source, problem) if problem else None
