"""OpenVINO reads the converted folder: SentencePiece's ids but for lines that docs/after.md names, and the network."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tests.convert import torch_helpers
from tests.convert.kinds_of_lines import LINES
from tests.convert.tool_helpers import (
    PROFILES,
    REVIEWS,
    Converted,
    convert_profile,
    differing_kinds,
    my_model,
    program,
    reviews,
    run_command,
    some_ids,
)
from tests.lazy_modules import needed

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # else it reports each use to Intel
openvino = needed("openvino", reason="a peer of the test")
openvino_tokenizers = needed("openvino_tokenizers", reason="a peer of the test")


class SignalStack(ctypes.Structure):
    """stack_t of <signal.h>"""

    _fields_: ClassVar = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@pytest.fixture(scope="module", autouse=True)
def signal_stack() -> Iterator[None]:
    """Gives the thread its alternate signal stack back: OpenVINO leaves it a freed one (see findings/), on which the
    next signal that Python handles would end the process."""
    before, libc = SignalStack(), ctypes.CDLL(None)
    assert libc.sigaltstack(None, ctypes.byref(before)) == 0
    yield
    gc.collect()  # what is left of OpenVINO, which would change it again
    assert libc.sigaltstack(ctypes.byref(before), None) == 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Converted]:
    work = tmp_path_factory.mktemp("openvino")
    return {profile: convert_profile(work / profile, profile) for profile in PROFILES}


@pytest.fixture(scope="module", params=PROFILES)
def pair(request, folders, transformers):
    """(SentencePiece, OpenVINO's tokenizer, its detokenizer) of a profile."""
    folder, model = folders[request.param]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    both = openvino_tokenizers.convert_tokenizer(tokenizer, with_detokenizer=True, skip_special_tokens=False)
    return model, *(openvino.compile_model(each, "CPU") for each in both), request.param


def encode(tokenizer, lines: list[str]) -> list[list[int]]:
    """The ids of lines, without padding. They are encoded together, as this is faster."""
    results = tokenizer(lines)
    return [ids[mask == 1].tolist() for ids, mask in zip(results["input_ids"], results["attention_mask"])]


@pytest.mark.skipif(not REVIEWS.is_file(), reason="the tokenizer's words are from the reviews")
def test_ids_are_those_of_sentencepiece(pair):
    model, tokenizer, _, profile = pair
    ids = encode(tokenizer, [line for _, line in LINES])
    names_of_bytes = {"names of bytes"} if profile == "lossless" else set()
    assert differing_kinds(model, ids) == {"special tokens", "the zero byte", *names_of_bytes}


@pytest.mark.skipif(not REVIEWS.is_file(), reason="the reviews are not here")
def test_ids_of_real_reviews(pair):
    model, tokenizer, _, _ = pair
    lines = reviews(100_000, 1000)
    assert encode(tokenizer, lines) == model.encode(lines)


def test_ids_decode_alike(pair):
    model, _, detokenizer, _ = pair
    for _, line in LINES:
        if (ids := model.encode(line)) and "\0" not in line:
            assert str(detokenizer([ids])["string_output"][0]) == model.decode(ids), ascii(line)


@pytest.fixture(scope="module")
def work(folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the command of the page has been run."""
    with my_model(folders["nmt_nfkc"], tmp_path_factory.mktemp("openvino") / "work") as folder:
        run_command("convert_tokenizer")
        yield folder


@pytest.fixture(scope="module")
def names(work: Path) -> dict:
    """Returns what the program of the page defines."""
    defined: dict = {"__name__": "page"}
    exec(compile(program("import openvino"), "docs/after.md", "exec"), defined)
    return defined


def test_logits_and_greedy_tokens(folders, names):
    converted = folders["nmt_nfkc"]
    net = torch_helpers.network(converted.folder)
    for ids in some_ids(converted.model):
        theirs = names["network"](np.array([ids]))[0][0]
        ours = torch_helpers.logits_of(net, ids)
        assert np.abs(theirs - ours).max() < 1e-5 * np.abs(ours).max()
    ids = some_ids(converted.model)[2]
    expected = torch_helpers.greedy(net, ids, 20)
    for index in expected:
        assert names["network"](np.array([ids]))[0][0, -1].argmax() == index
        ids = [*ids, index]


def test_beyond_max_length_is_no_error(names):
    assert names["network"](np.ones((1, 70), np.int64))[0].shape[1] == 70


def test_the_detokenizer_leaves_out_special_tokens(work):
    detokenizer = openvino.compile_model("my-model-openvino/openvino_detokenizer.xml", "CPU")
    assert str(detokenizer([[1, 0, 2]])["string_output"][0]) == ""


def test_a_folder_that_adds_bos(folders, tmp_path, transformers):
    folder, model = convert_profile(tmp_path / "bos", "nmt_nfkc", bos=True)
    tokenizer = openvino_tokenizers.convert_tokenizer(transformers.AutoTokenizer.from_pretrained(folder))
    assert encode(openvino.compile_model(tokenizer, "CPU"), ["영화"]) == [[1, *model.encode("영화")]]
