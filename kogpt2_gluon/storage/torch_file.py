"""Reads the tensors of a PyTorch `.bin`, `.pt` or `.pth` file without PyTorch, and without running what is in it.

``torch.save`` writes a pickle, which is a program: loading one can do anything. Here that program is not run. Its
opcodes are read one by one (Python's own ``pickletools`` lists them), and those that a dictionary of tensors needs are
followed; whatever else it asks for is refused by name. Two layouts exist (PyTorch 2.13, ``torch/serialization.py``):

    zip     since PyTorch 1.6: ARCHIVE/data.pkl, and the numbers of a storage in ARCHIVE/data/KEY, uncompressed
    older   a pickled magic number, protocol version, system information, the tensors, a list of keys; then for each key
            an int64 number of elements, and these

A tensor is a storage with an offset, a shape and strides. Tensors of one storage, such as tied weights, stay apart.

A file is not trusted: every size in it is compared with the bytes that there are before memory is allocated for it.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Union

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.storage.safetensors_file import widened

Array = npt.NDArray[Any]

OLD_MAGIC = 0x1950A86A20F9469CFC6C
# bfloat16 has no NumPy type: its bits are the upper half of a float32.
STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
REBUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
PARAMETER = "torch._utils _rebuild_parameter"
ORDERED_DICT = "collections OrderedDict"
MAX_NDIM = 32
LARGEST_DIM = 1 << 40  # NumPy refuses arrays without elements whose other dimensions are too large
MOST_OPCODES = 2_000_000  # each can take 100 bytes of memory; 1,000 layers need a quarter of them
# What reading a file of anything else can raise.
BROKEN: tuple[type[Exception], ...]
BROKEN = (ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, struct.error, zipfile.BadZipFile)
BROKEN = (*BROKEN, NotImplementedError, RuntimeError)  # of zipfile: compressed in an unknown way, encrypted


class Global(NamedTuple):
    """A name that the pickle refers to. It is compared with the few that are known, and never imported."""

    name: str


class Storage(NamedTuple):
    """A storage, as the pickle refers to it."""

    kind: str
    key: str
    size: int


class Tensor(NamedTuple):
    """A tensor, as the pickle describes it: it begins at element `offset` of the storage; `strides` are in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchFile(LazyArrays[Tensor]):
    """The tensors of a saved `state_dict`, by name, each read from the file when it is asked for.

    bfloat16 is given as float32, exactly; other dtypes as they are. What is no tensor in the dictionary is left out,
    and listed in `others`. DataError, naming the file, if it is damaged, is no dictionary of tensors, or asks for more
    than that.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._starts: dict[str, int] = {}  # storage key -> offset of its first byte
        try:
            with self.path.open("rb") as file:
                saved = self._from_zip(file) if zipfile.is_zipfile(file) else self._from_old(file)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        except BROKEN as error:
            raise DataError(f"{self.path}: not a PyTorch file, or damaged ({str(error)[:200]})") from None
        if isinstance(saved, dict) and isinstance(saved.get("state_dict"), dict):
            saved = saved["state_dict"]
        if not isinstance(saved, dict):
            raise DataError(f"{self.path}: holds no dictionary of tensors")
        super().__init__({str(name): value for name, value in saved.items() if isinstance(value, Tensor)})
        self.others = [str(name) for name, value in saved.items() if not isinstance(value, Tensor)]
        for name, tensor in self._places.items():
            self._check(name, tensor)

    def _from_zip(self, file: BinaryIO) -> Any:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            (listing,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            folder = listing[: -len("data.pkl")] + "data/"
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED:  # a little could become a lot
                    raise ValueError(f"{info.filename} is compressed")
            if f"{listing[: -len('data.pkl')]}byteorder" in archive.namelist():
                order = _content(file, archive.getinfo(f"{listing[: -len('data.pkl')]}byteorder"))
                if order != b"little":
                    raise ValueError(f"byte order {order[:10]!r}")
            sizes = {}
            for info in archive.infolist():
                if info.filename.startswith(folder):
                    key = info.filename[len(folder) :]
                    self._starts[key], sizes[key] = _start_of(file, info), info.file_size
                    if self._starts[key] + sizes[key] > os.fstat(file.fileno()).st_size:
                        raise ValueError(f"{info.filename} ends after the end of the file")
            self._sizes = sizes
            return _follow(io.BytesIO(_content(file, archive.getinfo(listing))))

    def _from_old(self, file: BinaryIO) -> Any:
        file.seek(0)
        rest = _Rest(file)
        if _follow(rest) != OLD_MAGIC:
            raise ValueError("the magic number is another")
        storages: dict[str, Storage] = {}
        _follow(rest), _follow(rest)  # protocol version, system information
        saved, keys = _follow(rest, storages), _follow(rest)
        self._sizes = {}
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            if count < 0:
                raise ValueError(f"a storage of {count} elements")
            size = count * STORAGES[storages[key].kind].itemsize
            self._starts[key], self._sizes[key] = file.tell(), size
            file.seek(size, os.SEEK_CUR)
        if file.tell() > os.fstat(file.fileno()).st_size:
            raise ValueError("it ends early")
        return saved

    def _check(self, name: str, tensor: Tensor) -> None:
        """DataError unless the tensor lies within its storage."""
        dtype = STORAGES[tensor.storage.kind]
        held = self._sizes.get(tensor.storage.key, -1) // dtype.itemsize
        sizes = (*tensor.shape, *tensor.strides, tensor.offset)
        fits = (
            held >= 0
            and len(tensor.shape) == len(tensor.strides) <= MAX_NDIM
            and all(type(each) is int and 0 <= each < LARGEST_DIM for each in sizes)
            and (0 in tensor.shape or _last_element(tensor) < held)
            and math.prod(tensor.shape) <= held  # a stride of 0 would make a large array of a small file
        )
        if not fits:
            raise DataError(f"{self.path}: tensor {name[:200]!r} does not lie within its storage")

    def __getitem__(self, name: str) -> Array:
        tensor = self._places[name]
        dtype = STORAGES[tensor.storage.kind]
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, np.float32 if tensor.storage.kind == "BFloat16Storage" else dtype)
        flat = np.empty(_last_element(tensor) - tensor.offset + 1, dtype)
        with self.path.open("rb") as file:
            file.seek(self._starts[tensor.storage.key] + tensor.offset * dtype.itemsize)
            if file.readinto(flat.view(np.uint8).data) != flat.nbytes:
                raise DataError(f"{self.path}: tensor {name!r} ends early")
        strides = tuple(each * dtype.itemsize for each in tensor.strides)
        array = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides).copy()
        if tensor.storage.kind == "BFloat16Storage":
            return widened(array)
        return array


def _last_element(tensor: Tensor) -> int:
    """The place of its last element in the storage."""
    return tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides))


def _start_of(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """The offset of an uncompressed entry's first byte; a local header is 30 bytes, a name and an extra field."""
    file.seek(info.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise ValueError(f"{info.filename} has no header")
    name, extra = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + int(name) + int(extra)


def _content(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    """The bytes of an uncompressed entry. Its checksum can be 0: PyTorch writes that where it is not to compute it."""
    file.seek(_start_of(file, info))
    content = _Rest(file).read(info.file_size)
    if len(content) < info.file_size or (info.CRC and zlib.crc32(content) != info.CRC):
        raise ValueError(f"{info.filename} is damaged")
    return content


class _Rest:
    """The rest of a file, as ``pickletools`` reads it: never more than there is.

    A pickle says how many bytes a text or number of it has, and Python allocates that much before it reads.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))

    def readline(self) -> bytes:
        return self._file.readline()

    def tell(self) -> int:
        return self._file.tell()


Constant = Union[None, bool, int, float, str, bytes]
CONSTANTS: dict[str, Constant] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
WITH_VALUE = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT", "BINUNICODE"),
    *("SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING", "STRING", "UNICODE", "BINBYTES"),
    "SHORT_BINBYTES",
}


def _follow(file: BinaryIO | _Rest, storages: dict[str, Storage] | None = None) -> Any:
    """Follows one pickle and returns what it describes; ValueError for anything that a state_dict does not need.

    `storages` takes up every storage that it refers to, by key.
    """
    stack, memo = _Stack(), dict[int, Any]()
    value: Any
    opcodes = pickletools.genops(file)  # type: ignore[arg-type]  # it reads, and asks for the place
    for number, (opcode, value, _) in enumerate(opcodes):
        name = opcode.name
        if number == MOST_OPCODES:
            raise ValueError(f"its pickle has more than {MOST_OPCODES:,} steps")
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in WITH_VALUE:
            stack.append(value)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(value)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(value)])
        elif name == "GLOBAL":
            stack.append(Global(value))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if not (isinstance(attribute, str) and isinstance(module, str)):
                raise ValueError("it names a global by something that is not a text")
            stack.append(Global(f"{module} {attribute}"))
        elif name == "BINPERSID":
            storage = _storage(stack.pop())
            stack.append(storage)
            if storages is not None:
                storages[storage.key] = storage
        else:
            _apply(name, stack)
    raise ValueError("the pickle ends early")


class _Stack(list[Any]):
    """The values of a pickle that are not yet in another one, and where groups of them begin."""

    def __init__(self) -> None:
        super().__init__()
        self._marks: list[int] = []

    def mark(self) -> None:
        self._marks.append(len(self))

    def group(self) -> list[Any]:
        """Takes everything after the last mark off the stack."""
        at = self._marks.pop()
        group = self[at:]
        del self[at:]
        return group


def _apply(name: str, stack: _Stack) -> None:
    """Does what an opcode does to containers, storages and tensors."""
    if name == "MARK":
        stack.mark()
    elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
        stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ("TUPLE", "LIST"):
        group = stack.group()
        stack.append(tuple(group) if name == "TUPLE" else group)
    elif name == "APPEND":
        value = stack.pop()
        stack[-1].append(value)
    elif name == "APPENDS":
        group = stack.group()
        stack[-1].extend(group)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _set(stack[-1], [key, value])
    elif name == "SETITEMS":
        group = stack.group()
        _set(stack[-1], group)
    elif name == "DICT":
        group = stack.group()
        stack.append({})
        _set(stack[-1], group)
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_call(function, arguments))
    elif name == "BUILD":
        stack.pop()  # the attributes of a dictionary, such as the versions of its modules
        if not isinstance(stack[-1], dict):
            raise ValueError("it sets attributes of something that is not a dictionary")
    else:
        raise ValueError(f"it needs the pickle operation {name}")


def _set(target: Any, group: list[Any]) -> None:
    if not isinstance(target, dict):
        raise ValueError("it sets items of something that is not a dictionary")
    for key, value in zip(group[::2], group[1::2]):
        if not isinstance(key, (str, int)):  # hashing a nest of tuples could take forever
            raise ValueError(f"a dictionary has a key of type {type(key).__name__}")
        target[str(key) if isinstance(key, int) else key] = value


def _storage(reference: Any) -> Storage:
    if not (isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage"):
        raise ValueError("it refers to something that is not a storage")
    kind, key, size = reference[1], reference[2], reference[4]
    if not (isinstance(kind, Global) and isinstance(key, (str, int)) and isinstance(size, int)):
        raise ValueError("it refers to a storage in an unknown way")
    found = kind.name.rpartition(" ")[2]
    if found not in STORAGES:
        raise ValueError(f"it has a tensor of {found}")
    return Storage(found, str(key), size)


def _call(function: Any, arguments: Any) -> Any:
    """Returns what the few functions of a state_dict give; ValueError for any other, which is not called."""
    name = function.name if isinstance(function, Global) else type(function).__name__
    if name == ORDERED_DICT and arguments == ():
        return {}
    if name in REBUILD and isinstance(arguments[0], Storage):
        return Tensor(arguments[0], arguments[1], tuple(arguments[2]), tuple(arguments[3]))
    if name == PARAMETER and isinstance(arguments[0], Tensor):
        return arguments[0]
    raise ValueError(f"it calls {name.replace(' ', '.')}, which no file of tensors needs")
