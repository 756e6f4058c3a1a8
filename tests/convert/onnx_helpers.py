"""Runs the graphs of a converted folder with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lazy_modules import needed

ort = needed("onnxruntime", reason="runs the graphs")

NAMES = ["logits.onnx", "model.onnx"]
EXACT = 1e-5  # of the largest logit


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
