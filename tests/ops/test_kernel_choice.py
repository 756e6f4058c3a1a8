"""The choice of the kernels of matrix products: it is measured once, and everybody keeps to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.ops import kernels
from kogpt2_gluon.ops.build import INSTRUCTION_SETS, OperatorsUnavailable
from kogpt2_gluon.ops.kernel_times import (
    KERNELS,
    ONEDNN,
    SHARED_LEFT,
    SHARED_RIGHT,
    Network,
    Product,
    Times,
    products_of_a_map,
    times_of,
)
from kogpt2_gluon.ops.kernels import (
    BY_RULE,
    MEASUREMENTS,
    PACKED,
    Choice,
    choice_of,
    choose_kernels,
    faster_precision,
    known_precision,
    note_of_faster,
    use_kernels,
)
from tests.ops.kernel_helpers import SMALL, as_before, linear, measured
from tests.ops.ops_helpers import array

__all__ = ["as_before", "measured"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_product_of_a_step_is_measured_once_in_a_process(measured, precision):
    choice = choose_kernels(SMALL, precision)
    products = [product for product, _ in SMALL.products(kernels.logits_columns(kernels.load_cpu_operators()), 512)]
    assert [Product(*row[:4]) for row in choice.kernels] == products and len(products) == 15
    assert choice.gflops > 0 and {row[4] for row in choice.kernels} <= {ONEDNN, SHARED_LEFT, SHARED_RIGHT}
    assert choose_kernels(SMALL, precision) == choice and measured == [precision]
    assert choose_kernels(replace(SMALL, tokens=256), precision) != choice and len(measured) == 2
    assert choice.describe().startswith(f"matrix products in {precision}: ")


def times_at(gflops: list[float]) -> Times:
    """One product, measured at a rate with each kernel."""
    product = Product(0, 512, 384, 128)
    return Times([product], [1.0], [[product.operations / rate / 1e9 for rate in gflops]])


def in_another_process() -> None:
    kernels._measured_here.clear()


@pytest.fixture
def rates(monkeypatch):
    """Plays what the next measurements find: the rates of the three kernels, of a single product."""
    found: list[list[float]] = []
    monkeypatch.setattr(kernels, "measure", lambda library, network, name, columns: times_at(found.pop(0)))
    return found


def choices(rates, *found):
    """The choice of one process after the other, each of which could measure one of `found`."""
    rates[:] = list(found)
    made = []
    for _ in found:
        made.append(choose_kernels(SMALL, "float32"))
        assert choose_kernels(SMALL, "float32") == made[-1]
        in_another_process()
    return [(choice.kernels[0][4], choice.gflops) for choice in made]


def test_a_measurement_next_to_other_work_is_mended_by_the_next_processes(rates):
    slow, right = [40.0, 43.0, 41.0], [900.0, 400.0, 410.0]
    first, second, third = choices(rates, slow, right, slow)
    assert (first, second, third) == ((SHARED_LEFT, 43.0), (ONEDNN, 900.0), (ONEDNN, 900.0))
    rates[:] = [[2000.0, 1.0, 1.0]]
    assert choose_kernels(SMALL, "float32").gflops == 900.0 and len(rates) == 1 and MEASUREMENTS == 3


def test_kernels_that_are_hardly_faster_change_nothing(rates):
    """A run of the same seed gives the same bits, unless that costs more than a twentieth."""
    made = choices(rates, [100.0, 99.0, 50.0], [101.0, 104.0, 50.0], [102.0, 109.0, 50.0])
    assert made == [(ONEDNN, 100.0), (ONEDNN, 101.0), (SHARED_LEFT, 109.0)]


def test_a_resumed_run_hears_of_faster_kernels(rates):
    rates.append([40.0, 43.0, 41.0])
    slow = choose_kernels(SMALL, "float32")
    assert note_of_faster(slow, SMALL) == ""
    in_another_process()
    rates.append([900.0, 400.0, 410.0])
    fast = choose_kernels(SMALL, "float32")
    note = note_of_faster(slow, SMALL)
    assert "measured at 43 GFLOP/s, others since at 900; KOGPT2_KERNELS=measured takes those" in note
    assert note_of_faster(fast, SMALL) == "" and note_of_faster(slow, replace(SMALL, tokens=256)) == ""


def test_a_variable_takes_what_was_measured_here(monkeypatch, measured):
    choice = choose_kernels(SMALL, "float32")
    products = [Product(*row[:4]) for row in choice.kernels]
    network = replace(SMALL, tokens=products[0].M)
    assert kernels.still_holds(choice, network, "float32")
    monkeypatch.setenv("KOGPT2_KERNELS", "measured")
    assert not kernels.still_holds(choice, network, "float32")
    assert choose_kernels(SMALL, "float32") == choice and "GFLOP/s measured" in choice.describe()


@pytest.mark.parametrize(
    ("seconds", "usable", "chosen"),
    [
        ([1.02, 1.00, 1.01], KERNELS, ONEDNN),
        ([1.04, 1.00, 1.01], KERNELS, SHARED_RIGHT),
        ([1.04, 1.00, 1.04], KERNELS, SHARED_LEFT),
        ([1.00, 2.02, 2.00], (SHARED_LEFT, SHARED_RIGHT), SHARED_RIGHT),
        ([float("inf"), 2.00, 2.10], KERNELS, SHARED_LEFT),
    ],
)
def test_of_kernels_that_are_about_as_fast_the_steadiest_is_chosen(seconds, usable, chosen):
    times = Times([Product(0, 8, 8, 8)], [1.0], [seconds])
    assert times.fastest(usable) == [chosen]


def test_plain_data_that_is_no_measurement_is_none():
    times = times_at([100.0, 90.0, 80.0])
    impossible = replace(times, seconds=[[float("inf"), 0.5, 0.25]])  # for oneDNN
    for good in (times, impossible):
        assert times_of(json.loads(json.dumps(good.state(), allow_nan=False))) == good
    good = times.state()
    bad = [{**good, "seconds": rows} for rows in ([[1.0, 2.0]], [[1.0, None, 2.0]], [[0.0, 1.0, 1.0]], [[10**400] * 3])]
    bad += [{**good, "seconds": rows} for rows in ([[float("nan"), 1.0, 1.0]], [], 3, [["a"] * 3], [[1.0] * 3] * 2)]
    bad += [{**good, "products": rows} for rows in ([[0, 1, 1]], [[0, 1, 1, -1]], ["abcd"], [[0, 1, 1, 1.5]])]
    bad += [{**good, "counts": [0.0]}, {**good, "counts": [float("inf")]}, {**good, "measurements": 0}, None, 3, []]
    assert [times_of(each) for each in bad] == [None] * len(bad)


def test_products_make_up_the_operations_of_a_network():
    network = Network(units=768, num_layers=12, vocab_size=50_000, tokens=512)
    work = sum(product.operations * count for product, count in network.products((3072, 1536), 512))
    matrices = 12 * 12 * 768**2 + 50_000 * 768
    assert work == pytest.approx(6 * 512 * matrices)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"key": {"kernels": [[0]]}}', b'{"key": 7}', b"\xff\xfe"])
def test_a_damaged_file_is_measured_again(measured, damage):
    file = kernels.load_cpu_operators().path.with_suffix(".kernels.json")
    first = choose_kernels(SMALL, "float32")
    (key,) = json.loads(file.read_text())
    file.write_bytes(damage.replace(b"key", key.encode().replace(b'"', b'\\"')))
    again = choose_kernels(SMALL, "float32")
    assert len(measured) == 2 and [row[:4] for row in again.kernels] == [row[:4] for row in first.kernels]
    assert choose_kernels(SMALL, "float32") == again and len(measured) == 2


def test_a_folder_that_cannot_be_written_is_no_obstacle(measured, monkeypatch):
    def refused(path):
        raise OperatorsUnavailable("cannot be written")

    monkeypatch.setattr(kernels, "one_at_a_time", refused)
    assert choose_kernels(SMALL, "float32").gflops > 0 and measured == ["float32"]


def test_small_networks_are_not_measured(measured):
    choice = choose_kernels(replace(SMALL, num_layers=1, tokens=8), "bfloat16")
    assert (choice.gflops, choice.kernels, measured) == (0.0, [], [])
    assert "too few to measure" in choice.describe()
    assert faster_precision(replace(SMALL, num_layers=1, tokens=8))[0] == "float32"


@pytest.mark.parametrize(
    ("forced", "set_for_all", "by_onednn"), [("packed", PACKED, False), ("onednn", ONEDNN, True), ("", BY_RULE, None)]
)
def test_one_kernel_for_all_by_a_variable(monkeypatch, measured, forced, set_for_all, by_onednn):
    monkeypatch.setenv("KOGPT2_KERNELS", forced)
    choice = choose_kernels(replace(SMALL, tokens=8, num_layers=1) if not forced else SMALL, "bfloat16")
    assert not measured and kernels.FORCED.get(forced, BY_RULE) == set_for_all
    if by_onednn is not None:
        assert choice.onednn_bfloat16 == (by_onednn and kernels.instruction_set().has_bfloat16)
        assert f"KOGPT2_KERNELS={forced}" in choice.describe()


@pytest.mark.parametrize(
    ("isa", "processor", "by_onednn"),
    [
        ("amx", "Intel(R) Xeon(R) Platinum 8481C", True),
        ("avx512_bf16", "Intel(R) Xeon(R) Platinum 8375C", False),
        ("avx512_bf16", "AMD EPYC 9R14", True),
        ("avx512", "AMD EPYC 7R13", False),
    ],
)
def test_bfloat16_by_rule_is_onednns_where_the_processor_is_fast_at_it(monkeypatch, isa, processor, by_onednn):
    one = next(each for each in INSTRUCTION_SETS if each.name == isa)
    monkeypatch.delenv("KOGPT2_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "instruction_set", lambda: one)
    monkeypatch.setattr(kernels, "processor_name", lambda: processor)
    choice = choose_kernels(replace(SMALL, num_layers=1, tokens=8), "bfloat16")
    assert (choice.gflops, choice.onednn_bfloat16) == (0.0, by_onednn)


def test_an_unknown_kernel_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("KOGPT2_KERNELS", "mkl")
    with pytest.raises(RecipeError, match="KOGPT2_KERNELS=mkl: onednn, packed or measured"):
        choose_kernels(SMALL, "float32")


@pytest.mark.parametrize(
    ("bfloat16", "float32", "faster"), [(111.0, 100.0, "bfloat16"), (109.0, 100.0, "float32"), (60.0, 100.0, "float32")]
)
def test_bfloat16_must_pay_ten_percent(monkeypatch, bfloat16, float32, faster):
    rates = {"bfloat16": bfloat16, "float32": float32}
    monkeypatch.setattr(kernels, "measure", lambda library, network, name, columns: times_at([rates[name]] * 3))
    assert known_precision(SMALL) == ""
    precision, reason = faster_precision(SMALL)
    assert precision == faster and f"{bfloat16:.0f} GFLOP/s in bfloat16 and at 100 in float32" in reason
    assert known_precision(SMALL) == f"{faster}, because {reason}"


def test_a_processor_without_operators_has_a_name_and_nothing_measured(monkeypatch):
    def refused():
        raise OperatorsUnavailable("the fused operators are for x86-64 CPUs, not aarch64")

    monkeypatch.setattr(kernels, "instruction_set", refused)
    monkeypatch.setattr(kernels.platform, "machine", lambda: "aarch64")
    assert kernels.processor_name() == "aarch64" and known_precision(SMALL) == ""


def test_plain_data_that_is_no_choice_is_none():
    good = vars(choose_kernels(SMALL, "float32"))
    assert choice_of(json.loads(json.dumps(good))) == Choice(**good)
    bad = [{**good, "kernels": [[0, 1, 1, 1, 9]]}, {**good, "kernels": [[0, -1, 1, 1, 1]]}, {**good, "threads": "2"}]
    bad += [{**good, "precision": "int8"}, {**good, "gflops": float("nan")}, {**good, "more": 1}, None, 3, []]
    assert [choice_of(each) for each in bad] == [None] * len(bad)


def test_a_choice_is_what_is_computed_with():
    """With the shared factor changed sums are the same; by oneDNN they are others, in their last digits."""
    rng = np.random.RandomState(3)
    arguments = array(rng, 64, 700), array(rng, 96, 700), array(rng, 96), array(rng, 64, 96)
    results = {}
    for kernel in (ONEDNN, SHARED_LEFT, SHARED_RIGHT):
        rows = [[*product, kernel] for product in products_of_a_map(64, 96, 700)]
        use_kernels(Choice("cpu", 1, "float32", 1.0, False, rows))
        results[kernel] = linear(*arguments)
    assert all(np.array_equal(one, two) for one, two in zip(results[SHARED_LEFT], results[SHARED_RIGHT]))
    assert not np.array_equal(results[ONEDNN][0], results[SHARED_LEFT][0])


def test_a_lesser_processor_than_rank_0_keeps_to_what_it_can(monkeypatch):
    """Its oneDNN has no products of bfloat16: it rounds the same factors while it packs them."""
    set_to = []
    monkeypatch.setattr(kernels, "instruction_set", lambda: INSTRUCTION_SETS[-1])

    class Recorder:
        kogpt2_set_kernel = staticmethod(lambda kernel: None)
        kogpt2_set_bfloat16_kernel = staticmethod(set_to.append)

    monkeypatch.setattr(kernels, "opened", lambda library: Recorder)
    use_kernels(Choice("a better one", 2, "bfloat16", 500.0, True, []))
    assert set_to == [0]


def test_measuring_leaves_no_second_team_of_threads():
    """OpenMP threads of Python's own thread would slow down every later operator (machine/runtime.py)."""
    code = """
import os, time
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops.kernel_times import Network, logits_columns, measure
from kogpt2_gluon.ops.kernels import load_cpu_operators
library = load_cpu_operators()
mx.nd.ones((4, 4)).asnumpy()
before = len(os.listdir("/proc/self/task"))
measure(library, Network(64, 1, 1000, 64), "float32", logits_columns(library))
deadline = time.monotonic() + 60  # the kernel lists a thread for a moment after it has ended
while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
    time.sleep(0.01)
print(before, len(os.listdir("/proc/self/task")))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True, text=True)
    before, after = done.stdout.split()
    assert before == after, done.stderr
