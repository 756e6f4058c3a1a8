"""A checkpoint as graphs for onnxruntime: the numbers of MXNet and transformers, with a cache and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kogpt2_gluon.convert.names import parameters_of
from kogpt2_gluon.convert.onnx_folder import write_onnx
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import EMBEDDING, TIED_COPY, Checkpoint
from tests.convert.convert_helpers import make_checkpoint
from tests.convert.onnx_helpers import NAMES, assert_close, empty_past, logits_of, random_ids, session, step
from tests.lazy_modules import needed

onnx = needed("onnx", reason="makes the graphs")


def gluon_network(checkpoint: Checkpoint) -> Any:
    from kogpt2_gluon.machine.runtime import mx
    from kogpt2_gluon.model.gpt2 import build_model, load_arrays

    net = build_model(checkpoint.recipe().model)
    net.initialize()
    load_arrays(net, checkpoint.model_arrays(), "checkpoint")
    return lambda ids: net(mx.nd.array(ids, dtype="int32"))[0].asnumpy()


# --- the numbers


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_mxnet(source, onnx_folder, name):
    gluon, net = gluon_network(source), session(onnx_folder / name)
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
def test_a_cache_changes_nothing_however_the_input_is_cut(onnx_folder, level):
    ids = random_ids(3, 40)
    whole = logits_of(session(onnx_folder / "logits.onnx", level), ids)
    net = session(onnx_folder / "model.onnx", level)
    for cuts in ([40], [1, *range(2, 41)], [7, 8, 21, 40]):
        past, pieces, begin = empty_past(net, 3), [], 0
        for end in cuts:
            logits, past = step(net, ids[:, begin:end], np.ones((3, end), np.int64), past)
            pieces.append(logits)
            begin = end
        assert_close(np.concatenate(pieces, axis=1), whole)
        assert {each.shape for each in past.values()} == {(3, 6, 40, 16)}


def test_padding_changes_nothing(onnx_folder, torch_folder, transformers):
    """On the left, on the right and in the middle, against transformers with the positions that its generate makes."""
    torch = pytest.importorskip("torch", reason="runs the converted network")
    net, theirs = session(onnx_folder / "model.onnx"), transformers.GPT2LMHeadModel.from_pretrained(torch_folder).eval()
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


def test_greedy_ids_are_those_of_recomputation_and_of_transformers(onnx_folder, torch_folder, transformers):
    torch = pytest.importorskip("torch", reason="runs the converted network")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(torch_folder).eval()
    cached, plain = (session(onnx_folder / name) for name in ("model.onnx", "logits.onnx"))
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
def test_wrong_inputs_are_errors(onnx_folder, level):
    plain, cached = (session(onnx_folder / name, level) for name in NAMES)
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
