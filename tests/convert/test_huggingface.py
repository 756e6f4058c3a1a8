"""A checkpoint as a Hugging Face folder: the network, its model card, and a folder that is whole or not there."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from kogpt2_gluon.convert import huggingface
from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.convert.names import from_transformers, parameters_of, to_transformers
from kogpt2_gluon.errors import DataError, DiskFullError, RecipeError
from kogpt2_gluon.runs.checkpoint import Checkpoint
from tests.convert.convert_helpers import ORIGINAL, make_checkpoint
from tests.helpers import ROOT
from tests.shards.shard_helpers import flip
from tests.storage.crash_helpers import FILE_OPERATIONS, Crash, PowerCut, count_operations, without_clean_up

# --- the network


def test_logits_are_those_of_the_original_network(checkpoint, tmp_path, transformers):
    torch = pytest.importorskip("torch", reason="runs the converted network")
    convert_checkpoint(checkpoint, tmp_path / "out")
    net, loading = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    assert net.dtype == torch.float32
    reference = np.load(ORIGINAL / "tiny.npz")
    with torch.no_grad():
        logits = net.eval()(torch.tensor(reference["tokens"][:, :-1], dtype=torch.long)).logits.numpy()
    assert np.abs(logits - reference["logits"]).max() <= 1e-5 * np.abs(reference["logits"]).max()


def test_configuration(checkpoint, tmp_path, transformers):
    convert_checkpoint(checkpoint, tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.n_embd, config.n_layer, config.n_head, config.n_positions, config.vocab_size) == (96, 3, 6, 64, 501)
    assert (config.activation_function, config.layer_norm_epsilon, config.resid_pdrop) == ("gelu", 1e-5, 0.1)
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    for ids in (config, generation):
        assert (ids.bos_token_id, ids.eos_token_id, ids.pad_token_id) == (1, 2, 3)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 64


def test_model_card_says_what_it_is(checkpoint, small_tokenizer, tmp_path):
    convert_checkpoint(checkpoint, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for fact in (
        "389,952 parameters",
        "Recipe `tiny`, step 1,200: 307,200 tokens",
        "| bits per byte | 1.53 |",
        "`</s>` 2",
    ):
        assert fact in card
    convert_checkpoint(make_checkpoint(tmp_path / "other", small_tokenizer, state={"step": 7}), tmp_path / "plain")
    assert "Held-out" not in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")


def drop(name):
    return lambda arrays: arrays.pop(name)


def put(name, array):
    return lambda arrays: arrays.update({name: array})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("_ffn_ln.1.beta"), r"_ffn_ln\.1\.beta is missing; the recipe has 3 layers"),
        (put("_attn_ln.3.beta", np.ones(96, np.float32)), r"_attn_ln\.3\.beta is not a parameter of the network"),
        (
            put("_attn_ln.0.beta", np.ones(95, np.float32)),
            r"_attn_ln\.0\.beta has shape \(95,\), but the recipe .* \(96,\)",
        ),
        (put("_attn_ln.0.beta", np.ones(96, np.float64)), r"_attn_ln\.0\.beta is float64; only float32"),
        (put("_embed.weight", np.ones((501, 96), np.float32)), r"_embed\.weight and _logits_proj\.weight differ"),
    ],
)
def test_parameters_that_cannot_be_converted_are_named(change, message, small_tokenizer, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "changed", small_tokenizer, change)
    with pytest.raises(DataError, match=message) as caught:
        convert_checkpoint(checkpoint, tmp_path / "out")
    assert "model.params: " in str(caught.value) and "\n" not in str(caught.value)


def test_names_and_numbers_come_back(checkpoint):
    """The table of names serves both ways, bit for bit; what transformers calls them is in the test of the logits."""
    arrays, model = checkpoint.model_arrays(), checkpoint.recipe().model
    there = to_transformers(arrays, model, "a")
    assert len({each.in_transformers for each in parameters_of(model)}) == len(there) == len(arrays) - 1
    back = from_transformers(there, model, "b")
    assert back.keys() == arrays.keys()
    assert all(back[name].tobytes() == arrays[name].tobytes() for name in arrays)
    turned = [each.name for each in parameters_of(model) if each.transposed]
    assert len(turned) == 4 * model.num_layers and not any(name.endswith("bias") for name in turned)
    with pytest.raises(DataError, match=r"b: transformer\.wte\.weight is missing"):
        from_transformers({name: there[name] for name in there if "wte" not in name}, model, "b")


def test_a_recipe_of_another_size_is_refused(tmp_path, small_tokenizer):
    for sizes, message in (
        ({"num_layers": 2}, r"is not a parameter of the network \(and 11 more\); the recipe has 2 layers"),
        ({"max_length": 128}, r"_pos_embed\.weight has shape \(64, 96\), but the recipe makes it \(128, 96\)"),
        ({"vocab_size": 100}, r"it has \d+ pieces, more than model\.vocab_size=100"),
    ):
        checkpoint = make_checkpoint(tmp_path / "other", small_tokenizer, **sizes)
        with pytest.raises(DataError, match=message):
            convert_checkpoint(checkpoint, tmp_path / "out")


# --- the folder


def test_the_folder_appears_whole_or_not_at_all(checkpoint, tmp_path, monkeypatch):
    before = sorted(path.name for path in tmp_path.iterdir())

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for name in ("_model_card", "write_safetensors"):
        with monkeypatch.context() as patch:
            patch.setattr(huggingface, name, full_disk)
            with pytest.raises(DiskFullError, match=r"/out: the disk is full \(.*\); the converted model needs \d"):
                convert_checkpoint(checkpoint, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "out").mkdir()  # an empty folder may be there
    convert_checkpoint(checkpoint, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    convert_checkpoint(checkpoint, tmp_path / "new" / "folder" / "out")


def test_occupied_places_are_refused(checkpoint, tmp_path):
    with pytest.raises(RecipeError, match="xx: cannot be written: File name too long"):
        convert_checkpoint(checkpoint, tmp_path / ("x" * 300))
    with pytest.raises(RecipeError, match="the folder is not empty"):
        convert_checkpoint(checkpoint, checkpoint.path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecipeError, match="file: it is a file"):
        convert_checkpoint(checkpoint, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path):
    flip(checkpoint.model_path, 1000)
    with pytest.raises(DataError, match=r"model\.params: missing, truncated or damaged"):
        convert_checkpoint(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("error", "raised"), [(OSError, RecipeError), (PowerCut, PowerCut)])
def test_a_conversion_that_fails_anywhere_leaves_a_whole_folder_or_none(
    checkpoint, tmp_path, monkeypatch, after, error, raised
):
    """Every call that touches the disk fails in turn; after a power cut nothing is tidied up either."""
    operations = [*FILE_OPERATIONS, (huggingface, "write_safetensors")]
    arrays = dict(checkpoint.model_arrays())  # in memory: of all reads, only those before the first write come here
    monkeypatch.setattr(Checkpoint, "model_arrays", lambda self: arrays)
    reads = count_operations(lambda: (checkpoint.verify(), checkpoint.recipe(), checkpoint.state()), operations)
    reads += 2  # the tokenizer: what kind it is, and all of it
    calls = count_operations(lambda: convert_checkpoint(checkpoint, tmp_path / "whole"), operations)
    assert calls >= reads + 20
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    for at in range(reads + 1, calls + 1):
        out = tmp_path / f"at{at}" / "out"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(raised):
            if error is PowerCut:
                without_clean_up(patch)
            Crash(patch, at, after, error, operations)
            convert_checkpoint(checkpoint, out)
        if out.exists():
            assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
        elif error is OSError and out.parent.exists():
            assert not list(out.parent.iterdir())


def test_needs_neither_mxnet_nor_torch_nor_transformers(checkpoint, tmp_path):
    code = """
import sys
from pathlib import Path
for name in ("mxnet", "torch", "transformers", "gluonnlp", "horovod"):
    sys.modules[name] = None  # importing it now fails
from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.runs.checkpoint import open_checkpoint
convert_checkpoint(open_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", code, str(checkpoint.path), str(tmp_path / "out")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 4 * 389_952
