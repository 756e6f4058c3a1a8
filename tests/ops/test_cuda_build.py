"""The CUDA operators compile wherever nvcc is found, for every architecture it knows, and MXNet takes them."""

from __future__ import annotations

import ctypes
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cuda_driver import declared_functions
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.ops import build_cuda as module
from kogpt2_gluon.ops.build_cuda import ARCHITECTURES, CudaBuild, build_cuda, find_nvcc
from tests.ops.cuda_kernel_helpers import CUDA_SOURCES

ALL = (*ARCHITECTURES, "90")
FEW = ("70", "75", "90")  # the oldest and the newest of those; nvcc 13 no longer knows 70
needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="no nvcc on this machine")
KERNEL_FILES = sorted(path.stem for path in CUDA_SOURCES.glob("*.cu") if not path.name.startswith("mxnet_"))


@pytest.fixture(scope="module", params=[FEW, pytest.param(ALL, marks=pytest.mark.slow)], ids=["few", "all"])
def asked(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, asked: tuple[str, ...]) -> Path:
    return tmp_path_factory.mktemp("cuda-build")


@pytest.fixture(scope="module")
def built(cache: Path, asked: tuple[str, ...]) -> CudaBuild:
    """Everything, once for the oldest and newest architecture, once for all. A failure fails every test below."""
    return build_cuda(cache, asked)


# ---- with a compiler ---------------------------------------------------------------------------------------------


@needs_nvcc
def test_machine_code_of_each_architecture(built: CudaBuild) -> None:
    """Each of the kernel files has code for it in both libraries. Read from the files: cuobjdump is not everywhere."""
    for library in filter(None, (built.library, built.mxnet_library)):
        found = architectures_in(library)
        assert set(built.compiled) == set(found)
        assert all(found.count(each) >= len(KERNEL_FILES) for each in built.compiled), (library.name, found)


def architectures_in(library: Path) -> list[str]:
    """The architecture of each piece of machine code in a library's fat binaries.

    A fat binary is a header (magic, version, its size, the size of what follows) and entries, each of kind, version,
    header size, payload size (64 bits), and at byte 28 the architecture; kind 2 is machine code.
    """
    data, found = library.read_bytes(), []
    for match in re.finditer(re.escape(struct.pack("<IH", 0xBA55ED50, 1)), data):
        _, _, header_size, size = struct.unpack_from("<IHHQ", data, match.start())
        at = match.start() + header_size
        end = at + size
        while at < end:
            kind, _, entry_header, payload = struct.unpack_from("<HHIQ", data, at)
            if kind == 2:
                found.append(f"sm_{struct.unpack_from('<I', data, at + 28)[0]}")
            at += entry_header + payload
    return found


@needs_nvcc
def test_nothing_that_nvcc_knows_is_left_out(built: CudaBuild, asked: tuple[str, ...]) -> None:
    listed = subprocess.run([str(find_nvcc()), "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    known = {line.strip().replace("compute", "sm") for line in listed.split()}
    assert set(built.compiled) == known & {f"sm_{a}" for a in asked}
    assert [*built.not_compiled] == [f"sm_{a}" for a in asked if f"sm_{a}" not in known]
    assert built.compiled


@needs_nvcc
def test_library_exports_what_the_header_declares_and_loads_without_a_gpu(built: CudaBuild) -> None:
    library = ctypes.CDLL(str(built.library))
    for name in declared_functions():
        assert getattr(library, name)
    library.kogpt2_cuda_error_text.restype = ctypes.c_char_p
    assert library.kogpt2_cuda_error_text(1) == b"invalid argument"
    assert library.kogpt2_cuda_dropout_size() == 20
    if shutil.which("nm"):
        lines = subprocess.run(
            ["nm", "-D", "--defined-only", str(built.library)], capture_output=True, text=True, check=True
        )
        exported = {line.split()[-1] for line in lines.stdout.splitlines() if " T " in line}
        assert exported == set(declared_functions())


@needs_nvcc
def test_no_kernel_spills_its_registers(built: CudaBuild) -> None:
    pattern = r"Compiling entry function '(\w+)' for '(sm_\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores"
    kernels = re.findall(pattern, built.log.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert {architecture for _, architecture, _, _ in kernels} == set(built.compiled)
    assert len(kernels) >= 30 * len(built.compiled)
    assert [k for k in kernels if k[2:] != ("0", "0")] == []


@needs_nvcc
def test_compiles_without_warnings(built: CudaBuild) -> None:
    assert [line for line in built.log.read_text(encoding="utf-8").splitlines() if "warning" in line.lower()] == []


@needs_nvcc
def test_second_build_is_the_first(
    built: CudaBuild, cache: Path, asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(module, "_compile_all", refuse)
    assert build_cuda(cache, asked) == built
    with pytest.raises(AssertionError, match="compiled again"):
        build_cuda(cache, asked[-1:])
    assert [path.name for path in cache.iterdir()] == [built.library.parent.name]


@needs_nvcc
def test_error_of_the_compiler_is_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("common", "cuda"):
        (tmp_path / part).mkdir()
    (tmp_path / "cuda" / "broken.cu").write_text("__global__ void f() { nonsense }\n", encoding="utf-8")
    monkeypatch.setattr(module, "SOURCES", tmp_path)
    monkeypatch.setattr(module, "mxnet_folder", lambda: None)
    with pytest.raises(KoGPT2Error, match=r'broken\.cu: .*broken\.cu\(1\): error: identifier "nonsense"') as caught:
        build_cuda(tmp_path / "out", FEW)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


MXNET_CHECK = """
import sys
import numpy as np
from kogpt2_gluon.machine.runtime import mx

mx.library.load(sys.argv[1], verbose=False)
names = [chr(97 + i) for i in range(6)]


def symbol(op, count, **attributes):
    return getattr(mx.sym, "kogpt2_cuda_" + op)(*map(mx.sym.var, names[:count]), **attributes)


def shapes(sym, **known):
    inputs, outputs, _ = sym.infer_shape(**known)
    return inputs, outputs


def refused(message, function, **arguments):
    try:
        function(**arguments)
    except mx.base.MXNetError as error:
        assert message in str(error), str(error)
    else:
        raise AssertionError("not refused: " + message)


gelu = symbol("bias_gelu", 3, p=0.1, site=3, req="write,add,null")
assert shapes(gelu, a=(2, 3, 8)) == ([(2, 3, 8), (8,), (64,)], [(2, 3, 8)])
assert shapes(gelu, a=(2, 3, 8), b=(0,))[0][1] == (8,), "a size that is open is filled in"
partly = gelu.infer_shape_partial(b=(8,), c=(64,))
assert partly[1] == [()], "nothing is known of the output, and nothing breaks"
half = np.float16
assert gelu.infer_type(a=half)[:2] == ([half, half, np.float32], [half])
assert gelu.infer_type(b="float32")[1] == [np.float32]
refused("bias has shape (7), expected (8)", gelu.infer_shape, a=(2, 8), b=(7,))
refused("expected float32 or float16", gelu.infer_type, a="float64")
refused("bias has type float32, expected float32 or float16", gelu.infer_type, a=half, b="float32")
refused("p=1.5: a dropout probability is at least 0 and below 1", lambda: symbol("bias_gelu", 3, p=1.5))
refused("site=", lambda: symbol("bias_gelu", 3, site=-1))
refused("expected 3 words", lambda: symbol("bias_gelu", 3, req="write"))
refused("'keep' is none of write, add, null", lambda: symbol("bias_gelu", 3, req="keep,add,null"))
refused("p='high' is not a number", lambda: symbol("bias_gelu", 3, p="high"))

residual = symbol("bias_dropout_residual", 4, p=0.1, site=4)
assert shapes(residual, a=(2, 8), b=(8,), d=(64,)) == ([(2, 8), (8,), (2, 8), (64,)], [(2, 8)])
refused("residual has shape (2, 9)", residual.infer_shape, a=(2, 8), b=(8,), c=(2, 9))

norm = symbol("layer_norm", 3)
assert shapes(norm, a=(2, 3, 8)) == ([(2, 3, 8), (8,), (8,)], [(2, 3, 8), (2, 3), (2, 3)])
assert norm.infer_type(a=half)[1] == [half, np.float32, np.float32]

softmax = symbol("causal_softmax", 2, scale=0.125, p=0.1, site=1)
assert shapes(softmax, a=(2, 4, 3, 5)) == ([(2, 4, 3, 5), (64,)], [(2, 4, 3, 5), (2, 4, 3)])
refused("as many keys as queries", softmax.infer_shape, a=(2, 5, 3))

entropy = symbol("cross_entropy", 2)
assert shapes(entropy, a=(2, 3, 50)) == ([(2, 3, 50), (2, 3)], [(2, 3), (2, 3)])
assert entropy.infer_type(a=half)[:2] == ([half, np.int32], [np.float32, np.float32])
refused("labels has type float32, expected int32", entropy.infer_type, a=half, b="float32")

total = symbol("gradient_norm", 3, num_tensors=3, loss_scale=8)
assert shapes(total, a=(2, 3), b=(5,), c=(1,))[1] == [(2,)]
assert total.infer_type(a=half)[1] == [np.float64]
refused("loss_scale=0 is not above 0", lambda: symbol("gradient_norm", 1, loss_scale=0))

rule = dict(optimizer="adamw", step=1, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decays="0.01")
update = symbol("fused_update", 5, num_tensors=1, copies=1, **rule)
assert shapes(update, **dict.fromkeys("abcd", (2, 3)))[1] == [(1,)]
assert update.list_arguments() == ["d"], "the gradient; the others are written to, which makes them states"
assert update.infer_type(d=half)[::2] == ([half], [np.float32] * 3 + [half])
refused("weight_decays has 1 numbers, expected 2", lambda: symbol("fused_update", 6, num_tensors=2, **rule))
refused("optimizer='sgd'", lambda: symbol("fused_update", 4, **{**rule, "optimizer": "sgd"}))

ones = mx.nd.ones((2, 8)), mx.nd.ones((8,)), mx.nd.ones((64,))
refused("not implemented for CPU", lambda: mx.nd.kogpt2_cuda_bias_gelu(*ones).wait_to_read())
print("passed")
"""


@needs_nvcc
def test_mxnet_loads_the_operators_and_infers_their_shapes_and_types(built: CudaBuild) -> None:
    """In a process of its own: MXNet never lets go of a library."""
    pytest.importorskip("mxnet")
    assert built.mxnet_library is not None
    command = [sys.executable, "-c", MXNET_CHECK, str(built.mxnet_library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["passed"]), done.stderr[-3000:]


# ---- without one -------------------------------------------------------------------------------------------------


def fake_nvcc(folder: Path, known: str, reply: str) -> None:
    """An nvcc that knows architectures, and fails to compile with a reply."""
    script = f"""#!/bin/sh
case "$1" in
  --version) echo 'Cuda compilation tools, release 99.1, V99.1.7' ;;
  --list-gpu-arch) echo '{known}' ;;
  *) echo '{reply}' >&2; exit 2 ;;
esac
"""
    folder.mkdir()
    (folder / "nvcc").write_text(script, encoding="utf-8")
    (folder / "nvcc").chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CUDA_HOME is an empty folder, and there is no other CUDA."""
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    real_which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, path=None: real_which(name, path=path) if path == str(tmp_path / "bin") else None
    )
    return tmp_path


def test_no_compiler_is_said(bare: Path) -> None:
    assert find_nvcc() is None
    with pytest.raises(KoGPT2Error, match="nvcc was not found on PATH or in CUDA_HOME: install a CUDA toolkit"):
        build_cuda(bare / "out")


def test_compiler_that_knows_none_of_the_architectures_is_said(bare: Path) -> None:
    fake_nvcc(bare / "bin", "compute_200", "")
    with pytest.raises(KoGPT2Error, match=r"nvcc 99\.1\.7 .* knows none of sm_70, sm_75, sm_80, sm_86"):
        build_cuda(bare / "out")


def test_first_line_of_error_is_the_message(bare: Path) -> None:
    fake_nvcc(bare / "bin", "compute_80", "a note\nx.cu(3): error: no such thing\nx.cu(9): error: another")
    with pytest.raises(KoGPT2Error, match=r"^nvcc 99\.1\.7, \w+\.(cu|cc): x\.cu\(3\): error: no such thing$"):
        build_cuda(bare / "out")
    assert list((bare / "out").iterdir()) == []


def test_cache_name_follows_sources_compiler_and_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CUDA_SOURCES.parent, tmp_path / "src")
    monkeypatch.setattr(module, "SOURCES", tmp_path / "src")
    first = module._fingerprint("13.0", ["80"], None)
    assert module._fingerprint("13.0", ["80"], None) == first
    others = {module._fingerprint("13.1", ["80"], None), module._fingerprint("13.0", ["80", "86"], None)}
    for name in ("cuda/math.cuh", "common/philox.h"):
        with (tmp_path / "src" / name).open("a", encoding="utf-8") as stream:
            stream.write("\n")
        others.add(module._fingerprint("13.0", ["80"], None))
    assert first not in others
    assert len(others) == 4
