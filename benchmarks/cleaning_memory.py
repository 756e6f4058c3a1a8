"""The memory of a command and its children."""

from __future__ import annotations

import subprocess
import time

import psutil

SAMPLE_SECONDS = 0.02  # between two looks at the memory


def peak_memory(command: list[str]) -> tuple[float, float]:
    """(MB, seconds) of a command: the largest sum of resident memory over it and its children."""
    began, peak = time.perf_counter(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        total = 0
        try:
            for member in (process, *process.children(recursive=True)):
                try:
                    total += member.memory_info().rss
                except psutil.Error:  # ended between two looks
                    continue
        except psutil.Error:
            continue
        peak = max(peak, total)
        time.sleep(SAMPLE_SECONDS)
    said = process.stderr.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{said[-2000:]}")
    return peak / 1e6, time.perf_counter() - began
