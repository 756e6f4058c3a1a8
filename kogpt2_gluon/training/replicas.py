"""Finds silent corruption: every worker holds the same parameters and moments, bit for bit, or one of them is wrong.

All workers begin with the same arrays and make the same updates from the same mean gradients, so a hash of the float32
parameters and the optimizer's moments is the same on all of them. A bit that flips in one worker's memory, or a
processor that adds wrongly, changes it. The hashes are compared when a run starts, every `training.compare_interval`
steps, before every save, so that a checkpoint holds only what all workers agreed on, and when a loss is odd.

It sees one worker that differs from the others. It does not see what reaches all of them alike: a gradient that was
computed wrongly, or a float16 copy of a parameter that changed between two updates, is in the mean of the gradients.
"""

from __future__ import annotations

import ctypes
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from kogpt2_gluon.errors import CorruptionError
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Float64Array, Worker
from kogpt2_gluon.training.update import Update

CHUNK = 1 << 20  # float32 numbers that are copied and hashed at a time: 4 MiB stay in a processor's cache
HALF = 1 << 32  # a hash of 64 bits travels as two float64, which hold 32 bits each exactly


class Replicas:
    """The parameters and moments of one worker, to be compared with the others'.

    Parameters
    ----------
    update : Update
    worker : Worker
        A worker alone has nothing to compare: then nothing here takes any time.
    interval : int
        Steps between two comparisons; 0: none are made.
    device : str
        Where this worker computes, for messages.
    began_with : str
        What the run began with, for messages: the name of a checkpoint, or "the start".
    """

    def __init__(self, update: Update, worker: Worker, interval: int, device: str, began_with: str) -> None:
        self._update, self._worker = update, worker
        self._interval = interval if worker.size > 1 else 0
        self._device, self._memory = device, np.empty(0, np.float32)
        self._compared: int | None = None  # the attempt after which all workers agreed last
        self._agreed_step, self._go_on_from = -1, began_with  # -1: they never agreed so far

    def compare_if_due(self, step: int, attempt: int, saving: bool) -> None:
        """Compares the workers if this step calls for it, or if it is about to be saved. Every worker calls this.

        The first call compares too: it is about what each worker began with. CorruptionError, the same on every
        worker, if their arrays differ.
        """
        if not self._interval:
            return
        due = saving or self._compared is None or step % self._interval == 0
        if due and self._compared != attempt:
            self.compare(step, attempt)
        if saving:
            self._go_on_from = f"step {step:,}, which was saved when all agreed"

    def compare(self, step: int, attempt: int) -> None:
        """Compares the workers now, unless the recipe has no comparisons. CorruptionError if their arrays differ."""
        if not self._interval:
            return
        if not self._memory.size:
            self._memory = np.empty(CHUNK, np.float32)
        hashes = hashes_of({**self._update.masters, **self._update.moments()}, self._memory)
        digest = xxhash.xxh3_64_intdigest(np.array(list(hashes.values()), "<u8").tobytes())
        if not self._worker.all_equal(divmod(digest, HALF)):
            raise CorruptionError(self._finding(step, hashes))
        self._compared, self._agreed_step = attempt, step

    def names(self) -> list[str]:
        """Returns the rank, host and device of every worker. Every worker calls this."""
        return gather_texts(self._worker, f"rank {self._worker.rank} ({socket.gethostname()}, {self._device})")

    def _finding(self, step: int, hashes: Mapping[str, int]) -> str:
        """One line: who differs, in what, and where a run can go on from. Every worker calls this."""
        everyones = self._worker.gather([divmod(each, HALF) for each in hashes.values()])  # (size, arrays, 2)
        names = self.names()
        return (
            f"step {step:,}: {describe_difference(everyones, names, list(hashes))}. Memory or a processor is "
            f"damaged, or the hosts compute differently (another CPU, GPU or build). {self._way_out()}"
        )

    def _way_out(self) -> str:
        if self._agreed_step < 0:
            return "They did not agree when the run started, so nothing was saved; test these hosts and run again"
        return (
            f"All agreed at step {self._agreed_step:,}, and nothing was saved since; test these hosts, then run again "
            f"to go on from {self._go_on_from}"
        )


def hashes_of(arrays: Mapping[str, Any], memory: Any) -> dict[str, int]:
    """Returns a hash of 64 bits of each array's bytes, on the CPU or a GPU; it waits for MXNet.

    The arrays pass through `memory` (n,) float32, a part at a time, so nothing else is needed.
    """
    address, found = memory.ctypes.data_as(ctypes.c_void_p), {}
    for name, array in arrays.items():
        assert array.dtype == memory.dtype, f"{name}: {array.dtype}"
        flat, hashed = array.reshape((-1,)), xxhash.xxh3_64()
        for start in range(0, flat.size, memory.size):
            part = flat[start : start + memory.size]
            mx.base.check_call(mx.base._LIB.MXNDArraySyncCopyToCPU(part.handle, address, ctypes.c_size_t(part.size)))
            hashed.update(memory[: part.size])
        found[name] = hashed.intdigest()
    return found


def describe_difference(everyones: Float64Array, names: list[str], arrays: list[str]) -> str:
    """Says which workers differ, and in which arrays; `everyones` are their hashes (size, arrays, 2).

    The largest group of workers that agree is taken for right. Without one larger than all others, nobody can say.
    """
    groups = [row.tobytes() for row in everyones]
    counted = Counter(groups).most_common()
    right = groups.index(counted[0][0])
    differ = [rank for rank, group in enumerate(groups) if group != groups[right]]
    unlike = np.flatnonzero((everyones[differ] != everyones[right]).any(axis=(0, 2)))
    what = f"in {len(unlike)} of {len(arrays)} arrays, first {arrays[unlike[0]]}"
    if counted[0][1] > 1 and (len(counted) == 1 or counted[0][1] > counted[1][1]):
        those, s = few([names[rank] for rank in differ]), "s" if len(differ) == 1 else ""
        return f"{those} differ{s} from the {len(names) - len(differ)} other workers, which agree, {what}"
    if len(names) == 2:
        return f"{names[0]} and {names[1]} differ {what}; with two workers nobody can say which one is wrong"
    return f"the workers differ {what}, and no group of them is the largest: {_groups(groups, names)}"


def _groups(groups: list[bytes], names: list[str]) -> str:
    together = [[name for name, each in zip(names, groups) if each == group] for group in dict.fromkeys(groups)]
    return "; ".join(few(each) for each in together[:8])


def few(names: list[str]) -> str:
    """The names, or the first few of many."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def gather_texts(worker: Worker, text: str) -> list[str]:
    """Collects the text of every worker, in the order of ranks."""
    mine = np.frombuffer(text.encode(), np.uint8)
    lengths = worker.gather([len(mine)])[:, 0].astype(int)
    padded = np.zeros(lengths.max())
    padded[: len(mine)] = mine
    everyones = worker.gather(padded).astype(np.uint8)
    return [row[:length].tobytes().decode() for row, length in zip(everyones, lengths)]
