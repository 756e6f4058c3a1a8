"""The network against the original's own output, and against itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.estimate import count_parameters
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model, build_model, load_arrays, named_parameters, structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.storage.params_file import read_params, write_params

ORIGINAL = Path(__file__).parents[1] / "storage" / "original"
SIZES = {"units": 96, "vocab_size": 501, "max_length": 64, "num_layers": 3, "num_heads": 6}


@pytest.fixture
def original():
    """Arrays written by the original KoGPT2 v1 definition (see tests/storage/original/README.md)."""
    return np.load(ORIGINAL / "tiny.npz")


@pytest.fixture
def net():
    net = GPT2Model(**SIZES)
    net.load_parameters(str(ORIGINAL / "tiny.params"))
    return net


def relative(ours, theirs) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("hybridize", [False, True])
def test_original_logits_loss_and_gradients(net, original, hybridize):
    tokens = mx.nd.array(original["tokens"], dtype="int32")
    loss_block = LanguageModelLoss(net)
    if hybridize:
        loss_block.hybridize(static_alloc=True, static_shape=True)
    with mx.autograd.record():
        loss = loss_block(tokens).mean()
    loss.backward()
    assert abs(loss.asscalar() - original["loss"]) < 1e-5
    parameters = structural_parameters(net)
    gradients = [name for name in original.files if name.startswith("grad:")]
    assert {"grad:" + name for name in parameters} <= set(gradients)
    for name in gradients:  # the original lists the tied matrix under both of its names
        ours = named_parameters(net)[name[len("grad:") :]].grad().asnumpy()
        assert relative(ours, original[name]) < 1e-5, name
    logits, _ = net.for_decoding()(tokens[:, :-1])
    assert relative(logits.asnumpy(), original["logits"]) < 1e-5


def test_original_cached_states(net, original):
    tokens = mx.nd.array(original["tokens"], dtype="int32")[:, :-1]
    _, states = net(tokens[:, :28])
    steps = []
    for position in range(28, 33):
        logits, states = net(tokens[:, position : position + 1], states)
        steps.append(logits.asnumpy())
    assert relative(np.concatenate(steps, axis=1), original["cached_logits"]) < 1e-5
    assert len(states) == 2 * SIZES["num_layers"]
    for index, state in enumerate(states):
        assert relative(state.asnumpy(), original[f"state:{index}"]) < 1e-5


def test_cached_chunks_of_any_length_equal_one_pass(net, original):
    tokens = mx.nd.array(original["tokens"], dtype="int32")
    whole, _ = net(tokens)
    parts, states = [], None
    for start, stop in ((0, 1), (1, 9), (9, 10), (10, 34)):
        logits, states = net(tokens[:, start:stop], states)
        parts.append(logits.asnumpy())
    assert relative(np.concatenate(parts, axis=1), whole.asnumpy()) < 1e-5


def test_later_tokens_do_not_reach_back(net):
    tokens = mx.nd.array(np.arange(20).reshape(1, 20), dtype="int32")
    changed = tokens.copy()
    changed[:, 12:] = 7
    before, after = net(tokens)[0].asnumpy(), net(changed)[0].asnumpy()
    np.testing.assert_array_equal(before[:, :12], after[:, :12])
    assert np.abs(before[:, 12:] - after[:, 12:]).max() > 1e-3


def test_names_are_those_of_the_released_weights(net):
    assert set(named_parameters(net)) == set(read_params(ORIGINAL / "tiny.params"))
    assert next(iter(net.collect_params("final_ln|.*final_ln"))).endswith("final_ln2_gamma")


def test_dropout_acts_in_training_only():
    net = GPT2Model(**SIZES, dropout=0.5)
    net.initialize()
    tokens = mx.nd.array(np.arange(12).reshape(1, 12), dtype="int32")
    assert (net(tokens)[0] == net(tokens)[0]).asnumpy().all()
    with mx.autograd.record():
        first, second = net(tokens)[0], net(tokens)[0]
    assert np.abs((first - second).asnumpy()).max() > 1e-3


def test_initial_weights_follow_the_original():
    net = build_model(ModelRecipe(units=64, num_layers=2, num_heads=2, max_length=128, vocab_size=4000))
    net.initialize()
    for name, parameter in structural_parameters(net).items():
        array = parameter.data().asnumpy()
        if name.endswith(("bias", "beta")):
            assert not array.any()
        elif name.endswith("gamma"):
            assert (array == 1).all()
        else:
            deviation = 0.01 if name == "_pos_embed.weight" else 0.02
            assert abs(array.std() / deviation - 1) < 0.05, name
            assert abs(array.mean()) < deviation / 10, name


@pytest.mark.parametrize("name, parameters", [("kogpt2_base", 124_242_432), ("kogpt2_medium", None), ("demo", None)])
def test_counted_parameters_are_the_networks(name, parameters):
    model = load_recipe(name).model
    if parameters:
        assert count_parameters(model) == parameters
    small = ModelRecipe(**{**vars(model), "num_layers": 2, "vocab_size": 100})
    net = build_model(small)
    assert count_parameters(small) == sum(int(np.prod(p.shape)) for p in structural_parameters(net).values())


def test_foreign_arrays_are_refused_by_name(net, tmp_path):
    arrays = read_params(ORIGINAL / "tiny.params")
    wrong = dict(arrays)
    wrong["_final_ln.gamma"] = np.ones(95, np.float32)
    with pytest.raises(DataError, match=r"_final_ln\.gamma has shape \(95,\)"):
        load_arrays(net, wrong, "file")
    missing = {name: array for name, array in arrays.items() if name != "_ffn_ln.1.beta"}
    with pytest.raises(DataError, match=r"_ffn_ln\.1\.beta is in the model only"):
        load_arrays(net, missing, "file")
    write_params(tmp_path / "copy.params", arrays)
    twin = GPT2Model(**SIZES)
    twin.load_parameters(str(tmp_path / "copy.params"))
    tokens = mx.nd.array([[1, 2, 3]], dtype="int32")
    np.testing.assert_array_equal(twin(tokens)[0].asnumpy(), net(tokens)[0].asnumpy())


@pytest.mark.parametrize(
    "name, count", [pytest.param("kogpt2_base", 124_242_432, marks=pytest.mark.slow), ("single_gpu", 51_344_384)]
)
def test_full_size_updates_run(name, count):
    """Forward, backward and the recipe's own update on a CPU, at full width and depth."""
    from kogpt2_gluon.machine.worker import Worker
    from kogpt2_gluon.training.update import Update

    recipe = load_recipe(name)
    net = build_model(recipe.model)
    net.initialize()
    update = Update(net, recipe.training, Worker(), accumulate=1)
    assert sum(int(np.prod(p.shape)) for p in update.parameters.values()) == count
    tokens = mx.nd.array(np.random.RandomState(0).randint(0, 50000, (1, 65)), dtype="int32")
    loss_block = LanguageModelLoss(net)
    losses = []
    for _ in range(3):
        update.start()
        with mx.autograd.record():
            loss = loss_block(tokens).mean()
        loss.backward()
        norm = update.reduce() ** 0.5
        assert np.isfinite(norm) and norm > 0
        update.apply(1e-4, norm)
        losses.append(float(loss.asscalar()))
    assert abs(losses[0] - np.log(50000)) < 0.5
    assert losses[2] < losses[0]
