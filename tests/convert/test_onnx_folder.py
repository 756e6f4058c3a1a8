"""The folder for onnxruntime: valid graphs, the weights once, a card that runs, all of it or nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.convert.onnx_folder import write_onnx
from kogpt2_gluon.errors import DataError, DiskFullError, RecipeError
from kogpt2_gluon.runs.checkpoint import Checkpoint
from tests.convert.onnx_helpers import NAMES, assert_close, logits_of, ort, random_ids, session
from tests.helpers import ROOT, enlarge, kogpt2, run, small_disk
from tests.lazy_modules import needed
from tests.shards.shard_helpers import flip
from tests.storage.crash_helpers import FILE_OPERATIONS, Crash, PowerCut, count_operations, without_clean_up

onnx = needed("onnx", reason="makes the graphs")


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_valid_and_says_what_it_is(onnx_folder, name):
    onnx.checker.check_model(str(onnx_folder / name), full_check=True)
    graph = onnx.load(onnx_folder / name, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 17)] and graph.ir_version == 8
    assert len(inferred.graph.value_info) > 100
    net = session(onnx_folder / name)
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


def test_the_weights_are_on_disk_once(onnx_folder):
    sizes = {path.name: path.stat().st_size for path in onnx_folder.iterdir()}
    assert 4 * 389_952 <= sizes["model.onnx_data"] <= 4 * 389_952 + (1 << 16)
    assert sizes["model.onnx"] + sizes["logits.onnx"] < 50_000
    places = []
    for name in NAMES:
        tensors = onnx.load(onnx_folder / name, load_external_data=False).graph.initializer
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
def test_loading_makes_no_second_embedding(onnx_folder, tmp_path, name):
    """onnxruntime saves, with a graph, what it computed from the weights as it loaded it."""
    work = tmp_path / "copy"
    work.mkdir()
    for file in (name, "model.onnx_data"):
        (work / file).write_bytes((onnx_folder / file).read_bytes())
    session(work / name, optimized_model_filepath=str(work / "optimized.onnx"))
    assert (work / "optimized.onnx").stat().st_size < 501 * 96 * 4 // 2


def test_quantization_and_optimization_keep_the_tied_matrix(onnx_folder, tmp_path):
    """onnxruntime's own tools; both rewrite a Gemm, and its weight is the embedding too."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    version = tuple(map(int, ort.__version__.split(".")[:2]))
    if version < (1, 32):
        pytest.skip(f"onnxruntime {ort.__version__} transposes the embedding in place")
    ids = random_ids(2, 20)
    for name in NAMES:
        reference = logits_of(session(onnx_folder / name), ids)
        quantization.quantize_dynamic(onnx_folder / name, tmp_path / name)
        assert (tmp_path / name).stat().st_size < 4 * 389_952 // 2
        assert np.abs(logits_of(session(tmp_path / name), ids) - reference).max() < 0.1 * np.abs(reference).max()


def fused(path: Path, out: Path) -> None:
    from onnxruntime.transformers import optimizer

    model = optimizer.optimize_model(str(path), model_type="gpt2", num_heads=6, hidden_size=96)
    model.save_model_to_file(str(out))


@pytest.mark.parametrize("name", NAMES)
def test_the_optimizer_for_gpt2_keeps_the_numbers(onnx_folder, tmp_path, name):
    pytest.importorskip("onnxruntime.transformers.optimizer")
    fused(onnx_folder / name, tmp_path / name)
    ids = random_ids(2, 20)
    assert_close(logits_of(session(tmp_path / name), ids), logits_of(session(onnx_folder / name), ids))


def test_the_cards_python_runs_as_written(onnx_folder, torch_folder, transformers):
    card = (onnx_folder / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(code) == 1
    done = run(sys.executable, "-c", f"import os; os.chdir({str(onnx_folder)!r})\n{code[0]}", PYTHONUTF8="1")
    net = transformers.GPT2LMHeadModel.from_pretrained(torch_folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(torch_folder)
    prompt = tokenizer("<s>오늘은 날씨가", split_special_tokens=False, return_tensors="pt")
    out = net.generate(prompt.input_ids, attention_mask=prompt.attention_mask, max_new_tokens=32, do_sample=False)
    assert done.stdout.strip() == tokenizer.decode(out[0], skip_special_tokens=True).strip()
    assert "Recipe `tiny`, step 1,200" in card and "389,952 parameters" in card


def test_the_folder(source, onnx_folder, torch_folder, tmp_path):
    write_onnx(source, tmp_path / "again")
    files = {path.name: path.read_bytes() for path in onnx_folder.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files
    others = {path.name: path.read_bytes() for path in torch_folder.iterdir()}
    assert files.keys() - others.keys() == {"model.onnx", "logits.onnx", "model.onnx_data"}
    assert others.keys() - files.keys() == {"model.safetensors"}
    assert all(files[name] == others[name] for name in files.keys() & others.keys() - {"README.md"})
    assert len({path.stat().st_mode for path in onnx_folder.iterdir()}) == 1


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
def test_a_conversion_that_fails_anywhere_leaves_a_whole_folder_or_none(
    source, onnx_folder, tmp_path, monkeypatch, error, raised, after
):
    """Every call that touches the disk fails in turn; after a power cut nothing is tidied up either."""
    arrays = dict(source.model_arrays())  # in memory: of all reads, only those before the first write come here
    monkeypatch.setattr(Checkpoint, "model_arrays", lambda self: arrays)
    reads = count_operations(lambda: (source.verify(), source.recipe(), source.state()), FILE_OPERATIONS)
    reads += 2  # the tokenizer: what kind it is, and all of it
    calls = count_operations(lambda: write_onnx(source, tmp_path / "whole"), FILE_OPERATIONS)
    assert calls >= reads + 20
    whole = {path.name: path.read_bytes() for path in onnx_folder.iterdir()}
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
