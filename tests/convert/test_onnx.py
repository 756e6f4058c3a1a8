"""A checkpoint as graphs for onnxruntime: the numbers of MXNet and transformers, with a cache and without."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.convert.names import EMBEDDING, TIED_COPY, parameters_of
from kogpt2_gluon.convert.onnx_folder import write_onnx
from kogpt2_gluon.errors import DataError, DiskFullError, RecipeError
from kogpt2_gluon.runs.checkpoint import Checkpoint
from tests.convert.convert_helpers import make_checkpoint
from tests.helpers import ROOT, enlarge, kogpt2, run, small_disk
from tests.shards.shard_helpers import flip
from tests.storage.crash_helpers import FILE_OPERATIONS, Crash, PowerCut, count_operations, without_clean_up

onnx = pytest.importorskip("onnx", reason="makes the graphs")
ort = pytest.importorskip("onnxruntime", reason="runs the graphs")

NAMES = ["logits.onnx", "model.onnx"]
EXACT = 1e-5  # of the largest logit


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: bytes) -> Checkpoint:
    """The tiny checkpoint: 64 positions, 501 rows in the embedding, 400 pieces."""
    return make_checkpoint(tmp_path_factory.mktemp("source"), small_tokenizer)


@pytest.fixture(scope="module")
def folder(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint, converted."""
    out = tmp_path_factory.mktemp("onnx") / "out"
    write_onnx(source, out)
    return out


@pytest.fixture(scope="module")
def torch_folder(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint for transformers."""
    out = tmp_path_factory.mktemp("torch") / "out"
    convert_checkpoint(source, out)
    return out


def session(path: Path, level: str = "ORT_ENABLE_ALL", **paths: str) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # an error is raised; it need not be printed too
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    for name, value in paths.items():
        setattr(options, name, value)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def random_ids(*shape: int, vocab_size: int = 501) -> np.ndarray:
    return np.random.RandomState(sum(shape)).randint(0, vocab_size, shape).astype(np.int64)


def empty_past(net: Any, batch_size: int) -> dict[str, np.ndarray]:
    states = [each for each in net.get_inputs() if each.name.startswith("past_key_values")]
    return {each.name: np.empty((batch_size, each.shape[1], 0, each.shape[3]), np.float32) for each in states}


def step(net: Any, ids: np.ndarray, mask: np.ndarray, past: dict) -> tuple[np.ndarray, dict]:
    logits, *present = net.run(None, {"input_ids": ids, "attention_mask": mask, **past})
    return logits, dict(zip(past, present))


def logits_of(net: Any, ids: np.ndarray) -> np.ndarray:
    """The logits of either graph, (batch, length, vocab_size)."""
    if len(net.get_inputs()) == 1:
        return net.run(["logits"], {"input_ids": ids})[0]
    return step(net, ids, np.ones_like(ids), empty_past(net, len(ids)))[0]


def assert_close(logits: np.ndarray, reference: np.ndarray) -> None:
    assert logits.shape == reference.shape and logits.dtype == np.float32
    assert np.abs(logits - reference).max() <= EXACT * np.abs(reference).max()


def gluon_network(checkpoint: Checkpoint) -> Any:
    from kogpt2_gluon.machine.runtime import mx
    from kogpt2_gluon.model.gpt2 import build_model, load_arrays

    net = build_model(checkpoint.recipe().model)
    net.initialize()
    load_arrays(net, checkpoint.model_arrays(), "checkpoint")
    return lambda ids: net(mx.nd.array(ids, dtype="int32"))[0].asnumpy()


# --- the numbers


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_mxnet(source, folder, name):
    gluon, net = gluon_network(source), session(folder / name)
    for shape in ((1, 1), (3, 17), (2, 64), (5, 2), (1, 63)):
        assert_close(logits_of(net, random_ids(*shape)), gluon(random_ids(*shape)))
    with_extremes = np.array([[0, 500, 0, 500]])
    assert_close(logits_of(net, with_extremes), gluon(with_extremes))


SIZES = [
    {"units": 20, "num_heads": 1, "num_layers": 1, "max_length": 32, "vocab_size": 400},
    {"units": 35, "num_heads": 5, "num_layers": 2, "max_length": 33, "vocab_size": 407},
    {"units": 264, "num_heads": 8, "num_layers": 2, "max_length": 40, "vocab_size": 1000},  # an array of 1 MiB
]


@pytest.mark.parametrize("sizes", SIZES)
def test_other_sizes(sizes, small_tokenizer, tmp_path):
    random = np.random.RandomState(3)

    def replace(arrays: dict) -> None:
        from kogpt2_gluon.recipe import ModelRecipe

        model = ModelRecipe(**sizes)
        arrays.clear()
        for each in parameters_of(model):
            arrays[each.name] = random.normal(0, 0.3, each.shape).astype(np.float32)
        arrays[TIED_COPY] = arrays[EMBEDDING]

    checkpoint = make_checkpoint(tmp_path / "random", small_tokenizer, replace, **sizes)
    write_onnx(checkpoint, tmp_path / "out")
    ids = random_ids(2, sizes["max_length"], vocab_size=sizes["vocab_size"])
    reference = gluon_network(checkpoint)(ids)
    for name in NAMES:
        onnx.checker.check_model(str(tmp_path / "out" / name), full_check=True)
        assert_close(logits_of(session(tmp_path / "out" / name), ids), reference)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_a_cache_changes_nothing_however_the_input_is_cut(folder, level):
    ids = random_ids(3, 40)
    whole = logits_of(session(folder / "logits.onnx", level), ids)
    net = session(folder / "model.onnx", level)
    for cuts in ([40], [1, *range(2, 41)], [7, 8, 21, 40]):
        past, pieces, begin = empty_past(net, 3), [], 0
        for end in cuts:
            logits, past = step(net, ids[:, begin:end], np.ones((3, end), np.int64), past)
            pieces.append(logits)
            begin = end
        assert_close(np.concatenate(pieces, axis=1), whole)
        assert {each.shape for each in past.values()} == {(3, 6, 40, 16)}


def test_padding_changes_nothing(folder, torch_folder, transformers):
    """On the left, on the right and in the middle, against transformers with the positions that its generate makes."""
    torch = pytest.importorskip("torch", reason="runs the converted network")
    net, theirs = session(folder / "model.onnx"), transformers.GPT2LMHeadModel.from_pretrained(torch_folder).eval()
    ids = random_ids(4, 12)
    mask = np.ones_like(ids)
    mask[1, :5] = mask[2, 9:] = mask[3, 4:7] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    with torch.no_grad():
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        reference = theirs(**{name: torch.from_numpy(each) for name, each in inputs.items()}).logits.numpy()
    whole, _ = step(net, ids, mask, empty_past(net, 4))
    first, past = step(net, ids[:, :5], mask[:, :5], empty_past(net, 4))
    second, _ = step(net, ids[:, 5:], mask, past)
    for logits in (whole, np.concatenate([first, second], axis=1)):
        assert np.isfinite(logits).all()
        assert_close(logits[mask == 1], reference[mask == 1])
        assert_close(logits[1, 5:], logits_of(net, ids[1:2, 5:])[0])  # as without padding
    nothing, _ = step(net, ids, np.zeros_like(ids), empty_past(net, 4))
    assert np.isfinite(nothing).all()


def generate(net: Any, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Greedy continuations of a batch, with the cache; prompts are padded on the left."""
    longest = max(map(len, prompts))
    ids = np.array([[3] * (longest - len(each)) + each for each in prompts])
    mask = np.array([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
    past, chosen = empty_past(net, len(prompts)), []
    for _ in range(count):
        logits, past = step(net, ids, mask, past)
        ids = logits[:, -1].argmax(-1, keepdims=True)
        mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
        chosen.append(ids)
    return np.concatenate(chosen, axis=1).tolist()


def test_greedy_ids_are_those_of_recomputation_and_of_transformers(folder, torch_folder, transformers):
    torch = pytest.importorskip("torch", reason="runs the converted network")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(torch_folder).eval()
    cached, plain = (session(folder / name) for name in ("model.onnx", "logits.onnx"))
    prompts = [random_ids(1, length)[0].tolist() for length in (1, 4, 9, 16, 30)]
    together = generate(cached, prompts, 30)
    for prompt, ids in zip(prompts, together):
        assert generate(cached, [prompt], 30) == [ids]
        again = list(prompt)
        for _ in range(30):
            again.append(int(logits_of(plain, np.array([again]))[0, -1].argmax()))
        assert again == prompt + ids
        options = {"max_new_tokens": 30, "do_sample": False, "eos_token_id": None, "suppress_tokens": None}
        tensor = torch.tensor([prompt])
        out = theirs.generate(tensor, attention_mask=torch.ones_like(tensor), pad_token_id=3, **options)
        assert out[0].tolist() == again
    assert len({tuple(each) for each in together}) > 3  # they are not all alike


# --- what would give wrong numbers is an error


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_wrong_inputs_are_errors(folder, level):
    plain, cached = (session(folder / name, level) for name in NAMES)
    long, full = random_ids(1, 65), {name: np.zeros((1, 6, 64, 16), np.float32) for name in empty_past(cached, 1)}
    one, none = long[:, :1], empty_past(cached, 1)
    too_long = "sequence_is_longer_than_max_length_64"
    short_mask = "attention_mask_is_not_as_long_as_past_and_input"
    for ids, message in (
        (long, too_long),
        (np.array([[5, -1]]), "ids_are_0_to_500"),
        (np.array([[5, -100]]), "ids_are_0_to_500"),
        (np.array([[5, 501]]), "ids_are_0_to_500"),
        (long[:, :3].astype(np.int32), "int32"),
        (long[0, :3], "Invalid rank"),
    ):
        with pytest.raises(Exception, match=message):
            plain.run(None, {"input_ids": ids})
    for ids, columns, past, message in (
        (long, 65, none, too_long),
        (one, 65, full, too_long),
        (one, 1, full, f"{too_long}|{short_mask}"),
        (long[:, :5], 1, none, short_mask),  # it would be broadcast
        (long[:, :5], 4, none, short_mask),
        (long[:, :5], 6, none, short_mask),
        (one - 700, 1, none, "ids_are_0_to_500"),
    ):
        with pytest.raises(Exception, match=message):
            step(cached, ids, np.ones((1, columns), np.int64), past)
    hidden = np.ones((1, 65), np.int64)
    hidden[:, :10] = 0  # 55 tokens, and padding up to 65
    with pytest.raises(Exception, match=too_long):
        step(cached, long, hidden, none)
    shorter = {**full, "past_key_values.2.key": full["past_key_values.2.key"][:, :, :1]}
    for states in (shorter, {name: each[:, :, :9] for name, each in full.items() if "key" in name} | none):
        with pytest.raises(Exception):  # noqa: B017  # onnxruntime has a class for each of its status codes
            step(cached, one, np.ones((1, 10), np.int64), states)


# --- the files


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_valid_and_says_what_it_is(folder, name):
    onnx.checker.check_model(str(folder / name), full_check=True)
    graph = onnx.load(folder / name, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 17)] and graph.ir_version == 8
    assert len(inferred.graph.value_info) > 100
    net = session(folder / name)
    meta = net.get_modelmeta()
    assert meta.producer_name == "kogpt2-gluon"
    assert meta.custom_metadata_map == {
        "bos_token_id": "1",
        "eos_token_id": "2",
        "pad_token_id": "3",
        "vocab_size": "501",
        "max_length": "64",
    }
    shapes = {each.name: (each.type, each.shape) for each in [*net.get_inputs(), *net.get_outputs()]}
    assert shapes["input_ids"] == ("tensor(int64)", ["batch_size", "sequence_length"])
    assert shapes["logits"] == ("tensor(float)", ["batch_size", "sequence_length", 501])
    total = "past_sequence_length + sequence_length"
    states = {
        "attention_mask": ("tensor(int64)", ["batch_size", total]),
        **{
            f"{when}.{layer}.{part}": ("tensor(float)", ["batch_size", 6, length, 16])
            for when, length in (("past_key_values", "past_sequence_length"), ("present", total))
            for layer in range(3)
            for part in ("key", "value")
        },
    }
    assert shapes == {
        "input_ids": shapes["input_ids"],
        "logits": shapes["logits"],
        **(states if name == "model.onnx" else {}),
    }


def test_the_weights_are_on_disk_once(folder):
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert 4 * 389_952 <= sizes["model.onnx_data"] <= 4 * 389_952 + (1 << 16)
    assert sizes["model.onnx"] + sizes["logits.onnx"] < 50_000
    places = []
    for name in NAMES:
        tensors = onnx.load(folder / name, load_external_data=False).graph.initializer
        outside = [
            ({each.key: each.value for each in tensor.external_data}, tensor.name)
            for tensor in tensors
            if tensor.external_data
        ]
        assert {each["location"] for each, _ in outside} == {"model.onnx_data"}
        places.append({key: (int(each["offset"]), int(each["length"])) for each, key in outside})
        assert sum(size for _, size in places[-1].values()) == 4 * 389_952  # the tied matrix too is there once
    assert places[0] == places[1]


@pytest.mark.parametrize("name", NAMES)
def test_loading_makes_no_second_embedding(folder, tmp_path, name):
    """onnxruntime saves, with a graph, what it computed from the weights as it loaded it."""
    work = tmp_path / "copy"
    work.mkdir()
    for file in (name, "model.onnx_data"):
        (work / file).write_bytes((folder / file).read_bytes())
    session(work / name, optimized_model_filepath=str(work / "optimized.onnx"))
    assert (work / "optimized.onnx").stat().st_size < 501 * 96 * 4 // 2


def test_quantization_and_optimization_keep_the_tied_matrix(folder, tmp_path):
    """onnxruntime's own tools; both rewrite a Gemm, and its weight is the embedding too."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    version = tuple(map(int, ort.__version__.split(".")[:2]))
    if version < (1, 32):
        pytest.skip(f"onnxruntime {ort.__version__} transposes the embedding in place")
    ids = random_ids(2, 20)
    for name in NAMES:
        reference = logits_of(session(folder / name), ids)
        quantization.quantize_dynamic(folder / name, tmp_path / name)
        assert (tmp_path / name).stat().st_size < 4 * 389_952 // 2
        assert np.abs(logits_of(session(tmp_path / name), ids) - reference).max() < 0.1 * np.abs(reference).max()


def fused(path: Path, out: Path) -> None:
    from onnxruntime.transformers import optimizer

    model = optimizer.optimize_model(str(path), model_type="gpt2", num_heads=6, hidden_size=96)
    model.save_model_to_file(str(out))


@pytest.mark.parametrize("name", NAMES)
def test_the_optimizer_for_gpt2_keeps_the_numbers(folder, tmp_path, name):
    pytest.importorskip("onnxruntime.transformers.optimizer")
    fused(folder / name, tmp_path / name)
    ids = random_ids(2, 20)
    assert_close(logits_of(session(tmp_path / name), ids), logits_of(session(folder / name), ids))


def test_the_cards_python_runs_as_written(folder, torch_folder, transformers):
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(code) == 1
    done = run(sys.executable, "-c", f"import os; os.chdir({str(folder)!r})\n{code[0]}", PYTHONUTF8="1")
    net = transformers.GPT2LMHeadModel.from_pretrained(torch_folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(torch_folder)
    prompt = tokenizer("<s>오늘은 날씨가", split_special_tokens=False, return_tensors="pt")
    out = net.generate(prompt.input_ids, attention_mask=prompt.attention_mask, max_new_tokens=32, do_sample=False)
    assert done.stdout.strip() == tokenizer.decode(out[0], skip_special_tokens=True).strip()
    assert "Recipe `tiny`, step 1,200" in card and "389,952 parameters" in card


def test_the_folder(source, folder, torch_folder, tmp_path):
    write_onnx(source, tmp_path / "again")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files
    others = {path.name: path.read_bytes() for path in torch_folder.iterdir()}
    assert files.keys() - others.keys() == {"model.onnx", "logits.onnx", "model.onnx_data"}
    assert others.keys() - files.keys() == {"model.safetensors"}
    assert all(files[name] == others[name] for name in files.keys() & others.keys() - {"README.md"})
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_the_command(source, tmp_path):
    done = kogpt2("convert", source.path, tmp_path / "out", "--to", "onnx")
    assert "model.onnx generates" in done.stdout and (tmp_path / "out" / "model.onnx_data").is_file()
    assert "not empty" in kogpt2("convert", source.path, tmp_path / "out", "--to", "onnx", code=2).stderr


def test_without_the_package_onnx(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RecipeError, match=r"^--to onnx needs the package onnx: pip install 'kogpt2-gluon\[convert\]'$"):
        write_onnx(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_needs_neither_mxnet_nor_torch_nor_transformers(source, tmp_path):
    code = """
import sys
from pathlib import Path
for name in ("mxnet", "torch", "transformers", "gluonnlp", "horovod", "onnxruntime"):
    sys.modules[name] = None  # importing it now fails
from kogpt2_gluon.convert.onnx_folder import write_onnx
from kogpt2_gluon.runs.checkpoint import open_checkpoint
write_onnx(open_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", code, str(source.path), str(tmp_path / "out")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)
    assert (tmp_path / "out" / "model.onnx").is_file()


def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path):
    flip(checkpoint.model_path, 1000)
    with pytest.raises(DataError, match=r"model\.params: missing, truncated or damaged"):
        write_onnx(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [64 << 10, 1 << 20])
def test_a_full_disk(source: Checkpoint, tmp_path: Path, size: int) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(DiskFullError, match=r"the disk is full \(.*\); the converted model needs \d") as caught:
            write_onnx(source, disk / "out")
        assert f"{disk}/" in str(caught.value) and list(disk.iterdir()) == []
        enlarge(disk, 16 << 20)
        write_onnx(source, disk / "out")


@pytest.mark.parametrize(("error", "raised", "after"), [(OSError, RecipeError, False), (PowerCut, PowerCut, True)])
def test_a_conversion_that_fails_anywhere_leaves_a_whole_folder_or_none(source, folder, tmp_path, error, raised, after):
    """Every call that touches the disk fails in turn; after a power cut nothing is tidied up either."""
    reads = count_operations(lambda: (source.verify(), source.recipe(), source.state()), FILE_OPERATIONS)
    reads += 2  # the tokenizer, and the arrays
    calls = count_operations(lambda: write_onnx(source, tmp_path / "whole"), FILE_OPERATIONS)
    assert calls >= reads + 20
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for at in range(reads + 1, calls + 1):
        out = tmp_path / f"at{at}" / "out"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(raised):
            if error is PowerCut:
                without_clean_up(patch)
            Crash(patch, at, after, error, FILE_OPERATIONS)
            write_onnx(source, out)
        if out.exists():
            assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
        elif error is OSError and out.parent.exists():
            assert not list(out.parent.iterdir())
