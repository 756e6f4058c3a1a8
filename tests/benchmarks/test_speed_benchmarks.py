"""The benchmarks of speed, end to end at a tiny size: what they print must follow from what they measured."""

from __future__ import annotations

import importlib
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.helpers import ROOT, run

BENCHMARKS = ROOT / "benchmarks"
VOCAB_SIZE = 1000
TINY = [
    "model.units=64",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.max_length=64",
    f"model.vocab_size={VOCAB_SIZE}",
]
RATE, MEMORY = "tokens_per_second", "peak_memory_mb"


@pytest.fixture(scope="module")
def contestants() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("contestants")


def script(name: str, *arguments: object, code: int = 0) -> Any:
    """Returns what a benchmark printed: JSON, or the error if it must fail."""
    done = run(sys.executable, BENCHMARKS / name, *arguments, code=code)
    return done.stderr if code else json.loads(done.stdout)


def median_ratio(result: dict[str, Any], ours: str, theirs: str, key: str) -> float:
    return statistics.median(round_[ours][key] / round_[theirs][key] for round_ in result["rounds"])


def check_conditions(result: dict[str, Any], threads: int) -> None:
    state = result["conditions"]
    assert state["threads"] == threads and state["processor"] and state["versions"]["mxnet"]
    flags = Path("/proc/cpuinfo").read_text().split()
    assert state["isa_flags"] == [flag for flag in state["isa_flags"] if flag in flags]
    assert all(contestant["load"] >= 0 for round_ in result["rounds"] for contestant in round_.values())


def check_rates(rounds: Sequence[dict[str, Any]], tokens: int) -> None:
    """Each contestant's tokens a second are those of its median step, and it computed a language model's loss."""
    for round_ in rounds:
        for contestant in round_.values():
            assert contestant[RATE] == pytest.approx(tokens / statistics.median(contestant["step_seconds"]))
            assert abs(contestant["loss"] - math.log(VOCAB_SIZE)) < 0.3


@pytest.mark.slow
def test_training_speed(tmp_path: Path) -> None:
    size = ["--shape", "2x32", "--rounds", 1, "--warmup", 1, "--steps", 2, "--threads", 1, "--work", tmp_path]
    result = script("training_speed.py", "--json", *size, "--peers", "hf,hf-huge,stock", *TINY)
    assert list(result)[:5] == ["ratio", "ratio_huge_pages", "ratio_memory", "shape", "precision"]
    assert result["shape"] == "2x32" and result["precision"] == "float32" and result["left_out"] == []
    names = ["ours", "stock", "hf", "hf-huge"]
    assert list(result["contestants"]) == names and [list(round_) for round_ in result["rounds"]] == [names]
    assert result["ratio"] == pytest.approx(median_ratio(result, "ours", "hf", RATE))
    assert result["ratio_huge_pages"] == pytest.approx(median_ratio(result, "ours", "hf-huge", RATE))
    assert result["ratio_memory"] == pytest.approx(median_ratio(result, "ours", "hf", MEMORY))
    check_rates(result["rounds"], 2 * 32)
    check_conditions(result, threads=1)
    (round_,) = result["rounds"]
    assert round_["ours"]["ops"] == "fused" and round_["stock"]["ops"] == "stock"
    assert len({round_[name]["parameters"] for name in names}) == 1, "not the same network"
    for name, row in result["contestants"].items():
        assert row[RATE] == pytest.approx(round_[name][RATE]) and row[MEMORY] == pytest.approx(round_[name][MEMORY])
        assert row["ours_is"] == pytest.approx(round_["ours"][RATE] / row[RATE])
        assert 50 < row[MEMORY] < 2000
    assert list(tmp_path.iterdir()) == [], "something left in --work"


@pytest.mark.slow
def test_training_speed_of_every_contestant_in_bfloat16() -> None:
    """A table; torch.compile wants half a minute."""
    size = ["--shape", "2x32", "--rounds", "2", "--warmup", "1", "--steps", "2", "--precision", "bfloat16"]
    done = run(sys.executable, BENCHMARKS / "training_speed.py", *size, *TINY, timeout=580)
    names = [line.split()[0] for line in done.stdout.splitlines()[2:]]
    assert names == ["ours", "stock", "hf", "hf-huge", "ours-huge", "hf-no-dropout", "compile"]
    assert "could not run" not in done.stdout and done.stderr.count("round 2 of 2") == len(names)


@pytest.mark.slow
def test_generation_speed() -> None:
    size = ["--batch-sizes", "1,3", "--prompt", 5, "--tokens", 12, "--rounds", 1, "--repeats", 2, "--threads", 1]
    size += ["--mixed", 4, "--lengths", 3, 40, "--first", 20]
    result = script("generation_speed.py", "--json", *size, "--peers", "ours-int8,ours-3bit,hf", *TINY)
    cases, ratios = ["1", "3", "mixed", "first"], ("ratio", "int8_ratio", "3bit_ratio", "3bit_over_ours")
    assert list(result)[:16] == [f"{ratio}_{case}" for ratio in ratios for case in cases]
    check_conditions(result, threads=1)
    (round_,) = result["rounds"]
    assert list(round_) == list(result["contestants"]) == ["ours", "ours-int8", "ours-3bit", "hf"]
    for case in cases:
        for name, peer in (("3bit_ratio", "hf"), ("3bit_over_ours", "ours")):
            assert result[f"{name}_{case}"] == pytest.approx(median_ratio(result, "ours-3bit", peer, f"{RATE}_{case}"))
        assert result[f"int8_ratio_{case}"] == pytest.approx(median_ratio(result, "ours-int8", "hf", f"{RATE}_{case}"))
    for case, tokens in (("mixed", 4 * 12), ("first", 1)):
        for contestant in round_.values():
            assert contestant[f"{RATE}_{case}"] == pytest.approx(
                tokens / statistics.median(contestant[f"seconds_{case}"])
            )
    for size in (1, 3):
        assert result[f"ratio_{size}"] == pytest.approx(median_ratio(result, "ours", "hf", f"{RATE}_{size}"))
        for contestant in round_.values():
            seconds = statistics.median(contestant[f"seconds_{size}"])
            assert contestant[f"{RATE}_{size}"] == pytest.approx(size * 12 / seconds)
            assert contestant[f"milliseconds_per_token_{size}"] == pytest.approx(1000 * seconds / 12)


def test_scaling_speed(tmp_path: Path) -> None:
    pytest.importorskip("horovod", reason="make horovod builds it")
    size = ["--shape", "2x32", "--tokens", 256, "--rounds", 1, "--warmup", 1, "--steps", 2, "--repeats", 2]
    result = script("scaling_speed.py", "--json", *size, "--work", tmp_path, *TINY)
    assert next(iter(result)) == "ratio"
    assert result["ratio"] == pytest.approx(median_ratio(result, "two", "one", RATE))
    check_rates(result["rounds"], 256)
    check_conditions(result, threads=2)
    (round_,) = result["rounds"]
    assert [(round_[name]["workers"], round_[name]["threads"]) for name in ("one", "two")] == [(1, 2), (2, 1)]
    # The same sequences make up an update however many workers there are; dropout draws its own masks on each worker.
    assert round_["one"]["loss"] == pytest.approx(round_["two"]["loss"], rel=5e-3)
    for way in ("float32", "float16"):
        measured = round_["two"]["allreduce_seconds"][way]
        assert len(measured) == 2 and result["allreduce_seconds"][way] == pytest.approx(statistics.median(measured))
    share = result["allreduce_seconds"]["float32"] / statistics.median(round_["two"]["step_seconds"])
    assert result["allreduce_share_of_step"] == pytest.approx(share)
    assert round_["two"]["peak_memory_of_all_mb"] > 1.5 * round_["two"][MEMORY], "one worker's memory for two"
    assert list(tmp_path.iterdir()) == [], "something left in --work"


def test_what_cannot_be_measured_is_said_at_once() -> None:
    told = script("training_speed.py", "--peers", "hf,tensorflow", code=2)
    assert "tensorflow: not one of stock, hf, " in told
    assert script("training_speed.py", "model.unit=3", code=1).startswith("error: ")
    assert "take a multiple of 1024" in script("scaling_speed.py", "--tokens", 1500, code=1)


def fake(contestants: ModuleType, name: str, code: str) -> Any:
    return contestants.Contestant(name, [sys.executable, "-c", code])


def test_who_fails_is_left_out_of_all_rounds(contestants: ModuleType, tmp_path: Path, capsys: Any) -> None:
    good = fake(contestants, "ours", "print('words'); print('{\"speed\": 2.0}')")
    once = f"""
import pathlib
pathlib.Path({str(tmp_path / "mark")!r}).mkdir()
print('{{"speed": 8.0}}')
"""
    lame = fake(contestants, "lame", once)  # fails in the second round
    rounds = contestants.run_rounds([good, lame], 3, needed=["ours"], show=["speed"])
    assert [list(round_) for round_ in rounds] == [["ours"]] * 3
    told = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("round") for line in told) == 5 and "FileExistsError" in told[-2]
    assert contestants.ratio(rounds, "ours", "lame", "speed") is None
    with pytest.raises(contestants.ContestantError, match=r"^lame: exit code 1: (.|\n)*FileExistsError"):
        contestants.run_rounds([good, lame], 1, needed=["ours", "lame"], show=["speed"])


STEPS = """
import json, pathlib, sys
sys.path.insert(0, {benchmarks!r})
from contestants import wait_for_turn
for step in range({steps}):
    wait_for_turn()
    with pathlib.Path({log!r}).open("a") as log:
        log.write({name!r})
    if step == {fails_at}:
        sys.exit("it fell over")
print(json.dumps({{"tokens_per_second": 1.0, "step_seconds": {seconds}}}))
"""


def stepper(contestants: ModuleType, log: Path, name: str, seconds: list[float], fails_at: int = -1) -> Any:
    """A contestant that writes its name into `log` at each step."""
    code = STEPS.format(
        benchmarks=str(BENCHMARKS), log=str(log), name=name, seconds=seconds, steps=len(seconds), fails_at=fails_at
    )
    return fake(contestants, name, code)


def test_contestants_take_turns_step_by_step(contestants: ModuleType, tmp_path: Path) -> None:
    """A pause of the machine changes one step's ratio, and so not their median."""
    log = tmp_path / "log"
    both = [stepper(contestants, log, "a", [1.0, 9.0, 2.0]), stepper(contestants, log, "b", [3.0, 27.0, 99.0, 1.0])]
    (round_,) = contestants.run_rounds(both, 1, needed=["a"], show=["tokens_per_second"], in_turns=True)
    assert log.read_text() == "abababb" and round_["a"]["in_turns"]
    assert contestants.ratio([round_], "a", "b", "tokens_per_second") == 3.0


def test_who_fails_in_turns_ends_all(contestants: ModuleType, tmp_path: Path, capfd: Any) -> None:
    log = tmp_path / "log"
    lame = stepper(contestants, log, "b", [1.0] * 3, fails_at=1)
    with pytest.raises(contestants.ContestantError, match=r"^b: exit code 1"):
        contestants.run_rounds([stepper(contestants, log, "a", [1.0] * 9), lame], 1, [], [], in_turns=True)
    assert log.read_text() == "abab" and "it fell over" in capfd.readouterr().err


def test_a_ratio_is_made_within_a_round(contestants: ModuleType) -> None:
    rounds = [{"ours": {"speed": a}, "peer": {"speed": b}} for a, b in ((1.0, 4.0), (2.0, 4.0), (4.0, 40.0))]
    assert contestants.ratio(rounds, "ours", "peer", "speed") == 0.25  # of the medians it would be 0.5


def test_a_workers_result_is_found_behind_horovods_prefix(contestants: ModuleType) -> None:
    code = "print('[1]<stdout>:hello'); print('[0]<stdout>:{\"speed\": 3}')"
    assert fake(contestants, "two", code).run() == {"speed": 3}


def test_a_workers_last_words_are_found_behind_horovods_prefix(contestants: ModuleType) -> None:
    code = """
import sys
sys.exit("[0]<stderr>:\\n[0]<stderr>:error: no such shards\\nTraceback of horovodrun\\nExit code: 3")
"""
    with pytest.raises(contestants.ContestantError, match=r"^exit code 1: error: no such shards$"):
        fake(contestants, "two", code).run()


def test_kernels_are_read_from_onednns_report(contestants: ModuleType) -> None:
    """Lines as oneDNN 2.4, 3.2 and 3.12 write them, for products, for something else, and for a primitive's making."""
    lines = [
        "dnnl_verbose,exec,cpu,inner_product,x64:gemm:jit,forward_inference,src_f32::blocked:ab:f0,,,mb512ic768oc768,31",
        "onednn_verbose,exec,cpu,matmul,brg:avx512_core_amx,undef,src_bf16::blocked:ab:f0,,,512x768:768x768,5.1",
        "onednn_verbose,v1,primitive,exec,cpu,matmul,brg_matmul:avx10_1_512_amx,undef,src:bf16::blocked:ab::f0,,5.11",
        "dnnl_verbose,exec,cpu,reorder,jit:uni,undef,src_f32::blocked:ab:f0 dst_bf16::blocked:ab:f0,,,512x768,1.104",
        "onednn_verbose,create:cache_miss,cpu,matmul,never:run,undef,src_bf16::blocked:ab:f0,,,512x768:768x768,0.1",
        "onednn_verbose,info,cpu,isa:Intel AVX-512",
    ]
    code = f"import os; print('\\n'.join({lines!r} if os.environ['ONEDNN_VERBOSE'] == '1' else [])); print('{{}}')"
    found = contestants.product_kernels(fake(contestants, "ours", code))
    assert found == ["brg:avx512_core_amx", "brg_matmul:avx10_1_512_amx", "x64:gemm:jit"]


def test_a_limit_of_instructions_holds_for_both_onednns(contestants: ModuleType, monkeypatch: Any) -> None:
    code = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if 'CPU_ISA' in k}))"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert fake(contestants, "ours", code).run() == {}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert fake(contestants, "ours", code).run() == {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}


def test_peak_memory_is_that_of_the_process(contestants: ModuleType) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
from contestants import peak_memory_mb
before = peak_memory_mb()
held = bytearray(100 << 20)
del held
print('{{"grown": %f}}' % (peak_memory_mb() - before))
"""
    assert 95 < fake(contestants, "ours", code).run()["grown"] < 110


def test_import_speed() -> None:
    result = script("import_speed.py", "--rounds", 1, "--json")
    assert result["ratio"] == result["kogpt2"] / result["plain"] and result["kogpt2"] > 0 and result["processor"]
