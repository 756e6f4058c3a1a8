"""The fused operators' build: cache, faults with their way out, instruction sets, several processes at once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli import ops as cli_ops
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.ops import build

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

# A product, a GELU, a dropout mask and a sum: what differs between instruction sets. In float32 by oneDNN, and in both
# precisions by the packed kernels, whose vectors and tiles are of another size in each set. And products of generation.
COMPUTE = """
import ctypes, json
import numpy as np
from kogpt2_gluon.ops.build import load_cpu_operators
from kogpt2_gluon.ops.kernel_times import ONEDNN
from kogpt2_gluon.ops.kernels import PACKED
library = load_cpu_operators()
from kogpt2_gluon.machine.runtime import mx
rng = np.random.RandomState(0)
shapes = [(3, 5, 20), (20,), (20,), (70, 20), (70,), (20, 70), (20,), (3, 5, 20)]
arrays = [mx.nd.array(rng.randn(*shape) * 0.5) for shape in shapes]
for array in arrays:
    array.attach_grad()
seed = mx.nd.array((rng.rand(64) > 0.5) * 2.0)
gradient = mx.nd.array(rng.randn(3, 5, 20))
bias, values = mx.nd.zeros(70), []
weight = mx.nd.array(rng.randn(70, 200))
for convert in (mx.nd.array, mx.nd.kogpt2_pack_int8):
    values.append(mx.nd.kogpt2_decode_linear(mx.nd.array(rng.randn(13, 200)), convert(weight), bias))
for bits, groups in ((1, 1), (2, 8), (3, 1), (3, 8), (4, 1), (4, 8)):
    planes = mx.nd.array(rng.randint(0, 256, (bits, 70, 25)), dtype="uint8")
    packed = mx.nd.kogpt2_pack_codes(planes, mx.nd.array(rng.randn(bits, 70, groups)), columns=200)
    values.append(mx.nd.kogpt2_decode_linear(mx.nd.array(rng.randn(13, 200)), packed, bias))
values = [v.asnumpy().ravel().tolist() for v in values]
for kernel, precision in ((ONEDNN, "float32"), (PACKED, "float32"), (PACKED, "bfloat16")):
    ctypes.CDLL(str(library.path)).kogpt2_set_kernel(kernel)
    ctypes.CDLL(str(library.path)).kogpt2_set_bfloat16_kernel(0)
    with mx.autograd.record():
        hidden = mx.nd.kogpt2_norm_linear(*arrays[:5], precision=precision)
        rest = dict(p=0.25, site=3, precision=precision)
        out = mx.nd.kogpt2_gelu_linear_dropout_residual(hidden, *arrays[5:], seed, **rest)
    out.backward(gradient)
    values += [v.asnumpy().ravel().tolist() for v in [out] + [array.grad for array in arrays]]
packed = mx.nd.kogpt2_pack_bfloat16(weight)
values.append(mx.nd.kogpt2_decode_linear(mx.nd.array(rng.randn(13, 200)), packed, bias).asnumpy().ravel().tolist())
print(json.dumps({"isa": library.isa.name, "values": values}))
"""
VALUES = 36
BFLOAT16_VALUES = 10  # the last: a last digit of float32 can decide how an activation is rounded to bfloat16


def compute(before: str = "", **environment: str) -> dict:
    answer = subprocess.run(
        [sys.executable, "-c", before + COMPUTE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


# Those that no other test compiles take 20 seconds each.
OWN_BUILD = ("avx2", "x86-64")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(isa.name, marks=pytest.mark.slow if isa.name in OWN_BUILD else ())
        for isa in build.INSTRUCTION_SETS[1:]
    ],
)
def test_every_instruction_set_that_this_cpu_has_computes_the_same(name):
    if name not in usable():
        pytest.skip(f"this CPU has no {name}")
    best, forced = compute(), compute(KOGPT2_OPS_ISA=name)
    assert forced["isa"] == name
    assert len(best["values"]) == VALUES
    for number, (ours, theirs) in enumerate(zip(forced["values"], best["values"])):
        scale = max(map(abs, theirs))
        tolerance = 2e-6 if number < VALUES - BFLOAT16_VALUES else 2e-3
        assert max(abs(a - b) for a, b in zip(ours, theirs)) <= tolerance * scale


def test_operators_load_behind_horovod():
    # Horovod loads MXNet with RTLD_GLOBAL: its symbols then come before the library's own.
    pytest.importorskip("horovod.mxnet", reason="Horovod is not built")
    behind = compute("import horovod.mxnet\n")
    assert behind["values"] == compute()["values"]


def usable() -> list:
    flags = build._cpu_flags()
    return [isa.name for isa in build.INSTRUCTION_SETS if set(isa.cpu_flags) <= flags]


def test_an_instruction_set_that_the_cpu_lacks_is_refused(monkeypatch):
    monkeypatch.setenv("KOGPT2_OPS_ISA", "avx1024")
    with pytest.raises(RecipeError, match=r"KOGPT2_OPS_ISA=avx1024: this CPU has .*x86-64"):
        build.instruction_set()


@pytest.mark.slow
def test_a_second_build_finds_the_first_and_a_changed_source_is_another_library(tmp_path, monkeypatch):
    sources = tmp_path / "src"
    shutil.copytree(build.SOURCES, sources)
    monkeypatch.setattr(build, "SOURCES", sources)
    keep_only(sources / "cpu", "library.cc")
    monkeypatch.setenv("KOGPT2_CACHE", str(tmp_path / "cache"))
    first = build.build_cpu_operators()
    again = build.build_cpu_operators()
    assert (first.built, again.built, again.path) == (True, False, first.path)
    source = sources / "cpu" / "library.cc"
    source.write_text(source.read_text(encoding="utf-8") + "// changed\n", encoding="utf-8")
    changed = build.build_cpu_operators()
    assert changed.built
    assert changed.path != first.path
    left = sorted(path.suffix for path in (tmp_path / "cache").iterdir())
    assert left == [".lock", ".lock", ".so", ".so"]  # no build folder stays


def keep_only(folder: Path, name: str) -> None:
    for path in folder.glob("*.cc"):
        if path.name != name:
            path.unlink()


def test_faults_name_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("KOGPT2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.OperatorsUnavailable, match=r"no C\+\+ compiler \(no-such-compiler\).*install g\+\+"):
        build.build_cpu_operators()
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(build, "ONEDNN_HEADERS", "no-such-package")
    with pytest.raises(build.OperatorsUnavailable, match="no-such-package is not installed: pip install"):
        build.build_cpu_operators()


def test_a_source_that_does_not_compile_leaves_its_first_error_and_no_library(tmp_path, monkeypatch):
    sources = tmp_path / "src"
    shutil.copytree(build.SOURCES, sources)
    keep_only(sources / "cpu", "library.cc")
    (sources / "cpu" / "a_broken.cc").write_text("int broken( {\n", encoding="utf-8")  # the first to be compiled
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setenv("KOGPT2_CACHE", str(tmp_path / "cache"))
    with pytest.raises(build.OperatorsUnavailable, match=r"do not compile: .*broken\.cc:1:.*error"):
        build.build_cpu_operators()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KOGPT2_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(build.OperatorsUnavailable, match=r"cannot be written .*set KOGPT2_CACHE"):
        build.build_cpu_operators()


@pytest.mark.slow
def test_several_processes_at_once_compile_once(tmp_path):
    code = "from kogpt2_gluon.ops.build import build_cpu_operators; print(build_cpu_operators().built)"
    environment = {**os.environ, "KOGPT2_CACHE": str(tmp_path)}
    workers = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = sorted(worker.communicate(timeout=600)[0].split()[-1] for worker in workers)
    assert answers == ["False", "False", "True"]


def test_the_verb_builds_and_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "build_cpu_operators", lambda force: build.Library(tmp_path, usable_set(), force))
    assert "already there" in CliRunner().invoke(cli_ops.ops, ["build"]).output
    assert "compiled: " in CliRunner().invoke(cli_ops.ops, ["build", "--force"]).output
    monkeypatch.setenv("KOGPT2_CACHE", str(tmp_path))
    output = CliRunner().invoke(cli_ops.ops, ["status"]).output
    assert f"instruction set: {usable()[0]}" in output
    assert "nothing is compiled" in output
    (tmp_path / "kogpt2-cpu-0.so").write_text("")
    assert "kogpt2-cpu-0.so" in CliRunner().invoke(cli_ops.ops, ["status"]).output


def test_clean_keeps_what_this_machine_uses(tmp_path, monkeypatch):
    monkeypatch.setenv("KOGPT2_CACHE", str(tmp_path))
    mine = build.remove_other_libraries()[1]
    assert mine.parent == tmp_path
    others = [tmp_path / f"kogpt2-cpu-{number}.so" for number in range(5)]
    for path in (mine, *others, others[0].with_suffix(".lock"), tmp_path / "kogpt2-cuda-0.so"):
        path.write_text("")
    told = CliRunner().invoke(cli_ops.ops, ["status"]).output
    assert told.count("compiled: ") == 3 and "and 4 older ones" in told
    assert CliRunner().invoke(cli_ops.ops, ["clean"]).output == f"removed: 5; kept: {mine}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, "kogpt2-cuda-0.so"])


def usable_set() -> build.InstructionSet:
    return build.INSTRUCTION_SETS[-1]


def test_what_a_killed_compilation_left_is_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setenv("KOGPT2_CACHE", str(tmp_path))
    old, young = tmp_path / ".build-old", tmp_path / ".build-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "a.o").write_bytes(b"1")
    os.utime(old, (0, 0))
    monkeypatch.setattr(build, "source_files", lambda: [])
    monkeypatch.setattr(build, "_run", lambda command: Path(command[-1]).write_bytes(b"1"))
    build.build_cpu_operators(force=True)
    assert not old.exists()
    assert young.exists(), "another host may be compiling there"
