"""Values that Horovod or NCCL cannot parse are refused by name, wherever the variable comes from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.hosts import Host
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.plan.plan_file import load_plan
from kogpt2_launch.plan.values import HOROVOD_INTEGERS, NCCL_INTEGERS, unreadable
from kogpt2_launch.run.job import check_inherited

BAD = [
    ("HOROVOD_FUSION_THRESHOLD", "64MB", "Horovod would read 64: .*; 64MB is 67108864"),
    ("HOROVOD_FUSION_THRESHOLD", "1e6", "Horovod would read 1:"),
    ("HOROVOD_FUSION_THRESHOLD", "0x4000000", "Horovod would read 0:"),
    ("HOROVOD_FUSION_THRESHOLD", "0.5 GiB", "Horovod would read 0: .*; 0.5 GiB is 536870912"),
    ("HOROVOD_FUSION_THRESHOLD", "", "Horovod would read 0:"),
    ("HOROVOD_FUSION_THRESHOLD", "9" * 30, "Horovod would read 9223372036854775807:"),
    ("HOROVOD_CACHE_CAPACITY", "-1", "Horovod would read -1:"),
    ("HOROVOD_AUTOTUNE", "true", "Horovod would read 0:"),
    ("HOROVOD_STALL_CHECK_TIME_SECONDS", "1m", "Horovod would read 1:"),
    ("HOROVOD_CYCLE_TIME", "3,5", "Horovod would read 3: give a number"),
    ("HOROVOD_CYCLE_TIME", "5ms", "Horovod would read 5: give a number"),
    ("HOROVOD_CYCLE_TIME", "fast", "Horovod would read 0: give a number"),
    ("HOROVOD_LOG_LEVEL", "verbose", "Horovod would take warning: give one of trace, debug"),
    ("HOROVOD_THREAD_AFFINITY", "0-3", "Horovod would read other cores: give their numbers with commas"),
    ("NCCL_BUFFSIZE", "4M", "NCCL would read 4: .*; 4M is 4194304"),
    ("NCCL_BUFFSIZE", "0100", "NCCL would read 64: give a whole number without a leading 0"),
    ("NCCL_NTHREADS", "512 threads", "NCCL would read 512:"),
    ("NCCL_P2P_DISABLE", "yes", "NCCL would read 0:"),
    ("NCCL_IB_TIMEOUT", "0x", "NCCL would read 0:"),
    ("NCCL_DEBUG", "verbose", "NCCL would log nothing: give one of VERSION, WARN"),
    ("NCCL_DEBUG_SUBSYS", "INIT,NETWORK", "NCCL would ignore 'NETWORK'"),
]
GOOD = [
    *(("HOROVOD_FUSION_THRESHOLD", "0"), ("HOROVOD_FUSION_THRESHOLD", "67108864"), ("HOROVOD_CYCLE_TIME", "3.5")),
    *(("HOROVOD_CYCLE_TIME", ".5"), ("HOROVOD_CYCLE_TIME", "1e1"), ("HOROVOD_LOG_LEVEL", "DEBUG")),
    *(("HOROVOD_THREAD_AFFINITY", "0,4"), ("HOROVOD_TIMELINE", "t 64MB.json"), ("NCCL_BUFFSIZE", "0x400000")),
    *(("NCCL_NTHREADS", "-2"), ("NCCL_BUFFSIZE", ""), ("NCCL_DEBUG", "info"), ("NCCL_DEBUG_SUBSYS", "^INIT,net")),
    *(("NCCL_ALGO", "Tree"), ("NCCL_P2P_LEVEL", "PIX"), ("NCCL_IB_HCA", "mlx5_0"), ("OTHER", "64MB")),
]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("data: {seq_length: 32}\ntraining: {batch_size: 2, total_batch_size: 32}\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("name", "value", "told"), BAD)
def test_what_is_not_read_as_it_says_is_refused(recipe, name, value, told, monkeypatch):
    with pytest.raises(RecipeError, match=rf"^--env {name}=.*: {told}"):
        make_plan(recipe, [], [Host("localhost", 1)], env={name: value})
    monkeypatch.setenv(name, value)  # and where workers would inherit it
    with pytest.raises(RecipeError, match=rf"^{name} in this environment: {told}.*; unset it$"):
        check_inherited(make_plan(recipe, [], [Host("localhost", 1)]))


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_what_is_read_as_it_says_passes(name, value):
    assert unreadable(name, value) is None


@pytest.mark.parametrize(
    "name", [f"HOROVOD_{each}" for each in HOROVOD_INTEGERS] + [f"NCCL_{each}" for each in NCCL_INTEGERS]
)
def test_every_number_is_checked(name):
    for value in ("on", "1k", "2 s"):
        assert unreadable(name, value) is not None
    assert unreadable(name, "1") is None


def test_a_plan_file_is_held_to_the_same_rule(recipe, tmp_path):
    plan = make_plan(recipe, [], [Host("localhost", 1)], env={"HOROVOD_FUSION_THRESHOLD": "64"})
    by_hand = replace(
        plan, env=tuple(replace(each, value=f"{each.value}MB") for each in plan.env if "FUSION" in each.name)
    )
    path = tmp_path / "plan.json"
    path.write_text(by_hand.to_json())
    with pytest.raises(RecipeError, match=r"plan.json: HOROVOD_FUSION_THRESHOLD: Horovod would read 64"):
        load_plan(path)
