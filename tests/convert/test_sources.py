"""Weights from anything to anything: files of KoGPT2 v1 and transformers' folders, in and out again."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.convert.source import network_fingerprint, open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.storage.params_file import read_params, write_params
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile
from tests.convert.convert_helpers import ORIGINAL
from tests.helpers import kogpt2
from tests.lazy_modules import needed
from tests.shards.shard_helpers import flip

torch = needed("torch", reason="makes and runs the networks on the other side")
HEADS = 6


@pytest.fixture
def original(tmp_path, small_tokenizer) -> Path:
    """KoGPT2 v1's two files, made by its own definition."""
    shutil.copy(ORIGINAL / "tiny.params", tmp_path / "tiny.params")
    (tmp_path / "tiny.spiece").write_bytes(small_tokenizer)
    return tmp_path / "tiny.params"


def convert(source: Path, out: Path, target: str, num_heads: int = 0, **options) -> Path:
    opened, _ = open_source(source, num_heads=num_heads)
    convert_to(target, opened, out, **options)
    return out


def same_arrays(one: Path, other: Path) -> bool:
    mine, theirs = (open_source(path, num_heads=HEADS * path.is_file())[0].model_arrays() for path in (one, other))
    return mine.keys() == theirs.keys() and all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)


# ---- files of KoGPT2 v1 ----------------------------------------------------------------------------------------------


def test_v1_gives_the_logits_of_its_own_definition(original, tmp_path, transformers):
    """In MXNet and in transformers."""
    from kogpt2_gluon.inference.loading import load_checkpoint
    from kogpt2_gluon.machine.runtime import mx

    reference = np.load(ORIGINAL / "tiny.npz")
    expected, tokens = reference["logits"], reference["tokens"][:, :-1]
    net, *_ = load_checkpoint(convert(original, tmp_path / "run", "checkpoint", HEADS), "cpu", ops="stock")
    assert np.abs(net(mx.nd.array(tokens, dtype="int32"))[0].asnumpy() - expected).max() <= 1e-5
    there = transformers.GPT2LMHeadModel.from_pretrained(convert(original, tmp_path / "hf", "huggingface", HEADS))
    with torch.no_grad():
        logits = there.eval()(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    assert np.abs(logits - expected).max() <= 1e-5


def test_every_round_trip_is_bit_identical(original, tmp_path):
    """v1 -> checkpoint -> huggingface -> checkpoint -> v1: weights and tokenizer come back as they were."""
    run = convert(original, tmp_path / "run", "checkpoint", HEADS)
    there = convert(run, tmp_path / "hf", "huggingface")
    back = convert(there, tmp_path / "back", "checkpoint")
    again = convert(back, tmp_path / "again", "original")
    assert all(same_arrays(original, each) for each in (run, there, back, again / "model.params"))
    assert (again / "tokenizer.spiece").read_bytes() == (original.parent / "tiny.spiece").read_bytes()
    assert open_checkpoint(back).recipe().model == open_checkpoint(run).recipe().model
    assert convert(there, tmp_path / "hf2", "huggingface").is_dir()
    for name in ("model.safetensors", "tokenizer.json", "config.json", "spiece.model"):
        assert (tmp_path / "hf2" / name).read_bytes() == (there / name).read_bytes(), name


def test_heads_are_asked_for_where_they_cannot_be_known(original, tmp_path):
    with pytest.raises(RecipeError, match=r"tiny\.params: units=96 are no multiple of 64, so --num-heads"):
        open_source(original)
    wide = {name: np.zeros((9, 128), np.float32) for name in ("_embed.weight", "_pos_embed.weight")}
    write_params(tmp_path / "wide.params", {**wide, "_logits_proj.weight": wide["_embed.weight"]})
    with pytest.raises(DataError, match=r"wide\.params: has no _attn_ln\.0\.gamma"):
        open_source(tmp_path / "wide.params")


def test_a_tokenizer_is_asked_for_unless_one_lies_beside(original, tmp_path):
    (tmp_path / "other.spiece").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"--tokenizer \(next to it: other\.spiece, tiny\.spiece\)"):
        open_source(original, num_heads=HEADS)
    source, _ = open_source(original, tmp_path / "tiny.spiece", HEADS)
    assert source.tokenizer_path.name == "tiny.spiece"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("_ffn_ln.1.beta"), r"_ffn_ln\.1\.beta is missing"),
        (lambda arrays: arrays.pop("_embed.weight"), r"has no matrix _embed\.weight, so it is not a KoGPT2 v1"),
        (lambda arrays: arrays.update(more=np.ones(3)), "more is not a parameter of the network"),
        (lambda arrays: arrays.update({"_logits_proj.weight": np.ones((501, 96), np.float32)}), "differ; they are one"),
    ],
)
def test_a_v1_file_that_is_another_network_is_refused_by_name(original, change, message):
    arrays = read_params(original)
    change(arrays)
    write_params(original, arrays)
    with pytest.raises(DataError, match=message):
        open_source(original, num_heads=HEADS)


def test_the_states_of_a_trainer_are_a_pickle_and_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "trap",)

    for number, content in enumerate(
        (pickle.dumps(Trap()), pickle.dumps({0: Trap()}, 0))
    ):  # what Trainer.save_states writes
        path = tmp_path / f"{number}.states"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{number}\.states: not a \.params file of MXNet"):
            open_source(path)
    assert not (tmp_path / "trap").exists()


def test_pytorchs_own_file_says_where_it_belongs(tmp_path):
    torch.save({"wte.weight": torch.ones(3, 3)}, tmp_path / "pytorch.params")
    with pytest.raises(DataError, match=r"not a \.params file of MXNet; PyTorch's weights go into a folder"):
        open_source(tmp_path / "pytorch.params")


# ---- transformers' folders -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(transformers, tmp_path_factory, small_tokenizer):
    """A random GPT-2 as transformers saves it, with the erf GELU and a tokenizer.json alone."""
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=501, n_positions=64, n_embd=96, n_layer=3, n_head=6, activation_function="gelu", bos_token_id=1
    )
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "spiece.model").write_bytes(small_tokenizer)
    net = transformers.GPT2LMHeadModel(config).eval()
    net.save_pretrained(folder)
    return net, folder


def test_a_random_gpt2_comes_in_and_goes_out(theirs, tmp_path, transformers):
    net, folder = theirs
    run = convert(folder, tmp_path / "run", "checkpoint")
    out = convert(run, tmp_path / "out", "huggingface")
    back = transformers.GPT2LMHeadModel.from_pretrained(out)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name
    assert "Weights that were taken over" in (out / "README.md").read_text()


@pytest.mark.parametrize("form", ["gelu_new", "gelu_pytorch_tanh"])
def test_gpt2s_own_gelu_is_kept(theirs, tmp_path, transformers, form):
    """The tanh form, as OpenAI's GPT-2 and skt/kogpt2-base-v2 have it: the same logits here as there."""
    from kogpt2_gluon.inference.loading import load_checkpoint
    from kogpt2_gluon.machine.runtime import mx

    copy = Path(shutil.copytree(theirs[1], tmp_path / "copy"))
    config = {**json.loads((copy / "config.json").read_text()), "activation_function": form}
    (copy / "config.json").write_text(json.dumps(config))
    tokens = np.random.default_rng(0).integers(0, 501, (2, 60))
    with torch.no_grad():
        expected = transformers.GPT2LMHeadModel.from_pretrained(copy).eval()(torch.from_numpy(tokens)).logits.numpy()
    run = convert(copy, tmp_path / "run", "checkpoint")
    for ops in ("stock", "auto"):
        net, *_ = load_checkpoint(run, "cpu", ops=ops)
        assert np.abs(net(mx.nd.array(tokens, dtype="int32"))[0].asnumpy() - expected).max() < 1e-5
    out = convert(run, tmp_path / "out", "huggingface")
    assert json.loads((out / "config.json").read_text())["activation_function"] == "gelu_new"
    with pytest.raises(RecipeError, match="KoGPT2 v1 has the erf form of GELU"):
        convert(run, tmp_path / "v1", "original")


def save_as(net, folder, how):
    """The forms in which people have such weights."""
    tensors = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    if how == "sharded safetensors":
        net.save_pretrained(folder, max_shard_size="200KB")
        assert len(list(folder.glob("*.safetensors"))) > 3
        return
    (folder / "model.safetensors").unlink()
    if how == "no prefix":
        tensors = {name.replace("transformer.", ""): each for name, each in tensors.items() if "lm_head" not in name}
    if how == "masks":
        for layer in range(3):
            mask = torch.tril(torch.ones(64, 64, dtype=torch.uint8)).view(1, 1, 64, 64)
            tensors[f"transformer.h.{layer}.attn.bias"] = mask
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if how == "another head":
        tensors["score.weight"] = torch.ones(2, 96)
    if how == "no lm_head":
        del tensors["lm_head.weight"]
    if how == "sharded bin":
        names = sorted(tensors)
        parts = {"a.bin": names[:9], "b.bin": names[9:]}
        for file, part in parts.items():
            torch.save({name: tensors[name] for name in part}, folder / file)
        places = {name: file for file, part in parts.items() for name in part}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
        return
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=how != "old bin")


FORMS = [
    *("sharded safetensors", "bin", "old bin", "sharded bin", "no prefix", "masks", "another head", "no lm_head"),
]


@pytest.mark.parametrize("how", FORMS)
def test_every_form_of_weights_is_the_same_network(theirs, tmp_path, how):
    net, folder = theirs
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    save_as(net, copy, how)
    if how == "sharded safetensors":
        (copy / "model.safetensors").unlink(missing_ok=True)
    source, notes = open_source(copy)
    expected = open_source(folder)[0].model_arrays()
    assert all(source.model_arrays()[name].tobytes() == expected[name].tobytes() for name in expected)
    assert bool(notes) == (how == "another head") and all("score.weight left out" in note for note in notes)


def test_a_network_is_known_by_all_of_its_files(theirs, tmp_path):
    """The last of several counts too; a network in one file has the hash of that."""
    net, folder = theirs
    whole = xxhash.xxh3_128_hexdigest((folder / "model.safetensors").read_bytes())
    assert network_fingerprint(str(folder)) == whole
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    save_as(net, copy, "sharded safetensors")
    (copy / "model.safetensors").unlink(missing_ok=True)
    found = {network_fingerprint(str(copy))}
    for path in sorted(copy.glob("*.safetensors")):
        flip(path, path.stat().st_size - 1)
        found.add(network_fingerprint(str(copy)))
    assert len(found) == 1 + len(list(copy.glob("*.safetensors"))) > 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_comes_in_exactly(theirs, tmp_path, dtype):
    net, folder = theirs
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    rounded = {name: tensor.to(getattr(torch, dtype)) for name, tensor in net.state_dict().items()}
    (copy / "model.safetensors").unlink()
    torch.save(rounded, copy / "pytorch_model.bin")
    arrays = open_source(copy)[0].model_arrays()
    assert np.array_equal(arrays["_embed.weight"], rounded["transformer.wte.weight"].float().numpy())
    turned = rounded["transformer.h.1.mlp.c_fc.weight"].float().numpy().T
    assert np.array_equal(arrays["_ffn_layers.1._hidden_map.weight"], turned)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt_neo"}, "model_type is 'gpt_neo'; only gpt2"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"n_inner": 100}, "n_inner is 100"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"n_layer": 2}, r"transformer\.h\.2\..* is not in the network of config\.json"),
        ({"n_layer": 4}, r"transformer\.h\.3\..* is missing"),
        ({"n_positions": "64"}, "n_positions is '64', not a number"),
        ({"n_head": 7}, "num_heads"),
    ],
)
def test_another_network_is_refused_by_name(theirs, tmp_path, change, message):
    copy = Path(shutil.copytree(theirs[1], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises((RecipeError, DataError), match=message):
        open_source(copy)


def test_an_untied_head_is_refused(theirs, tmp_path):
    copy = Path(shutil.copytree(theirs[1], tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    torch.save({**theirs[0].state_dict(), "lm_head.weight": torch.ones(501, 96)}, copy / "pytorch_model.bin")
    with pytest.raises(RecipeError, match=r"lm_head\.weight differs from transformer\.wte\.weight"):
        open_source(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "spiece.model"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", bytes(200), b"\xff" * 200])
def test_damaged_files_are_one_line(theirs, tmp_path, name, content):
    copy = Path(shutil.copytree(theirs[1], tmp_path / "copy"))
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        convert(copy, tmp_path / "out", "huggingface")
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value) and not (tmp_path / "out").exists()


# ---- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounded_weights_are_those_that_torch_rounds(checkpoint, tmp_path, transformers, dtype):
    exact = transformers.GPT2LMHeadModel.from_pretrained(convert(checkpoint.path, tmp_path / "exact", "huggingface"))
    out = convert(checkpoint.path, tmp_path / "out", "huggingface", dtype=dtype)
    rounded = transformers.GPT2LMHeadModel.from_pretrained(out)
    assert rounded.dtype == getattr(torch, dtype)
    for name, tensor in exact.state_dict().items():
        assert torch.equal(tensor.to(rounded.dtype), rounded.state_dict()[name]), name
    assert f"rounded to {dtype}" in (out / "README.md").read_text()


def test_what_float16_cannot_hold_is_refused(theirs, tmp_path):
    copy = Path(shutil.copytree(theirs[1], tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    large = {**theirs[0].state_dict(), "transformer.ln_f.bias": torch.full((96,), 7e4)}
    torch.save(large, copy / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"transformer\.ln_f\.bias: has a number beyond float16's 65504"):
        convert(copy, tmp_path / "out", "huggingface", dtype="float16")
    convert(copy, tmp_path / "out", "huggingface", dtype="bfloat16")


def test_files_of_a_size(checkpoint, tmp_path, transformers):
    whole = convert(checkpoint.path, tmp_path / "whole", "huggingface")
    convert_to("huggingface", checkpoint, tmp_path / "parts", max_shard_size=1)  # MB, of 1.56
    names = sorted(path.name for path in (tmp_path / "parts").glob("*.safetensors*"))
    assert names[1:] == ["model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert all((tmp_path / "parts" / name).stat().st_size < 1_000_000 + 9000 for name in names)
    one, other = (transformers.GPT2LMHeadModel.from_pretrained(each) for each in (whole, tmp_path / "parts"))
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert SafetensorsFile(whole / "model.safetensors").metadata == {"format": "pt"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "original", "--dtype", "float16"), "is for --to huggingface, gguf and codes, not for original"),
        (("--to", "checkpoint", "--max-shard-size", "5"), "is for --to huggingface, not for checkpoint"),
        (("--to", "original", "--with-optimizer"), "is for --to huggingface and checkpoint, not for original"),
        (("--to", "checkpoint", "--with-optimizer"), "there is no state of an optimizer"),
        (("--num-heads", "4"), "are for a file of parameters"),
    ],
)
def test_options_that_do_not_belong_are_refused(checkpoint, tmp_path, arguments, message):
    error = kogpt2("convert", checkpoint.path, tmp_path / "out", *arguments, code=2).stderr
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


# ---- verified --------------------------------------------------------------------------------------------------------


def test_both_forms_are_run_and_compared(checkpoint, theirs, tmp_path):
    for source, target, options in (
        (checkpoint.path, "huggingface", ("--dtype", "bfloat16")),
        (theirs[1], "checkpoint", ()),
        (checkpoint.path, "original", ()),
        (checkpoint.path, "onnx", ()),
    ):
        out = tmp_path / f"{target}{len(options)}"
        done = CliRunner().invoke(cli, ["convert", str(source), str(out), "--to", target, "--verify", *options])
        text = done.stdout
        assert re.search(r"verified: \d+ tokens: logits differ by at most \S+ \(of \S+\); \d+ of 63 greedy", text), done
        assert options or "63 of 63 greedy" in text


def test_a_difference_is_an_error(checkpoint, tmp_path):
    from kogpt2_gluon.inference.comparison import compare_conversion

    out = convert(checkpoint.path, tmp_path / "out", "huggingface")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "n_head": 3}))
    with pytest.raises(DataError, match=r"does not compute what .* does"):
        compare_conversion(checkpoint, out, "huggingface", exact=True)
