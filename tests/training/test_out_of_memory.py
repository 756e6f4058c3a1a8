"""When memory runs out, one line says what is needed, what there is, and which setting to lower; and that one fits."""

from __future__ import annotations

import errno
import re
import sys

import pytest

from kogpt2_gluon.errors import OutOfMemoryError
from kogpt2_gluon.estimate import FUSED_CPU, FUSED_CUDA
from kogpt2_gluon.machine.limits import Memory
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training import fitting, out_of_memory
from kogpt2_gluon.training.dry_run import describe
from kogpt2_gluon.training.fitting import advice, largest_batch, needed
from kogpt2_gluon.training.out_of_memory import explain, memory_named
from tests.helpers import run

# A training that may have so many MiB more than the program itself.
WITH_LITTLE_MEMORY = """
import resource, sys
from kogpt2_gluon.cli.main import main
from kogpt2_gluon.machine.limits import host_memory, PROC, _read_kib
from kogpt2_gluon.machine import runtime

runtime.prepare(1)
runtime.mx.nd.ones((1000, 1000)).asnumpy()
most = _read_kib(PROC / "self" / "status")["VmSize"] + (int(sys.argv[1]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
sys.argv[:2] = ["kogpt2"]
main()
"""
BASE = 124_242_432


def base(*overrides: str):
    return load_recipe("kogpt2_base", ["data.train=", "data.test=", "evaluation.stop_improvement=0", *overrides])


def test_a_run_that_needs_more_than_there_is_says_what_fits(tiny, tmp_path):
    model = ["model.units=256", "model.num_layers=4", "model.num_heads=4", "model.max_length=256"]
    options = [*tiny, *model, "data.seq_length=256", "data.test=", "training.num_steps=1", "training.ops=auto"]
    options += ["training.total_batch_size=32"]
    command = [sys.executable, "-c", WITH_LITTLE_MEMORY, 700, "train", "debug_cpu", *options]
    done = run(*command, "training.batch_size=32", code=1, OMP_NUM_THREADS="1")
    line = done.stderr.strip()
    assert re.fullmatch(
        r"kogpt2: out of memory: a worker needs \S+ [GM]iB by the estimate, this one had \S+ MiB, and this process's "
        r"limit \(ulimit -v\) has \S+ MiB; take training\.batch_size=\d+ \(training\.total_batch_size stays, in \d+ "
        r"micro steps an update\)(, or .*)?",
        line,
    ), line
    batch = re.search(r"take training\.batch_size=(\d+)", line)
    assert batch and 1 <= int(batch[1]) < 32
    run(*command, f"training.batch_size={batch[1]}", OMP_NUM_THREADS="1")


def test_the_estimate_decides_which_batch_fits():
    recipe = base("training.batch_size=8", "training.total_batch_size=64")
    for workers in (1, 2):
        for room in (3 << 30, 6 << 30, 9 << 30, 30 << 30):
            most = largest_batch(recipe, FUSED_CPU, "cpu", workers, room)
            sizes = [1, 2, 4, 8, 16, 32, 64][: 7 - (workers - 1)]
            fit = [size for size in sizes if cost(recipe, size, workers) <= room]
            assert most == max(fit, default=0)
            assert largest_batch(recipe, FUSED_CPU, "cpu", workers, room, most - 1) < most or not most
    copy = needed(base("checkpoint.in_background=true"), FUSED_CPU, "cpu", 1)
    copy -= needed(base("checkpoint.in_background=false"), FUSED_CPU, "cpu", 1)
    assert copy == 12 * BASE  # parameters and two moments; on a GPU it is in the host's memory
    assert needed(base(), FUSED_CUDA, "gpu", 1) == needed(base("checkpoint.in_background=false"), FUSED_CUDA, "gpu", 1)


def cost(recipe, batch_size, workers):
    return needed(fitting._with(recipe, batch_size=batch_size), FUSED_CPU, "cpu", workers)


def test_what_is_advised_fits_and_is_the_least_change():
    recipe = base("training.batch_size=32", "training.total_batch_size=64")
    said = [advice(recipe, FUSED_CPU, "cpu", 1, int(room * 2**30)) for room in (23, 12, 6, 4.5, 3.7, 2)]
    assert said[0].startswith(
        "take checkpoint.in_background=false, or training.batch_size=16 (training.total_batch_size"
    )
    assert said[1].startswith(
        "take training.batch_size=8 (training.total_batch_size stays, in 8 micro steps an update), or"
    )
    assert "or training.recompute=layer with training.batch_size=16 (" in said[1]
    assert said[2].startswith("take training.batch_size=2 (")
    assert said[3].startswith("take training.recompute=layer with training.batch_size=1") or "batch_size=1 (" in said[3]
    assert re.fullmatch(r"take training.recompute=layer with training.batch_size=1 and data.seq_length=\d+", said[4])
    assert said[5].startswith("take a smaller model: with training.recompute=layer and training.batch_size=1 this one")


def test_memory_that_should_have_been_enough():
    recipe = base("training.batch_size=4", "training.total_batch_size=64", "training.device=cpu")
    line = explain(recipe, "cpu", 1, Memory(64 << 30, 3 << 30, "this machine"), 5 << 30)
    assert "this one had 5.00 GiB, and this machine has 64.00 GiB, 3.00 GiB of it free; take " in line
    assert "training.batch_size=2 (" in line and "\n" not in line


@pytest.mark.parametrize(
    "text",
    [
        'Traceback:\n File "../src/storage/./cpu_device_storage.h", line 74\nMXNetError: Failed to allocate CPU Memory',
        '  File "src/storage/./pooled_storage_manager.h", line 161\nMXNetError: cudaMalloc retry failed: out of memory',
        "src/storage/./pooled_storage_manager.h:157: cudaMalloc failed: out of memory",
        "Check failed: e == CUDNN_STATUS_SUCCESS (4 vs. 0) : cuDNN: CUDNN_STATUS_ALLOC_FAILED",
        "Error calling FCompute for custom operator 'kogpt2_attention'\nExtension Traceback:\n\t[0] std::bad_alloc",
    ],
)
def test_what_mxnet_says_when_memory_runs_out(text):
    with pytest.raises(OutOfMemoryError, match=r"^out of memory: a worker needs "), memory_named(base()):
        raise mx.MXNetError(text)


def test_other_errors_pass(monkeypatch):
    recipe = base()
    for error in (mx.MXNetError("Shape inconsistent"), OSError(errno.ENOSPC, "full"), ValueError("x")):
        with pytest.raises(type(error)) as caught, memory_named(recipe):
            raise error
        assert caught.value is error
    for error in (MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")):
        with pytest.raises(OutOfMemoryError), memory_named(recipe):
            raise error
    vague = mx.MXNetError("library_interface.h[52]: could not create a primitive")
    for free, expected in ((10 << 30, mx.MXNetError), (1 << 20, OutOfMemoryError)):
        monkeypatch.setattr(out_of_memory, "host_memory", lambda free=free: Memory(32 << 30, free, "this machine"))
        with pytest.raises(expected), memory_named(recipe):
            raise vague


def test_a_dry_run_says_what_fits(monkeypatch):
    from kogpt2_gluon.training import dry_run

    monkeypatch.setattr(dry_run, "host_memory", lambda: Memory(16 << 30, 9 << 30, "this machine"))
    text = describe(base("training.batch_size=8", "training.total_batch_size=64"), size=1)
    assert re.search(
        r"\nfits +on a CPU, 8\.\d\d GiB a worker: this machine has 16\.00 GiB for 1; batch_size up to \d+\n", text
    )
    assert re.search(r"\n +on a GPU, batch_size up to 4 in 16 GB, .* in 80 GB\n", text)
    text = describe(base("training.batch_size=64", "training.total_batch_size=64", "training.device=cpu"), size=1)
    assert "this machine has 16.00 GiB for 1; take training.batch_size=" in text and "on a GPU" not in text
