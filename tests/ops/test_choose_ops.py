"""Which operator set is chosen, and what is said about it."""

from __future__ import annotations

import os
import sys

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine import job
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops import choose
from kogpt2_gluon.ops.build import OperatorsUnavailable
from kogpt2_gluon.ops.choose import choose_ops
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from kogpt2_gluon.ops.kernel_times import Network
from kogpt2_gluon.ops.stock import StockOps
from tests.helpers import run

REASON = "no C++ compiler (g++) was found: install g++"
LOCAL_RANKS = [each.local_rank for each in job.NUMBERINGS]


@pytest.fixture(autouse=True)
def first_time(monkeypatch):
    """Makes this the first worker of a host, in a process that has reported nothing yet."""
    choose._say.cache_clear()
    for name in LOCAL_RANKS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def loaded(monkeypatch):
    calls = []
    monkeypatch.setattr(choose, "load_cpu_operators", lambda: calls.append(1))
    monkeypatch.setattr(choose, "_default_kernels", lambda: None)
    return calls


@pytest.fixture
def no_compiler(monkeypatch):
    def refuse():
        raise OperatorsUnavailable(REASON)

    monkeypatch.setattr(choose, "load_cpu_operators", refuse)


@pytest.mark.parametrize("ops", ["auto", "fused"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fused_on_a_cpu(loaded, capsys, ops, precision):
    chosen = choose_ops(ops, precision, mx.cpu(), 0.1)
    assert type(chosen) is FusedCpuOps
    assert (chosen.name, chosen.precision, chosen.dropout) == ("fused", precision, 0.1)
    assert loaded, "its operators must be loaded before a network asks for them"
    assert capsys.readouterr() == ("", "")


def test_stock_needs_no_compiler(no_compiler, capsys):
    chosen = choose_ops("stock", "float32", mx.cpu(), 0.2)
    assert type(chosen) is StockOps
    assert (chosen.name, chosen.precision, chosen.dropout) == ("stock", "float32", 0.2)
    assert capsys.readouterr() == ("", "")


def test_auto_without_a_compiler_says_so_once(no_compiler, capsys):
    for _ in range(3):
        assert type(choose_ops("auto", "float32", mx.cpu(), 0.0)) is StockOps
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    for word in (REASON, "twice as fast", "kogpt2 ops build"):
        assert word in err


@pytest.mark.parametrize("name", LOCAL_RANKS)
def test_one_worker_a_host_speaks(no_compiler, capsys, monkeypatch, name):
    monkeypatch.setenv(name, "3")
    choose_ops("auto", "float32", mx.cpu(), 0.0)
    assert capsys.readouterr().err == ""


def test_float16_on_a_cpu_is_emulated_and_said_to_be(loaded, capsys):
    for ops in ("auto", "stock"):
        chosen = choose_ops(ops, "float16", mx.cpu(), 0.1)
        assert (type(chosen), chosen.precision, chosen.dropout) == (StockOps, "float16_emulated", 0.1)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "emulated" in err and "slow" in err and "tests" in err
    assert not loaded


@pytest.mark.parametrize(
    "ops, precision, words",
    [
        ("fused", "float32", ("training.ops=fused: " + REASON, "training.ops=auto")),
        ("auto", "bfloat16", ("training.precision=bfloat16 needs the fused operators: " + REASON, "float32")),
        ("fused", "bfloat16", ("training.precision=bfloat16 needs the fused operators: " + REASON, "float32")),
        ("stock", "bfloat16", ("training.precision=bfloat16 needs the fused operators", "training.ops=auto")),
        ("fused", "float16", ("no float16 on a CPU", "training.precision=bfloat16", "training.ops=auto")),
    ],
)
def test_what_cannot_be_had_on_a_cpu(no_compiler, ops, precision, words):
    with pytest.raises(RecipeError) as caught:
        choose_ops(ops, precision, mx.cpu(), 0.1)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("ops", "precision", "resolved"),
    [
        ("auto", "float32", ("float32", "")),
        ("auto", "bfloat16", ("bfloat16", "")),
        ("stock", "auto", ("float32", "MXNet's own operators compute in it")),
        ("auto", "auto", ("float32", "the fused operators are not available")),
    ],
)
def test_what_a_precision_means_without_fused_operators(no_compiler, ops, precision, resolved):
    assert choose.resolve_precision(ops, precision, mx.cpu(), Network(768, 12, 50_000, 512)) == resolved


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 0), "float16"), ((8, 6), "float16"), ((6, 1), "float32"), (None, "float32")]
)
def test_auto_on_a_gpu(monkeypatch, capability, precision):
    monkeypatch.setattr(choose.cuda, "compute_capability", lambda device: capability)
    chosen, reason = choose.resolve_precision("auto", "auto", mx.gpu(0), Network(768, 12, 50_000, 512))
    assert chosen == precision and "tensor cores" in reason


def test_bfloat16_on_a_gpu():
    with pytest.raises(RecipeError, match=r"MXNet 1\.9\.1 has none on GPUs; take float16"):
        choose_ops("auto", "bfloat16", mx.gpu(0), 0.1)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_stock_on_a_gpu(monkeypatch, precision):
    monkeypatch.delenv("MXNET_SAFE_ACCUMULATION", raising=False)
    chosen = choose_ops("stock", precision, mx.gpu(0), 0.1)
    assert (type(chosen), chosen.precision) == (StockOps, precision)
    assert os.environ.get("MXNET_SAFE_ACCUMULATION") == ("1" if precision == "float16" else None)


def test_a_machine_without_a_compiler(tmp_path):
    """The real thing: nothing in the cache, no compiler. A network of the chosen set computes."""
    program = """if True:
        from kogpt2_gluon.ops.choose import choose_ops
        from kogpt2_gluon.machine.runtime import mx
        for _ in range(2):
            ops = choose_ops("auto", "float32", mx.cpu(), 0.0)
        print(ops.name, ops.layer_norm.__module__)
    """
    done = run(sys.executable, "-c", program, KOGPT2_CACHE=str(tmp_path), CXX=str(tmp_path / "no-such-compiler"))
    assert done.stdout == "stock kogpt2_gluon.ops.stock\n"
    assert done.stderr.count("fused ones") == 1 and "no-such-compiler" in done.stderr
