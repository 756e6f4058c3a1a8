"""Files of weights that claim more than they hold: refused in one line, before memory is taken for the claim."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage import torch_file
from kogpt2_gluon.storage.params_file import ParamsFile
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile
from kogpt2_gluon.storage.torch_file import TorchFile
from tests.fuzz.weight_files import old_torch_seeds, torch_seeds


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """A refusal takes no memory to speak of."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20, peak


def refused(path: Path, content: bytes, told: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path.name}: .*{told}") as caught:
        opened = TorchFile(path) if path.suffix == ".bin" else SafetensorsFile(path)
        [opened[name] for name in opened]
    assert "\n" not in str(caught.value)


def test_an_archive_whose_storage_is_said_to_be_larger_than_the_file(tmp_path: Path) -> None:
    whole = torch_seeds(tmp_path)[0]
    entry = whole.rindex(b"archive/data/0") - 46  # in the list at the end: sizes at 20 and 24
    assert struct.unpack_from("<II", whole, entry + 20) == (24, 24)
    lying = bytearray(whole)
    struct.pack_into("<II", lying, entry + 20, 0x7FFFFFF0, 0x7FFFFFF0)
    refused(tmp_path / "a.bin", bytes(lying), "data/0 ends after the end of the file")


def test_an_archive_in_which_anything_is_compressed(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(torch_seeds(tmp_path)[0])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for packed in members:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                way = zipfile.ZIP_DEFLATED if name == packed else zipfile.ZIP_STORED
                archive.writestr(zipfile.ZipInfo(name), content, way)
        refused(tmp_path / "a.bin", file.getvalue(), "is compressed")


@pytest.mark.parametrize(
    "opcode",
    [
        *(b"X\xff\xff\xff\x7f", b"\x8d" + struct.pack("<Q", 1 << 60), b"\x8e" + struct.pack("<Q", 1 << 40)),
        *(b"B\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f"),
    ],
    ids=["BINUNICODE", "BINUNICODE8", "BINBYTES8", "BINBYTES", "LONG4"],
)
def test_a_pickle_whose_text_or_number_is_said_to_be_huge(tmp_path: Path, opcode: bytes) -> None:
    refused(tmp_path / "a.bin", b"\x80\x04" + opcode + b"a.", "not a PyTorch file, or damaged")
    whole = old_torch_seeds(tmp_path)[0]
    refused(tmp_path / "b.bin", whole.replace(b"\x80\x02cc", b"\x80\x02" + opcode + b"cc", 1), "or damaged")


def test_a_storage_of_less_than_nothing(tmp_path: Path) -> None:
    whole = old_torch_seeds(tmp_path)[0]
    start = struct.pack("<q", 4) + struct.pack("<f", 1)
    assert whole.count(start) == 1
    refused(tmp_path / "a.bin", whole.replace(start, struct.pack("<q", -4) + start[8:]), "a storage of -4 elements")


def test_a_pickle_of_too_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "MOST_OPCODES", 1000)
    refused(tmp_path / "a.bin", b"\x80\x02" + b"]" * 2000 + b".", "its pickle has more than 1,000 steps")


def test_groups_take_time_in_proportion_to_the_file(tmp_path: Path) -> None:
    # Each group used to be looked for through all values before it: 40,000 groups over 40,000 values took minutes.
    few = b"\x80\x02" + b"N" * 40_000 + b"(t" * 40_000 + b"."
    refused(tmp_path / "a.bin", few, "the magic number is another")


@pytest.mark.parametrize(
    ("shape", "places", "told"),
    [
        ([0, 1 << 62], [0, 0], "has shape"),  # no element, and a size that overflows
        ([1 << 30, 1 << 30], [0, 24], "does not lie within the file"),
        ([True, 6], [0, 24], "has shape"),
        ([6], [0, 1 << 62], "has shape"),
        ([10**400], [0, 24], "has shape|or damaged"),
    ],
)
def test_safetensors_of_impossible_shapes(tmp_path: Path, shape: list[int], places: list[int], told: str) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": places}}).encode()
    refused(tmp_path / "a.safetensors", struct.pack("<Q", len(header)) + header + bytes(24), told)


def test_a_hundred_bytes_that_claim_all_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.params"
    for dims in ((1 << 60,), (1 << 31, 1 << 31), (1 << 62, 1 << 62)):
        array = struct.pack(f"<Iii{len(dims)}qiii", 0xF993FAC9, 0, len(dims), *dims, 1, 0, 0)
        path.write_bytes(struct.pack("<QQQ", 0x112, 0, 1) + array + bytes(24))
        with pytest.raises(DataError, match=r"a\.params: byte \d+: .* would need \d+ bytes where \d+ are left"):
            ParamsFile(path)
    path.write_bytes(struct.pack("<QQQ", 0x112, 0, 1 << 60) + bytes(76))
    with pytest.raises(DataError, match="the number of arrays is 1152921504606846976, more than the file can hold"):
        ParamsFile(path)
