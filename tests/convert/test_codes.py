"""Checkpoints stored in codes: their bytes, counted; what every tool makes of them; what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from kogpt2_gluon.binary_codes import PackedCodes, quantise
from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.convert.codes_folder import size_of
from kogpt2_gluon.convert.names import parameters_of
from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.errors import DamagedError, DataError, RecipeError
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.model.gpt2 import structural_parameters
from kogpt2_gluon.recipe_sections import AdaptationRecipe, ModelRecipe
from kogpt2_gluon.runs.checkpoint import PROMPT, open_checkpoint, save_checkpoint
from kogpt2_gluon.runs.saved_codes import codes_of
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer
from tests.convert.convert_helpers import make_checkpoint
from tests.shards.shard_helpers import flip

MATRICES = ("qkv_proj.weight", "_out_proj.weight", "_map.weight")


def coded(source, out, **options):
    done = convert_to("codes", source, out, **options)
    return open_checkpoint(out), done


@pytest.fixture(scope="module")
def in_codes(source, tmp_path_factory):
    return coded(source, tmp_path_factory.mktemp("codes") / "run", bits=3, group_size=32)


def test_bytes_are_those_of_the_file(source, in_codes):
    """A file has a header besides; every number of the network is counted once."""
    checkpoint, done = in_codes
    numbers = {each.name: int(np.prod(each.shape)) for each in parameters_of(source.recipe().model)}
    in_matrices = sum(count for name, count in numbers.items() if name.endswith(MATRICES))
    rest = sum(numbers.values()) - in_matrices
    whole = 3 * in_matrices // 8 + 3 * 4 * in_matrices // 32 + 4 * rest
    size = checkpoint.model_path.stat().st_size
    length = int.from_bytes(checkpoint.model_path.read_bytes()[:8], "little")
    assert size == 8 + length + whole
    assert f"together {whole:,} bytes" in done and f"matrices: {in_matrices:,} numbers in 3 bits" in done
    assert f"1/{32 / (3 + 3):.2f} of float32" in done  # a scale of 32 bits for each of 3 x 32 signs
    smaller, _ = coded(source, checkpoint.path.parents[2] / "small", bits=3, group_size=32, dtype="bfloat16")
    assert smaller.model_path.stat().st_size < size - 2 * rest + 200


def test_a_tenth_is_three_bits_of_the_whole_network_size():
    """KoGPT-2: with a row's scales, 3 bits take less than a tenth of float32 and 4 bits do not."""
    model, codes = ModelRecipe(), {}
    for bits, ratio in ((3, 10.34), (4, 7.76)):
        for each in parameters_of(model):
            if each.transposed:
                rows, columns = each.shape
                planes = np.broadcast_to(np.uint8(0), (bits, rows, columns // 8))
                codes[each.name] = PackedCodes(np.broadcast_to(np.float32(1), (bits, rows, 1)), planes, columns)
        size = size_of(model, codes, "float32")
        assert size.matrices == 84_934_656 and size.matrices + size.rest == 124_242_432
        assert size.first_scales == 12 * (2304 + 768 + 3072 + 768) and size.all_scales == bits * size.first_scales
        assert 4 * size.matrices / (size.bits_bytes + size.scales_bytes) == pytest.approx(ratio, abs=0.005)


def test_the_codes_are_those_of_the_matrices(source, in_codes):
    checkpoint, _ = in_codes
    codes, theirs, ours = codes_of(checkpoint), source.model_arrays(), checkpoint.model_arrays()
    for name in theirs:
        if name.endswith(MATRICES):
            expected = PackedCodes.of(quantise(theirs[name], 3, 32))
            assert np.array_equal(codes[name].planes, expected.planes)
            assert np.array_equal(ours[name], expected.matrix())
        else:
            assert np.array_equal(ours[name], theirs[name])
    assert len(codes) == 12 and checkpoint.state()["step"] == source.state()["step"]


def test_the_body_of_a_tuned_network_has_the_bits_that_were_asked_for(source, tmp_path):
    recipe = replace(source.recipe(), adaptation=AdaptationRecipe("prompt", prompt_length=3))
    recipe.training.init_from = str(source.path)
    arrays = {**source.model_arrays(), PROMPT: np.zeros((3, recipe.model.units), "f")}
    tokenizer = stored_tokenizer(source.tokenizer_path)
    tuned = open_checkpoint(save_checkpoint(tmp_path / "tuned", source.state(), arrays, {}, recipe, tokenizer))
    checkpoint, done = coded(tuned, tmp_path / "out", part="body", bits=2, group_size=32)
    assert done.endswith("; the prompt is left out") and PROMPT not in checkpoint.model_arrays()
    assert {each.scales.shape for each in codes_of(checkpoint).values()} == {
        (2, rows, columns // 32) for rows, columns in ((288, 96), (96, 96), (384, 96), (96, 384))
    }


def test_everything_that_loads_it_gets_the_restored_numbers(source, in_codes, tmp_path):
    checkpoint, _ = in_codes
    net, *_ = load_checkpoint(checkpoint.path, "cpu", ops="stock")
    arrays = checkpoint.model_arrays()
    for name, parameter in structural_parameters(net).items():
        assert np.array_equal(parameter.data().asnumpy(), arrays[name]), name
    again, _ = open_source(checkpoint.path)
    convert_to("huggingface", again, tmp_path / "hf")
    back, _ = open_source(tmp_path / "hf")
    for name in arrays:
        assert np.array_equal(back.model_arrays()[name], arrays[name]), name
    twice, _ = coded(again, tmp_path / "twice")
    assert twice.model_path.read_bytes() == checkpoint.model_path.read_bytes()


def verb(*arguments):
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_the_verbs(source, tmp_path, transformers):
    done = verb("convert", source.path, tmp_path / "run", "--to", "codes", "--bits", 4, "--verify")
    assert done.exit_code == 0 and "greedy tokens are the same" in done.output
    exact = verb("convert", tmp_path / "run", tmp_path / "hf", "--verify")
    assert exact.exit_code == 0, exact.exception
    refused = verb("convert", tmp_path / "run", tmp_path / "other", "--to", "codes", "--bits", 3)
    assert "is quantised already" in str(refused.exception)
    with_optimizer = verb("convert", source.path, tmp_path / "other", "--to", "codes", "--with-optimizer")
    assert "--with-optimizer is for --to huggingface and checkpoint, not for codes" in str(with_optimizer.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group_size": 36}, "--group-size 36 does not divide 96"),
        ({"dtype": "float16"}, "--dtype float16: with --to codes it is float32 or bfloat16"),
        ({"bos": True}, "--bos is for"),
        ({"max_shard_size": 1}, "--max-shard-size is for"),
    ],
)
def test_options_that_do_not_fit(source, tmp_path, options, words):
    with pytest.raises(RecipeError, match=words):
        coded(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="--bits is for --to codes, not for onnx"):
        convert_to("onnx", source, tmp_path / "out", bits=2)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["_ffn_layers.1._out_map.weight", "_self_attention_layers.2._out_proj.weight"])
def test_a_matrix_that_diverged_is_refused_by_its_name(tmp_path, small_tokenizer, name, number):
    """Its scales would be no numbers, and a checkpoint with those is refused when it is read."""
    diverged = make_checkpoint(
        tmp_path / "source", small_tokenizer, lambda arrays: arrays[name].__setitem__((3, 5), number)
    )
    refused = verb("convert", diverged.path, tmp_path / "out", "--to", "codes")
    assert isinstance(refused.exception, DataError)
    size = diverged.model_arrays()[name].size
    words = f"{name}: 1 of its {size:,} numbers are NaN or infinite, so it cannot be quantised"
    assert str(refused.exception).endswith(f"{words}; take an earlier checkpoint")
    assert not (tmp_path / "out").exists()


def test_other_codes_of_a_quantised_one_are_refused(in_codes, tmp_path):
    checkpoint, _ = in_codes
    for options in ({"bits": 2}, {"group_size": 0}, {"bits": 3, "group_size": 16}):
        with pytest.raises(RecipeError, match=r"is quantised already, .* in 3 bits with groups of 32 columns"):
            coded(checkpoint, tmp_path / "out", **options)
    same, _ = coded(checkpoint, tmp_path / "out", bits=3, group_size=32)
    assert same.model_path.read_bytes() == checkpoint.model_path.read_bytes()


def test_damage_is_found(in_codes, tmp_path):
    checkpoint, _ = in_codes
    folder = tmp_path / checkpoint.path.name
    shutil.copytree(checkpoint.path, folder)
    flip(folder / "model.codes", folder.joinpath("model.codes").stat().st_size - 100)
    for use in (lambda: load_checkpoint(folder, "cpu", ops="stock"), lambda: codes_of(open_checkpoint(folder))):
        with pytest.raises(DamagedError, match=r"model\.codes: missing, truncated or damaged"):
            use()


def test_a_hostile_file_with_the_right_hashes_is_refused(in_codes, tmp_path):
    """Whoever writes the file can write its manifest as well."""
    import xxhash

    checkpoint, _ = in_codes
    folder = tmp_path / checkpoint.path.name
    shutil.copytree(checkpoint.path, folder)
    model = folder / "model.codes"
    model.write_bytes(
        model.read_bytes().replace(
            b'\\"_ffn_layers.0._hidden_map.weight\\": 96', b'\\"_ffn_layers.0._hidden_map.weight\\": 95'
        )
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.codes"]["xxh3_128"] = [xxhash.xxh3_128_hexdigest(model.read_bytes())]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"_ffn_layers\.0\._hidden_map\.weight with 95 columns has no codes that fit"):
        load_checkpoint(folder, "cpu", ops="stock")
