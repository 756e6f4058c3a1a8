"""Files of codes: what is written is what is read, and what does not fit together is one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.binary_codes import PackedCodes, quantise
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.codes_file import CodedArrays, CodesFile, write_codes
from kogpt2_gluon.storage.safetensors_file import rounded, widened


def random_codes(seed: int, bits: int, rows: int, columns: int, groups: int) -> PackedCodes:
    draw = np.random.RandomState(seed)
    planes = np.packbits(draw.rand(bits, rows, columns) > 0.5, axis=2, bitorder="little")
    return PackedCodes(draw.randn(bits, rows, groups).astype("f"), planes, columns)


def written(path, arrays, codes, rest="float32", without=""):
    with path.open("wb") as file:
        write_codes(file, CodedArrays(arrays, codes, rest), without)
    return path


@settings(max_examples=25, deadline=None)
@given(
    bits=st.integers(1, 4),
    rows=st.integers(1, 5),
    groups=st.integers(1, 4),
    size=st.integers(1, 20),
    rest=st.sampled_from(["float32", "bfloat16"]),
)
def test_what_is_written_is_read(tmp_path_factory, bits, rows, groups, size, rest):
    codes = {"m": random_codes(bits, bits, rows, groups * size, groups)}
    plain = np.random.RandomState(size).randn(3, size).astype("f")
    arrays = {"m": np.zeros((rows, groups * size), "f"), "b": plain, "twin": plain}
    file = CodesFile(written(tmp_path_factory.mktemp("codes") / "x", arrays, codes, rest, without="twin"))
    assert sorted(file) == ["b", "m"] and file.coded == ["m"]
    assert file.shapes == {"m": (rows, groups * size), "b": (3, size)}
    read = file.codes("m")
    assert np.array_equal(read.scales, codes["m"].scales) and np.array_equal(read.planes, codes["m"].planes)
    assert (read.columns, read.bits, read.group_size) == (groups * size, bits, size)
    kept = plain if rest == "float32" else widened(rounded(plain, "BF16", "b"))
    assert np.array_equal(file["b"], kept)
    signs = np.unpackbits(read.planes, axis=2, count=read.columns, bitorder="little") * 2.0 - 1
    expected = (signs.reshape(bits, rows, groups, size) * codes["m"].scales[..., None]).sum(axis=0).reshape(rows, -1)
    np.testing.assert_allclose(file["m"], expected, rtol=1e-5, atol=1e-6)
    assert file["m"].dtype == np.float32


@pytest.mark.parametrize("group_size", [0, 4])
def test_packing_keeps_the_matrix(group_size):
    matrix = np.random.RandomState(0).randn(5, 12).astype("f")
    codes = quantise(matrix, 3, group_size)
    packed = PackedCodes.of(codes)
    np.testing.assert_allclose(packed.matrix(), codes.matrix(), rtol=1e-6, atol=1e-6)
    assert packed.shape == (5, 12) and packed.nbytes == 3 * 5 * (2 + 4 * (3 if group_size else 1))


def edited(path, change):
    """The file with another header, given its right length."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data[8 + length :])
    return path


def columns(value):
    return lambda header: header["__metadata__"].update(columns=value)


def shape(name, value):
    return lambda header: header[name].update(shape=value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: header.pop("__metadata__"), "not a file of codes"),
        (lambda header: header.update(__metadata__=[]), "not a (file of codes|safetensors file)"),
        (lambda header: header["__metadata__"].update(format="pt"), "not a file of codes"),
        (lambda header: header["__metadata__"].pop("columns"), "columns"),
        (columns("{"), "columns"),
        (columns("[]"), "columns"),
        (columns('{"m": "16"}'), "columns"),
        (columns('{"m": -16}'), "columns"),
        (columns('{"m": true}'), "columns"),
        (columns('{"m": 17}'), "m with 17 columns has no codes that fit"),
        (columns('{"m": 8}'), "m with 8 columns has no codes that fit"),
        (columns('{"other": 16}'), "U8; what is not codes is float32 or bfloat16|other with 16 columns"),
        (columns("{}"), "U8; what is not codes"),
        (shape("m.bits", [12, 2, 1]), "no codes that fit"),
        (shape("m.bits", [12, 2]), "no codes that fit"),
        (shape("m.scales", [3, 4, 2, 1]), "no codes that fit"),
        (shape("m.scales", [4, 3, 2]), "no codes that fit"),
        (lambda header: header.pop("m.scales"), "no codes that fit"),
        (lambda header: header["m.bits"].update(dtype="I8"), "no codes that fit"),
        (lambda header: header["m.bits"].update(shape=[3, 4, 1 << 39]), "not a safetensors file"),
        (lambda header: header["b"].update(dtype="I32"), "b is I32"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, words):
    arrays = {"m": np.zeros((4, 16), "f"), "b": np.ones(4, "f")}
    path = written(tmp_path / "x", arrays, {"m": random_codes(0, 3, 4, 16, 2)})
    assert CodesFile(path)["m"].shape == (4, 16)
    with pytest.raises(DataError, match=words) as caught:
        CodesFile(edited(path, change))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_scale_that_is_not_finite_and_a_file_that_ends_early(tmp_path):
    codes = random_codes(0, 3, 4, 16, 2)
    codes.scales[1, 2, 1] = np.nan
    path = written(tmp_path / "x", {"m": np.zeros((4, 16), "f")}, {"m": codes})
    with pytest.raises(DataError, match="m has a scale that is not finite"):
        CodesFile(path)["m"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="does not lie within the file"):
        CodesFile(path)
    with pytest.raises(DataError, match="cannot be read"):
        CodesFile(tmp_path / "missing")
