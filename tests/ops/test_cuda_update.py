"""The fused update's kernels: four optimizers against float64 and against MXNet's own, and the norm before them."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest

from benchmarks.cuda_driver import Chunk, Tensor, UpdateRule
from kogpt2_gluon.machine.runtime import mx, nlp
from kogpt2_gluon.training.optimizers import AdamW
from tests.ops.cuda_kernel_helpers import Array, Device, assert_close

pytest_plugins = ["tests.ops.cuda_kernel_fixtures"]
OPTIMIZERS = ["adamw", "bertadam", "adam", "lamb"]
# One element, a tail, whole packs, a chunk and one more element, several chunks.
SIZES = [1, 7, 16, 16384, 16385, 40003]
DECAYS = [0.0, 0.01, 0.0, 0.1, 0.01, 0.02]
RATE, BETA1, BETA2, EPSILON = 1e-2, 0.9, 0.999, 1e-6


class Network:
    """Tensors on a device with their tables; `shift` moves every array off the 16 byte grid."""

    def __init__(self, device: Device, gradient_dtype: Any, copies: bool = False, shift: int = 0):
        random = np.random.RandomState(0)
        self.device, self.dtype, self.shift = device, np.dtype(gradient_dtype), shift
        self.start = [(random.standard_normal(n) * 0.1).astype(np.float32) for n in SIZES]
        self.masters = [device.put(w, shift=shift) for w in self.start]
        self.means, self.variances = ([device.put(np.zeros_like(w), shift=shift) for w in self.start] for _ in range(2))
        self.copies = [device.empty(w.shape, np.float16, shift) for w in self.start] if copies else None
        self.gradients: list[Array] = []

    def put_gradients(self, gradients: list[np.ndarray]) -> None:
        self.gradients = [self.device.put(g, self.dtype, self.shift) for g in gradients]

    def tables(self) -> tuple[Array, Array, int, Array]:
        """Tensors and chunks in device memory, how many chunks, and the workspace."""
        groups = (self.masters, self.means, self.variances, self.gradients)
        tensors = (Tensor * len(SIZES))()
        for i, size in enumerate(SIZES):
            copy = self.copies[i].pointer if self.copies else None
            half = int(self.dtype == np.float16)
            tensors[i] = Tensor(*(group[i].pointer for group in groups), copy, size, 0, DECAYS[i], half)
        count = self.device.returns("plan_update", tensors, len(SIZES), None)
        chunks = (Chunk * count)()
        assert self.device.returns("plan_update", tensors, len(SIZES), chunks) == count
        on_device = [self.device.put(np.frombuffer(bytes(table), np.uint8)) for table in (tensors, chunks)]
        return on_device[0], on_device[1], count, self.device.workspace("update", len(SIZES), count)

    def update(self, optimizer: str, step: int, loss_scale: float, clip_factor: float) -> None:
        tensors, chunks, count, workspace = self.tables()
        rule = UpdateRule(OPTIMIZERS.index(optimizer), step, RATE, BETA1, BETA2, EPSILON, 1 / loss_scale, clip_factor)
        self.device.call("fused_update", tensors, len(SIZES), chunks, count, ctypes.byref(rule), workspace)
        workspace.get()

    def norm(self, loss_scale: float) -> np.ndarray:
        tensors, chunks, count, workspace = self.tables()
        result = self.device.empty((2,), np.float64)
        self.device.call("gradient_norm", tensors, chunks, count, 1 / loss_scale, result, workspace)
        workspace.get()
        return result.get()


def gradients_of(step: int, scale: float) -> list[np.ndarray]:
    random = np.random.RandomState(100 + step)
    return [random.standard_normal(n) * scale for n in SIZES]


def reference_step(optimizer: str, w: Any, g: Any, m: Any, v: Any, t: int, decay: float) -> tuple[Any, Any, Any]:
    """One step in float64, as each rule is published."""
    if optimizer == "adam":
        g = g + decay * w
    m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
    b1, b2 = 1 - BETA1**t, 1 - BETA2**t
    if optimizer == "adam":
        return w - RATE * math.sqrt(b2) / b1 * m / (np.sqrt(v) + EPSILON), m, v
    if optimizer == "bertadam":
        return w - RATE * (m / (np.sqrt(v) + EPSILON) + decay * w), m, v
    u = m / b1 / (np.sqrt(v / b2) + EPSILON) + decay * w
    norms = np.linalg.norm(w), np.linalg.norm(u)
    ratio = norms[0] / norms[1] if optimizer == "lamb" and all(norms) else 1.0
    return w - RATE * ratio * u, m, v


@pytest.mark.parametrize(("dtype", "shift"), [("float32", 0), ("float16", 0), ("float16", 1)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_steps_of_each_rule(device: Device, optimizer: str, dtype: str, shift: int) -> None:
    loss_scale, clip_factor = 1024.0, 0.25
    network = Network(device, dtype, copies=dtype == "float16", shift=shift)
    expected = [(w.astype(np.float64), np.zeros(w.shape), np.zeros(w.shape)) for w in network.start]
    for step in (1, 2, 3):
        gradients = [g.astype(dtype) for g in gradients_of(step, 100.0)]
        network.put_gradients(gradients)
        network.update(optimizer, step, loss_scale, clip_factor)
        for i, (w, m, v) in enumerate(expected):
            g = gradients[i].astype(np.float64) / loss_scale * clip_factor
            expected[i] = reference_step(optimizer, w, g, m, v, step, DECAYS[i])
    for i, (w, m, v) in enumerate(expected):
        where = f"tensor of {SIZES[i]}"
        # Of the way that the weights went, not of the weights: that would hide a wrong step.
        way = network.masters[i].get().astype(np.float64) - network.start[i]
        assert_close(way, w - network.start[i], f"weights, {where}", relative=2e-5)
        assert_close(network.means[i].get(), m, f"mean, {where}")
        assert_close(network.variances[i].get(), v, f"variance, {where}")
        if network.copies:
            assert np.array_equal(network.copies[i].get(), network.masters[i].get().astype(np.float16)), where


def own_optimizer(name: str) -> Any:
    """The class that the stock path updates with."""
    classes = {"adamw": AdamW, "bertadam": nlp.optimizer.BERTAdam, "adam": mx.optimizer.Adam, "lamb": mx.optimizer.LAMB}
    extra = {"lazy_update": False} if name == "adam" else {}
    return classes[name](learning_rate=RATE, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, wd=0.01, **extra)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_same_steps_as_the_stock_optimizers(device: Device, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.DECAYS", [0.01] * len(SIZES))
    network = Network(device, np.float32)
    stock = own_optimizer(optimizer)
    stock.rescale_grad = 0.25
    weights = [mx.nd.array(w) for w in network.start]
    states = [stock.create_state(i, w) for i, w in enumerate(weights)]
    for step in (1, 2, 3, 4):
        gradients = [g.astype(np.float32) for g in gradients_of(step, 1.0)]
        network.put_gradients(gradients)
        network.update(optimizer, step, 1.0, 0.25)
        for i, gradient in enumerate(gradients):
            stock.update(i, weights[i], mx.nd.array(gradient), states[i])
    for i, weight in enumerate(weights):
        way = network.masters[i].get() - network.start[i]
        # MXNet takes 1 - beta2 in float32, which is off by 5e-5: that is 2.4e-5 of a step.
        assert_close(way, (weight.asnumpy() - network.start[i]).astype(np.float64), f"{SIZES[i]}", relative=5e-5)


def test_lamb_of_a_tensor_of_zeros_takes_the_plain_rate(device: Device) -> None:
    network = Network(device, np.float32)
    network.start[2] = np.zeros(SIZES[2], np.float32)
    network.masters[2] = device.put(network.start[2])
    gradients = gradients_of(1, 1.0)
    network.put_gradients(gradients)
    network.update("lamb", 1, 1.0, 1.0)
    assert_close(network.masters[2].get(), -RATE * np.sign(gradients[2]), "plain rate", relative=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_norm_of_gradients(device: Device, dtype: str) -> None:
    network = Network(device, dtype)
    gradients = [g.astype(dtype) for g in gradients_of(1, 300.0)]
    network.put_gradients(gradients)
    exact = sum((g.astype(np.float64) ** 2).sum() for g in gradients) / 4.0**2
    squares, bad = network.norm(4.0)
    assert bad == 0
    assert abs(squares / exact - 1) <= 1e-6
    assert network.norm(4.0).tobytes() == np.array([squares, 0.0]).tobytes()


@pytest.mark.parametrize(("tensor", "place", "value"), [(0, 0, np.nan), (3, 16383, np.inf), (5, 40002, -np.inf)])
def test_every_element_that_is_not_finite_is_counted(device: Device, tensor: int, place: int, value: float) -> None:
    network = Network(device, np.float16)
    gradients = gradients_of(1, 1.0)
    gradients[tensor][place] = value
    gradients[5][20000] = value
    network.put_gradients(gradients)
    squares, bad = network.norm(1.0)
    assert bad == 2
    assert not math.isfinite(squares)


def test_an_overflow_of_the_unscaled_gradient_counts_too(device: Device) -> None:
    network = Network(device, np.float32)
    gradients = gradients_of(1, 1.0)
    gradients[1][3] = 1e30
    network.put_gradients(gradients)
    assert network.norm(1.0)[1] == 0
    assert network.norm(1e-20)[1] == 1


@pytest.mark.parametrize(("optimizer", "step"), [(4, 1), (-1, 1), (0, 0)])
def test_unknown_rules_are_refused(device: Device, optimizer: int, step: int) -> None:
    network = Network(device, np.float32)
    network.put_gradients(gradients_of(1, 1.0))
    tensors, chunks, count, workspace = network.tables()
    rule: UpdateRule | None = UpdateRule(optimizer, step, RATE, BETA1, BETA2, EPSILON, 1.0, 1.0)
    arguments = (tensors, len(SIZES), chunks, count, ctypes.byref(rule), workspace, None)
    assert device.returns("fused_update", *arguments) == 1
    assert np.array_equal(network.masters[3].get(), network.start[3])


def test_chunks_cover_every_element_once(device: Device) -> None:
    tensors = (Tensor * len(SIZES))(*(Tensor(size=size) for size in SIZES))
    count = device.returns("plan_update", tensors, len(SIZES), None)
    chunks = (Chunk * count)()
    device.returns("plan_update", tensors, len(SIZES), chunks)
    expected = [(t, i) for t, size in enumerate(SIZES) for i in range(math.ceil(size / 16384))]
    assert [(chunk.tensor, chunk.index) for chunk in chunks] == expected
    assert [t.first_chunk for t in tensors] == [expected.index((t, 0)) for t in range(len(SIZES))]
