"""Weights of other makers: PyTorch's files without running them, and safetensors; hostile ones are one line."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile, rounded, widened, write_safetensors
from kogpt2_gluon.storage.torch_file import TorchFile
from tests.lazy_modules import needed

torch = needed("torch", reason="writes the files")
ZIP = pytest.mark.parametrize("in_zip", [True, False], ids=["zip", "older"])


def save(path, content, in_zip):
    torch.save(content, path, _use_new_zipfile_serialization=in_zip)
    return path


@ZIP
def test_every_kind_of_tensor_is_read_as_torch_reads_it(tmp_path, in_zip):
    base, linear = torch.arange(24.0).reshape(4, 6), torch.nn.Linear(3, 4)
    tensors = {
        **{"turned": base.t(), "part": base[1:3, 2:4], "whole": base, "parameter": linear.weight},
        **{"scalar": torch.tensor(3), "empty": torch.zeros(0, 4), "half": torch.ones(2, 3).half()},
        **{"bfloat16": torch.randn(5).bfloat16(), "bool": torch.ones(3).bool(), "bytes": torch.arange(3).byte()},
        **{"double": torch.randn(2).double(), "short": torch.arange(2).short(), "expanded": torch.ones(1).expand(1)},
    }
    file = TorchFile(save(tmp_path / "a.bin", tensors, in_zip))
    assert list(file) == list(tensors) and file.others == []
    for name, tensor in tensors.items():
        expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        assert file[name].dtype == expected.dtype and file[name].shape == expected.shape, name
        assert np.array_equal(file[name], expected), name
    nested = save(tmp_path / "b.bin", {"state_dict": linear.state_dict(), "epoch": 3, "rates": [0.1]}, in_zip)
    assert list(TorchFile(nested)) == ["weight", "bias"]
    mixed = save(tmp_path / "c.bin", {"weight": base, "step": 7}, in_zip)
    assert TorchFile(mixed).others == ["step"]


def test_an_archive_without_checksums_is_read(tmp_path):
    from torch.utils.serialization import config

    with config.patch("save.compute_crc32", False):
        path = save(tmp_path / "a.bin", {"a": torch.arange(4.0)}, in_zip=True)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("a/data.pkl").CRC == 0
    assert TorchFile(path)["a"].tolist() == [0, 1, 2, 3]


def test_a_checksum_that_is_there_is_compared(tmp_path):
    path = save(tmp_path / "a.bin", {"a": torch.arange(4.0)}, in_zip=True)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"OrderedDict", b"OrderedDicT", 1).replace(b"FloatStorage", b"FloatStoragE", 1))
    with pytest.raises(DataError, match=r"a\.bin: .*a/data\.pkl is damaged"):
        TorchFile(path)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@ZIP
def test_nothing_in_a_file_is_run(tmp_path, in_zip):
    trap = tmp_path / "trap"
    for number, content in enumerate(
        [Evil(os.mkdir, str(trap)), Evil(eval, f"__import__('os').mkdir({str(trap)!r})"), Evil(getattr, "", "join")]
    ):
        path = save(tmp_path / f"{number}.bin", {"a": torch.ones(2), "b": content}, in_zip)
        with pytest.raises(DataError, match=r"it calls \S+, which no file of tensors needs"):
            TorchFile(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"PK\x03\x04", bytes(100), b"\x80\x02.", b"\x80\x02}.", pickle.dumps([1, 2]), pickle.dumps({"a": 1})),
        b"\x80\x02" + b"(" * 1000 + b".",  # marks alone
        b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * 40 + b".",  # a nest of pairs of itself
        b"\x80\x02}(((K\x01K\x02tK\x03u.",  # a key that is not a text
        b"c__main__\nX\n.",
    ],
    ids=lambda content: str(content[:12]),
)
def test_what_is_not_a_file_of_tensors_is_one_line(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError) as caught:
        TorchFile(tmp_path / "a.bin")
    assert "\n" not in str(caught.value) and "a.bin" in str(caught.value)


@cache  # the older form has addresses of memory in it, so each file that PyTorch writes is another one
def whole_file(folder: Path, in_zip: bool) -> bytes:
    return save(folder / f"{in_zip}.bin", {"a": torch.ones(3, 4), "b": torch.arange(5)}, in_zip).read_bytes()


@ZIP
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_is_a_data_error_or_reads(tmp_path_factory, in_zip, data):
    folder = tmp_path_factory.mktemp("damaged")
    whole = bytearray(whole_file(tmp_path_factory.getbasetemp(), in_zip))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(whole))))
    (folder / "b.bin").write_bytes(whole[:cut])
    try:
        arrays = dict(TorchFile(folder / "b.bin"))
    except DataError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= 8 * len(whole)


# ---- safetensors -----------------------------------------------------------------------------------------------------


def test_what_is_written_is_what_the_library_reads(tmp_path):
    arrays = {"a": np.random.randn(3, 5).astype(np.float32), "b.c": np.float32([1, 2, 3])}
    shapes = {name: array.shape for name, array in arrays.items()}
    write_safetensors(tmp_path / "a.safetensors", arrays, shapes)
    read = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert read.keys() == arrays.keys() and all(np.array_equal(read[name], arrays[name]) for name in arrays)
    mine = SafetensorsFile(tmp_path / "a.safetensors")
    assert mine.metadata == {"format": "pt"} and all(np.array_equal(mine[name], arrays[name]) for name in arrays)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_bfloat16_is_torchs(numbers):
    array = np.float32(numbers)
    expected = torch.from_numpy(array).bfloat16().float().numpy()
    finite = np.isfinite(expected)
    assert np.array_equal(widened(rounded(array, "BF16", "x"))[finite], expected[finite])


def test_what_cannot_be_rounded_is_refused():
    for dtype, number in (("F16", 7e4), ("F16", np.nan), ("BF16", np.inf), ("BF16", np.nan)):
        with pytest.raises(DataError, match="x: has"):
            rounded(np.float32([1, number]), dtype, "x")


HEADERS = [
    b"{}x",
    b"[1]",
    b'{"a": 1}',
    b'{"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}',
    b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}',
    b'{"a": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}',
    b'{"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}',
    b'{"a": {"shape": [1], "data_offsets": [0, 4]}}',
    b"[" * 5000,
    '{"\ud55c": {}}'.encode("cp949"),
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: str(header[:40]))
def test_headers_that_lie_are_one_line(tmp_path, header):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(DataError, match="not a safetensors file, or damaged"):
        SafetensorsFile(tmp_path / "a.safetensors")


def test_a_length_beyond_the_file_is_one_line(tmp_path):
    for length in (0, 1, 100, 1 << 40, (1 << 64) - 1):
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(DataError, match=r"its header would have \d+ bytes of 10"):
            SafetensorsFile(tmp_path / "a.safetensors")
