"""A tuned prompt on disk: what is written is read, by the format's library too; all else is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs.tuned_prompt import (
    BODY,
    VECTORS,
    WEIGHTS,
    body_fingerprint,
    prompts_for,
    read_tuned_prompt,
    write_tuned_prompt,
)
from tests.convert.convert_helpers import make_checkpoint


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 9), units=st.integers(1, 9), body=st.text("0123456789abcdef", max_size=64))
def test_what_is_written_is_read(tmp_path_factory, length, units, body):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    folder = tmp_path_factory.mktemp("prompt")
    vectors = np.random.RandomState(length).randn(length, units).astype(np.float32)
    write_tuned_prompt(folder / WEIGHTS, vectors, body, "base/step-00000001")
    for path in (folder, folder / WEIGHTS):
        found = read_tuned_prompt(path)
        assert (found.vectors == vectors).all() and found.body == body and found.path == folder / WEIGHTS
    assert (load_file(folder / WEIGHTS)[VECTORS] == vectors).all()


@pytest.mark.parametrize(
    ("arrays", "metadata", "words"),
    [
        ({"other": np.zeros((2, 3))}, {BODY: "ab"}, "is no tuned prompt"),
        ({VECTORS: np.zeros((2, 3)), "other": np.zeros(1)}, {BODY: "ab"}, "is no tuned prompt"),
        ({VECTORS: np.zeros((2, 3))}, None, "is no tuned prompt"),
        ({VECTORS: np.zeros(6)}, {BODY: "ab"}, "of shape"),
        ({VECTORS: np.zeros((0, 3))}, {BODY: "ab"}, "of shape"),
        ({VECTORS: np.full((2, 3), np.nan)}, {BODY: "ab"}, "not finite"),
        ({VECTORS: np.zeros((2, 3), np.int32)}, {BODY: "ab"}, "int32"),
    ],
)
def test_other_files_are_refused(tmp_path, arrays, metadata, words):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file(arrays, tmp_path / WEIGHTS, metadata)
    with pytest.raises(DataError, match=words):
        read_tuned_prompt(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\x10" + bytes(30), b"\x14" + bytes(7) + b'{"__metadata__": [7]}'])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(DataError, match=WEIGHTS):
        read_tuned_prompt(tmp_path)


def test_a_fingerprint_is_of_the_network_alone():
    draw = np.random.RandomState(0)
    arrays = {"b": draw.randn(3, 4).astype("f"), "_embed.weight": draw.randn(2, 4).astype("f")}
    own = body_fingerprint(arrays)
    more = {"_prompt.weight": arrays["b"], "_head.weight": arrays["b"], "_logits_proj.weight": arrays["_embed.weight"]}
    assert body_fingerprint({**more, **dict(reversed(arrays.items()))}) == own
    for other in (
        {**arrays, "b": arrays["b"].reshape(4, 3)},
        {**arrays, "b": np.nextafter(arrays["b"], 9)},
        {"c": arrays["b"], "_embed.weight": arrays["_embed.weight"]},
    ):
        assert body_fingerprint(other) != own


def test_a_prompt_is_for_its_own_network_and_leaves_room(tmp_path, small_tokenizer):
    checkpoint = make_checkpoint(tmp_path / "body", small_tokenizer)
    own = body_fingerprint(checkpoint.model_arrays())
    for name, body, shape, words in (
        ("right", own, (3, 96), ""),
        ("other", "0" * 64, (3, 96), "tuned on another network"),
        ("long", own, (64, 96), "no position for a text"),
        ("narrow", own, (3, 95), "or are damaged"),
    ):
        write_tuned_prompt(tmp_path / name, np.ones(shape, np.float32), body, "")
        if words:
            with pytest.raises(DataError, match=words):
                prompts_for(checkpoint, [tmp_path / "right", tmp_path / name])
        else:
            assert [each.shape for each in prompts_for(checkpoint, [tmp_path / name])] == [shape]
