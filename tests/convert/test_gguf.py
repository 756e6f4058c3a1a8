"""The GGUF file: what is in it, what is refused, and all of it or nothing."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.convert.gguf_folder import Cost, write_gguf
from kogpt2_gluon.convert.gguf_vocabulary import gguf_vocabulary
from kogpt2_gluon.convert.names import parameters_of
from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.errors import DataError, RecipeError
from tests.convert.convert_helpers import OWN_SENTENCES, make_checkpoint, train, with_rows
from tests.helpers import enlarge, kogpt2, small_disk

gguf = pytest.importorskip("gguf", reason="reads the file")

PIECES = 400


def contents(folder: Path) -> tuple[dict, dict]:
    """The keys of the one file of a folder, and its tensors in the order of their axes in NumPy."""
    [path] = folder.glob("*.gguf")
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    return keys, {tensor.name: tensor for tensor in reader.tensors}


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "out"
    write_gguf(source, out)
    return out


def test_the_keys(folder):
    keys, _ = contents(folder)
    expected = {
        "general.architecture": "gpt2",
        "general.name": "tiny",
        "general.file_type": 0,
        "gpt2.context_length": 64,
        "gpt2.embedding_length": 96,
        "gpt2.feed_forward_length": 384,
        "gpt2.block_count": 3,
        "gpt2.attention.head_count": 6,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": True,
    }
    assert {name: keys[name] for name in expected} == expected
    assert keys["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)


def test_every_array_is_there_as_it_was(folder, source):
    _, tensors = contents(folder)
    arrays = source.model_arrays()
    stored = {tensor.data.tobytes(): name for name, tensor in tensors.items()}
    for parameter in parameters_of(source.recipe().model):
        if parameter.name != "_embed.weight":
            assert arrays[parameter.name].tobytes() in stored, parameter.name
    assert len(tensors) == len(list(parameters_of(source.recipe().model))) + 1  # the output apart


def test_rows_without_a_piece_are_left_out_and_bytes_are_added(folder, source):
    keys, tensors = contents(folder)
    rows = source.model_arrays()["_embed.weight"]
    tokens = keys["tokenizer.ggml.tokens"]
    assert len(rows) == 501 and len(tokens) == PIECES + 256 and tokens[PIECES + 0x41] == "<0x41>"
    assert keys["tokenizer.ggml.token_type"][PIECES:] == [6] * 256
    read, rated = tensors["token_embd.weight"].data, tensors["output.weight"].data
    assert np.array_equal(read[:PIECES], rows[:PIECES]) and np.array_equal(rated[:PIECES], rows[:PIECES])
    assert (read[PIECES:] == rows[tokens.index("<unk>")]).all()
    assert (rated[PIECES:] == rows[tokens.index("<pad>")]).all()


def test_a_model_with_bytes_of_its_own_is_tied(tmp_path):
    tokenizer = train(OWN_SENTENCES * 20, 700, profile="lossless")
    run = with_rows(tmp_path, tokenizer, 700)
    write_gguf(run, tmp_path / "out")
    keys, tensors = contents(tmp_path / "out")
    assert len(keys["tokenizer.ggml.tokens"]) == len(gguf_vocabulary(run.tokenizer_path).tokens) <= 700
    assert "output.weight" not in tensors and "no piece" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("dtype, kind, file_type", [("float16", "F16", 1), ("bfloat16", "BF16", 32)])
def test_rounded_weights(source, tmp_path, dtype, kind, file_type):
    convert_to("gguf", source, tmp_path / "out", dtype=dtype)
    assert (tmp_path / "out" / f"model-{kind}.gguf").is_file()
    keys, tensors = contents(tmp_path / "out")
    assert keys["general.file_type"] == file_type
    for name, tensor in tensors.items():
        whole = len(tensor.shape) == 1 or name == "position_embd.weight"
        assert tensor.tensor_type.name == ("F32" if whole else kind), name
    weight = source.model_arrays()["_ffn_layers.0._out_map.weight"]
    stored = gguf.quants.dequantize(tensors["blk.0.ffn_down.weight"].data, tensors["blk.0.ffn_down.weight"].tensor_type)
    assert 0 < np.abs(stored - weight).max() <= np.abs(weight).max() * 2.0**-8


def test_special_tokens_that_a_text_could_spell_are_named(tmp_path):
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(train([*OWN_SENTENCES, "< / s >"] * 20, 400))
    spare = [piece for piece in proto.pieces if len(piece.piece) > 2 and piece.type == 1][-2:]
    spare[0].piece, spare[1].piece = "</", "s>"
    model = tmp_path / "t.model"
    model.write_bytes(proto.SerializeToString())
    assert gguf_vocabulary(model).spelled == ["<s>", "</s>"]


# ---- the card --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, noteworthy", [(0.004, False), (0.006, True), (-0.006, True)])
def test_a_cost_above_half_a_percent_is_the_first_line(source, tmp_path, change, noteworthy):
    write_gguf(source, tmp_path / "out", measure=lambda _: Cost(145, 0.03, 1.25, change))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    first = card.split("---\n")[2].strip().split("\n")[0]
    assert first.startswith("**Not as trained: in llama.cpp") == noteworthy
    assert f"by {change:+.2%}" in card and "by up to 0.03" in card


def test_without_mxnet_the_card_says_that_nothing_was_measured(checkpoint, tmp_path):
    """An import of MXNet that fails stands for an environment without it."""
    from tests.helpers import run

    without = "import sys; sys.modules['mxnet'] = None; from kogpt2_gluon.machine import runtime; "
    without += "runtime.installed_wheel = lambda: None; from kogpt2_gluon.cli.main import main; main()"
    done = run(sys.executable, "-c", without, "convert", checkpoint.path, tmp_path / "out", "--to", "gguf")
    assert "warning" not in done.stdout + done.stderr
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "not measured: MXNet was not installed" in " ".join(card.split())


def test_the_python_of_the_card_is_the_normalisation(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    [code] = [line for line in card.split("`") if line.startswith('" ".join(')]
    made = eval(code, {"unicodedata": unicodedata, "text": "  ①의\n\nＡ  나 "})  # our own line
    assert made == "1의 A 나"


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_tokenizer_json_is_refused(torch_folder, tmp_path):
    copy = tmp_path / "folder"
    copy.mkdir()
    for path in torch_folder.iterdir():
        if path.name != "spiece.model":
            (copy / path.name).write_bytes(path.read_bytes())
    error = kogpt2("convert", copy, tmp_path / "out", "--to", "gguf", code=2).stderr
    assert error.count("\n") == 1 and "--to gguf takes a SentencePiece tokenizer" in error and "tokenizer.json" in error
    assert not (tmp_path / "out").exists()
    write_gguf(open_source(torch_folder)[0], tmp_path / "whole")  # the same folder with its SentencePiece model


def test_options_of_other_targets_are_refused(source, tmp_path):
    for options in ({"bos": True}, {"with_optimizer": True}, {"max_shard_size": 1}):
        with pytest.raises(RecipeError, match="gguf"):
            convert_to("gguf", source, tmp_path / "out", **options)


def test_without_the_package_it_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(RecipeError, match=r"--to gguf needs the package gguf .*pip install"):
        write_gguf(source, tmp_path / "out")


def test_a_number_that_float16_cannot_hold(tmp_path, small_tokenizer):
    run = make_checkpoint(
        tmp_path, small_tokenizer, lambda arrays: arrays["_ffn_layers.1._out_map.weight"].__setitem__((0, 0), 7e4)
    )
    with pytest.raises(DataError, match=r"blk\.1\.ffn_down\.weight: has a number beyond float16"):
        write_gguf(run, tmp_path / "out", "float16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [64 << 10, 1 << 20])
def test_a_small_disk(checkpoint, tmp_path, size):
    with small_disk(tmp_path / "disk", size) as disk:
        error = kogpt2("convert", checkpoint.path, disk / "out", "--to", "gguf", code=1).stderr
        [line] = [line for line in error.splitlines() if "the disk is full" in line]
        assert "; the converted model needs " in line and f"{disk}/" in line and list(disk.iterdir()) == []
        enlarge(disk, 16 << 20)
        kogpt2("convert", checkpoint.path, disk / "out", "--to", "gguf")
        assert (disk / "out" / "model-F32.gguf").is_file()
