#!/usr/bin/env bash
# OpenVINO: two Cores that go in the order in which they came, and the thread's alternate signal stack is freed memory.
#
# Guess: a Core that is gone leaves the process as it found it.
# What happens: the CPU plugin of each Core gives the calling thread an alternate signal stack (sigaltstack) of its own and
# remembers the one before it. When it goes, it unmaps its stack, and puts the one before back only if its own is still the
# current one. With OpenVINO 2026.4.1, the first of two Cores therefore unmaps its stack while the second one's is current, and
# the second one then puts the unmapped stack back. In the opposite order all is well, and so it is with one Core.
# It matters to whoever converts a network to OpenVINO and checks it in a process that does other things, such as a test
# suite or a service: Python's own handlers run on that stack (SA_ONSTACK), so the process ends with a segmentation fault
# at the first signal that it handles, long after OpenVINO was used, and the crash names kill() or whatever ran then.
# The way out: one Core for the life of the process, or sigaltstack called with the former stack afterwards.
#
# This script only looks where the stack is; it sends no signal.
#
# Output on 2026-11-30:
#   openvino 2026.4.1
#   before: none
#   a Core: a stack, mapped; a second one: another stack, mapped
#   without the first: the second one's stack, mapped
#   without both: the first one's stack, not mapped
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps openvino==2026.4.1 numpy==1.23.5

venv/bin/python -W ignore - <<'EOF'
import ctypes
import gc
import sys
from importlib.metadata import version

sys.modules["openvino_telemetry"] = None  # else it reports each use
import openvino


class Stack(ctypes.Structure):
    """stack_t of <signal.h>"""

    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def current():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.place


def is_mapped(place):
    with open("/proc/self/maps") as maps:
        ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps]
    return any(begin <= place < end for begin, end in ranges)


def words(place):
    return "mapped" if is_mapped(place) else "not mapped"


def core():
    made = openvino.Core()
    made.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return made


print(f"openvino {version('openvino')}")
print(f"before: {current() or 'none'}")
first_core = core()
first = current()
second_core = core()
second = current()
assert first and second and first != second, "the behaviour has changed"
print(f"a Core: a stack, {words(first)}; a second one: another stack, {words(second)}")
del first_core
gc.collect()
assert current() == second, "the behaviour has changed"
print(f"without the first: the second one's stack, {words(second)}")
del second_core
gc.collect()
assert current() == first and not is_mapped(first), "the behaviour has changed"
print(f"without both: the first one's stack, {words(first)}")
EOF
