from __future__ import annotations

import io
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.params_file import DTYPES, read_params, write_params

ORIGINAL = Path(__file__).parent / "original"
MXNET_DTYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"]
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def mx():
    return pytest.importorskip("mxnet", reason="compares with MXNet's own reader and writer")


def example_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(1,), (3, 5), (2, 3, 4), (7, 1, 2, 2)]
    return {
        f"층.{dtype}.{len(shape)}": (rng.standard_normal(shape) * 50).astype(dtype)
        for dtype in MXNET_DTYPES
        for shape in shapes
    }


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def list_of(record: bytes, names: tuple[bytes, ...] = (b"w",), count: int = 1) -> bytes:
    """A list file around one hand-made array record."""
    tail = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    return struct.pack("<QQQ", 0x112, 0, count) + record + struct.pack("<Q", len(names)) + tail


def v2(shape=(2,), storage=0, dtype=0, data=bytes(8)) -> bytes:
    return struct.pack(f"<Iii{len(shape)}qiii", 0xF993FAC9, storage, len(shape), *shape, 1, 0, dtype) + data


def test_reads_what_mxnet_saves(mx, tmp_path):
    arrays = example_arrays()
    mx.nd.save(str(tmp_path / "a.params"), {name: mx.nd.array(a, dtype=a.dtype) for name, a in arrays.items()})
    assert_same(read_params(tmp_path / "a.params"), arrays)


def test_mxnet_loads_what_is_written_and_the_bytes_are_its_own(mx, tmp_path):
    arrays = example_arrays()
    write_params(tmp_path / "ours.params", arrays)
    loaded = {name: array.asnumpy() for name, array in mx.nd.load(str(tmp_path / "ours.params")).items()}
    assert_same(loaded, arrays)
    mx.nd.save(str(tmp_path / "theirs.params"), {name: mx.nd.array(a, dtype=a.dtype) for name, a in arrays.items()})
    assert (tmp_path / "ours.params").read_bytes() == (tmp_path / "theirs.params").read_bytes()


def test_a_saved_block_reads_and_loads_back(mx, tmp_path):
    net = mx.gluon.nn.Dense(3, in_units=4)
    net.initialize()
    net.save_parameters(str(tmp_path / "net.params"))
    arrays = read_params(tmp_path / "net.params")
    assert {name: array.shape for name, array in arrays.items()} == {"weight": (3, 4), "bias": (3,)}
    write_params(tmp_path / "doubled.params", {name: 2 * array for name, array in arrays.items()})
    net.load_parameters(str(tmp_path / "doubled.params"))
    np.testing.assert_array_equal(net.weight.data().asnumpy(), 2 * arrays["weight"])


def test_the_originals_file(mx):
    arrays = read_params(ORIGINAL / "tiny.params")
    assert_same(arrays, {k: v.asnumpy() for k, v in mx.nd.load(str(ORIGINAL / "tiny.params")).items()})
    assert arrays["_embed.weight"].shape == (501, 96)
    np.testing.assert_array_equal(arrays["_embed.weight"], arrays["_logits_proj.weight"])
    again = io.BytesIO()
    write_params(again, arrays)
    assert again.getvalue() == (ORIGINAL / "tiny.params").read_bytes()


def test_older_and_newer_array_records(mx, tmp_path):
    data = struct.pack("<6f", *range(6))
    oldest = struct.pack("<III", 2, 2, 3) + struct.pack("<iii", 1, 0, 0) + data
    v1 = struct.pack("<Iiqq", 0xF993FAC8, 2, 2, 3) + struct.pack("<iii", 1, 0, 0) + data
    v3 = struct.pack("<Iiiqq", 0xF993FACA, 0, 2, 2, 3) + struct.pack("<iii", 1, 0, 0) + data
    path = tmp_path / "a.params"
    for record in (oldest, v1):  # MXNet reads its newest kind only in NumPy mode
        path.write_bytes(list_of(record))
        np.testing.assert_array_equal(mx.nd.load(str(path))["w"].asnumpy(), read_params(path)["w"])
    path.write_bytes(list_of(v3))
    np.testing.assert_array_equal(read_params(path)["w"], np.arange(6, dtype=np.float32).reshape(2, 3))


def test_other_layouts_of_memory_are_written_in_c_order(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    for layout in (np.asfortranarray(array), array[::2, ::-1], array.astype(">f4"), array.T):
        write_params(tmp_path / "a.params", {"w": layout})
        read = read_params(tmp_path / "a.params")["w"]
        np.testing.assert_array_equal(read, layout)
        assert read.dtype == np.float32 and read.flags["C_CONTIGUOUS"] and read.flags["WRITEABLE"]


def test_an_open_file_is_written_where_it_stands_and_left_open(tmp_path):
    with (tmp_path / "a.params").open("wb") as file:
        write_params(file, {"w": np.ones(3, np.float32)})
        file.flush()
        assert not file.closed
    np.testing.assert_array_equal(read_params(str(tmp_path / "a.params"))["w"], np.ones(3))


def test_no_arrays_at_all(tmp_path):
    write_params(tmp_path / "a.params", {})
    assert read_params(tmp_path / "a.params") == {}


@pytest.mark.parametrize(
    "array", [np.float32(1.0), np.zeros((0, 3), np.float32), np.zeros(2, np.complex64), np.array(["a"]), np.array([{}])]
)
def test_arrays_that_the_format_cannot_hold_are_named_before_anything_is_written(array, tmp_path):
    with pytest.raises(DataError, match=r"^array bad\.weight: "):
        write_params(tmp_path / "a.params", {"good": np.ones(2, np.float32), "bad.weight": np.asarray(array)})
    assert not (tmp_path / "a.params").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"byte 0: .* need 8 bytes where 0 are left"),
        (b"PK\x03\x04" + bytes(60), r"byte 0: not a \.params file"),
        (list_of(v2(), count=2**60), r"byte 16: the number of arrays is 1152921504606846976, more than"),
        (list_of(v2(), count=2), "byte "),
        (list_of(v2(shape=(2**40, 2**20))), r"byte 64: the 4611686018427387904 bytes of array 0"),
        (list_of(v2(shape=(2**62, 2**62, 2**62))), "byte 72: the "),
        (list_of(v2(shape=(-2,))), r"byte 24: array 0 has shape \(-2,\)"),
        (list_of(v2(shape=(0, 2**62))), r"byte 24: array 0 has shape \(0, "),
        (list_of(v2(shape=())), r"byte 24: array 0 has shape \(\)"),
        (list_of(v2(storage=1)), r"byte 32: array 0 is sparse \(storage type 1\)"),
        (list_of(v2(dtype=12)), r"byte 52: array 0 has dtype flag 12: bfloat16"),
        (list_of(v2(dtype=99)), r"byte 52: array 0 has dtype flag 99: unknown"),
        (list_of(struct.pack("<I", 0xDEADBEEF) + bytes(40)), "byte 28: array 0 has neither a known magic number"),
        (list_of(v2(), names=()), "byte 64: the number of names is not that of the 1 arrays"),
        (list_of(v2() + v2(), names=(b"w", b"w"), count=2), "byte 121: the name 'w' comes twice"),
        (list_of(v2(), names=(b"\xff\xfe",)), "byte 80: a name is not UTF-8"),
        (list_of(v2()) + b"more", "byte 81: 4 bytes are left over"),
        (list_of(v2())[:-1], r"byte 72: the length of a name is 1, more than the file can hold"),
    ],
    ids=range(18),
)
def test_damaged_files_are_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "bad.params"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_params(path)
    assert str(caught.value).startswith(f"{path}: byte ") and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"none\.params: cannot be read: No such file"):
        read_params(tmp_path / "none.params")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_params(tmp_path)


@quick
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=20),
        st.sampled_from(sorted(DTYPES.values(), key=str)).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=5, max_side=4))
        ),
        max_size=5,
    )
)
def test_round_trip_of_anything(tmp_path, arrays):
    write_params(tmp_path / "a.params", arrays)
    assert_same(read_params(tmp_path / "a.params"), arrays)


@quick
@given(st.data())
def test_random_damage_never_gets_past_the_reader(tmp_path, data):
    whole = io.BytesIO()
    write_params(whole, {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "나": np.arange(4, dtype=np.int64)})
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path / "a.params"
    path.write_bytes(content[:cut])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
    try:
        arrays = read_params(path)
    except DataError as error:
        assert str(error).startswith(f"{path}: byte ")
    else:
        assert sum(array.nbytes for array in arrays.values()) <= len(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_every_truncation_of_a_file_is_refused(tmp_path):
    whole = io.BytesIO()
    write_params(whole, {"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.int8)})
    path = tmp_path / "a.params"
    for cut in range(len(whole.getvalue())):
        path.write_bytes(whole.getvalue()[:cut])
        with pytest.raises(DataError):
            read_params(path)
