"""A checkpoint is loaded for use: only what is used is read, all of that is verified, and nothing is kept twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DamagedError, DataError
from kogpt2_gluon.inference import generation
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import build_model, load_arrays, structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.ops.choose import choose_ops
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.runs.checkpoint import newest_checkpoint, open_checkpoint, save_checkpoint
from kogpt2_gluon.storage.params_file import ParamsFile, read_params
from kogpt2_gluon.storage.tokenizer_file import SENTENCEPIECE, StoredTokenizer
from tests.helpers import ROOT
from tests.shards.shard_helpers import flip

TINY = {"units": 32, "vocab_size": 800, "max_length": 40, "num_layers": 2, "num_heads": 4}
TIED = "_logits_proj.weight"


def make(ckpt_dir: Path, tokenizer: bytes, tied_twice: bool = False, moments: bool = True, **sizes: int) -> Path:
    """Saves a checkpoint of a random network; returns its folder."""
    recipe = parse_recipe({"name": "random", "model": {**TINY, **sizes}, "data": {"seq_length": 16}})
    draw = np.random.default_rng(0)
    arrays = {
        name: draw.normal(0, 0.3, parameter.shape).astype(np.float32)
        for name, parameter in structural_parameters(build_model(recipe.model)).items()
    }
    optimizer = {f"{name}:{k}": array for name, array in arrays.items() for k in range(2 * moments)}
    if tied_twice:
        arrays[TIED] = arrays["_embed.weight"]
    stored = StoredTokenizer(SENTENCEPIECE, tokenizer)
    return save_checkpoint(ckpt_dir, {"step": 7}, arrays, optimizer, recipe, stored)


@pytest.fixture
def folder(tmp_path: Path, small_tokenizer: bytes) -> Path:
    return make(tmp_path / "checkpoints", small_tokenizer)


def generate(folder: Path, *options: str) -> object:
    arguments = ["generate", str(folder), "가", "--max-new-tokens", "4", "--temperature", "0", "--device", "cpu"]
    return CliRunner().invoke(cli, [*arguments, *options])


# ---- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied_twice", [False, True], ids=["tied once", "tied twice"])
@pytest.mark.parametrize("ops", ["stock", "fused"])
def test_the_network_computes_what_a_copied_one_does_bit_for_bit(tmp_path, small_tokenizer, ops, tied_twice):
    checkpoint = open_checkpoint(make(tmp_path, small_tokenizer, tied_twice))
    net, _, recipe, ctx = load_checkpoint(checkpoint.path, "cpu", ops=ops)
    copied = build_model(recipe.model, choose_ops(ops, "float32", ctx, recipe.model.dropout))
    copied.initialize(ctx=ctx)
    load_arrays(copied, checkpoint.model_arrays(), "the checkpoint")
    written = read_params(checkpoint.model_path)
    for name, parameter in structural_parameters(net).items():
        assert parameter.data().asnumpy().tobytes() == written[name].tobytes(), name
        assert parameter.list_ctx() == [ctx] and parameter.grad_req == "null"
    ids = mx.nd.array(np.random.RandomState(0).randint(0, 800, (3, 17)), dtype="int32")
    assert np.array_equal(net(ids)[0].asnumpy(), copied(ids)[0].asnumpy())
    losses = []
    for each in (net, copied):
        block = LanguageModelLoss(each)
        block.hybridize(static_alloc=True, static_shape=True)
        losses.append(block(ids).asnumpy())
    assert np.array_equal(*losses) and np.isfinite(losses[0]).all()


def test_a_checkpoint_with_one_hash_a_file_loads(folder):
    """Format version 1 of the manifest."""
    xxhash = pytest.importorskip("xxhash")
    files = {
        path.name: {"bytes": path.stat().st_size, "xxh3_128": xxhash.xxh3_128_hexdigest(path.read_bytes())}
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    before = generate(folder).output
    (folder / "manifest.json").write_text(json.dumps({"format_version": 1, "files": files}))
    assert generate(folder).output == before
    flip(folder / "model.params", 5000)
    with pytest.raises(DamagedError):
        load_checkpoint(folder, "cpu")


# ---- only what is used is read, and all of that is verified ----------------------------------------------------------


def test_damage_of_the_optimizer_stops_a_resume_and_not_a_text(folder):
    before = generate(folder)
    flip(folder / "optimizer.params", 4000)
    after = generate(folder)
    assert after.exit_code == before.exit_code == 0 and after.output == before.output and after.output.startswith("가")
    with pytest.raises(DamagedError, match=r"optimizer\.params"):
        newest_checkpoint(folder.parent)


def test_the_optimizer_and_every_byte_twice_are_not_read(folder, monkeypatch):
    read: dict[str, int] = {}
    whole = os.preadv

    def preadv(descriptor, buffers, offset):
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        count = whole(descriptor, buffers, offset)
        read[name] = read.get(name, 0) + count
        return count

    monkeypatch.setattr(os, "preadv", preadv)
    load_checkpoint(folder, "cpu")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert read == {name: size for name, size in sizes.items() if name not in ("optimizer.params", "manifest.json")}


def places(path: Path) -> dict[str, int]:
    """Bytes of every kind in a file of parameters."""
    size, arrays = path.stat().st_size, ParamsFile(path)
    first = {name: offset for name, (_, _, offset) in arrays._places.items()}
    return {
        "magic number": 0,
        "number of arrays": 16,
        "a shape": min(first.values()) - 20,
        "a dtype": min(first.values()) - 4,
        "first number": min(first.values()),
        "a number": first["_ffn_layers.1._out_map.weight"] + 1001,
        "a name": size - 3,
        "last byte": size - 1,
    }


def test_a_changed_byte_anywhere_is_refused_before_the_network_is_used(folder, monkeypatch):
    used = []
    monkeypatch.setattr(generation, "slots_for", lambda *arguments: used.append(arguments))
    for what, at in places(folder / "model.params").items():
        flip(folder / "model.params", at)
        with pytest.raises(DamagedError, match=r"model\.params: missing, truncated or damaged"):
            load_checkpoint(folder, "cpu")
        result = generate(folder)
        assert isinstance(result.exception, DamagedError), what
        assert not result.stdout and not used, what
        flip(folder / "model.params", at)
    for name in ("tokenizer.model", "recipe.yaml", "state.json"):
        flip(folder / name, 3)
        with pytest.raises(DamagedError, match=name):
            load_checkpoint(folder, "cpu")
        flip(folder / name, 3)
    load_checkpoint(folder, "cpu")


def test_a_whole_file_of_another_network_is_not_called_damaged(tmp_path, small_tokenizer):
    folder = make(tmp_path, small_tokenizer, units=48)
    checkpoint = open_checkpoint(folder)
    recipe = checkpoint.recipe()
    recipe.model.units = 32
    other = save_checkpoint(
        tmp_path / "other", {"step": 7}, dict(checkpoint.model_arrays()), {}, recipe,
        StoredTokenizer(SENTENCEPIECE, small_tokenizer),
    )  # fmt: skip
    with pytest.raises(
        DataError, match=r"_pos_embed\.weight has shape \(40, 48\), the model needs \(40, 32\)"
    ) as caught:
        load_checkpoint(other, "cpu")
    assert not isinstance(caught.value, DamagedError)


# ---- little time and memory ------------------------------------------------------------------------------------------


def in_a_process(code: str, *arguments: object) -> dict:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def large(tmp_path_factory, small_tokenizer) -> Path:
    """87 MB of weights."""
    folder = tmp_path_factory.mktemp("large")
    return make(folder, small_tokenizer, moments=False, units=256, vocab_size=60_000, num_layers=8)


READY = """
    import json, resource, sys
    from pathlib import Path
    from kogpt2_gluon.errors import OutOfMemoryError
    from kogpt2_gluon.inference.loading import load_checkpoint
    from kogpt2_gluon.inference.generation import generate
    from kogpt2_gluon.inference.sampling import Sampling
    from kogpt2_gluon.machine.runtime import mx
    from kogpt2_gluon.ops.choose import choose_ops

    def memory(which):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(which))

    choose_ops("auto", "float32", mx.cpu(), 0.1)
    (mx.nd.ones((8, 8)) + 1).wait_to_read()
"""


def test_the_weights_are_in_memory_once(large):
    grown = in_a_process(
        READY
        + """
    before = memory("VmHWM")
    net, tokenizer, _, ctx = load_checkpoint(Path(sys.argv[1]), "cpu")
    generate(net, tokenizer, "가", Sampling(4, temperature=0), 1, ctx)
    print(json.dumps(memory("VmHWM") - before))
        """,
        large,
    )
    size = (large / "model.params").stat().st_size
    assert size > 80e6
    assert size < grown < 1.4 * size, (grown, size)


def test_too_little_memory_is_said_in_one_line(large):
    said = in_a_process(
        READY
        + """
    resource.setrlimit(resource.RLIMIT_AS, [memory("VmSize") + (50 << 20)] * 2)
    try:
        load_checkpoint(Path(sys.argv[1]), "cpu")
    except OutOfMemoryError as error:
        print(json.dumps(str(error)))
        """,
        large,
    )
    assert (
        said.startswith(f"out of memory: the weights of {large} take 83 MiB, and this process's limit")
        and "\n" not in said
    )


# What belongs to other verbs, or to libraries that other verbs use; each costs a start tens of milliseconds or more.
NOT_FOR_A_TEXT = [
    "torch", "transformers", "tokenizers", "safetensors", "gluonnlp", "horovod", "setuptools", "distutils", "boto3",
    "requests", "scipy", "pandas", "matplotlib", "onnx", "tensorboardX", "mxnet.test_utils", "kogpt2_gluon.training",
    "kogpt2_gluon.reading", "kogpt2_gluon.shards", "kogpt2_gluon.convert", "kogpt2_gluon.storage.s3",
]  # fmt: skip


def test_a_text_needs_no_modules_of_other_verbs(folder):
    loaded = in_a_process(
        """
        import json, sys
        from kogpt2_gluon.cli.main import cli
        cli(["generate", sys.argv[1], "가", "--max-new-tokens", "2", "--device", "cpu"], standalone_mode=False)
        print()
        print(json.dumps(sorted(sys.modules)))
        """,
        folder,
    )
    assert "mxnet" in loaded and "sentencepiece" in loaded
    assert not {name for name in loaded if any(f"{name}.".startswith(f"{other}.") for other in NOT_FOR_A_TEXT)}
