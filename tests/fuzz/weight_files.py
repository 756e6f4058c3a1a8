"""Targets: files of weights, of MXNet, safetensors and PyTorch, and the config.json next to them."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.binary_codes import PackedCodes
from kogpt2_gluon.convert.names import parameters_of
from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import EMBEDDING, TIED_COPY
from kogpt2_gluon.storage.codes_file import CodedArrays, CodesFile, write_codes
from kogpt2_gluon.storage.params_file import ParamsFile, write_params
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile, write_safetensors
from kogpt2_gluon.storage.torch_file import OLD_MAGIC, TorchFile
from tests.fuzz.mutate import dump, mutate_bytes, mutate_json, mutate_plain
from tests.fuzz.target import Target

ARRAYS = {"_embed.weight": np.ones((5, 3), "float32"), "b": np.arange(4, dtype="int8"), "c": np.zeros((1, 2, 1), "f2")}


def read_all(arrays: Mapping[str, Any]) -> None:
    """Reads the first arrays of a file whose structure was understood."""
    for _, name in zip(range(4), arrays):
        arrays[name].sum()


def params_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for arrays in (ARRAYS, {"a": np.ones((2, 2), "float64")}, {}):
        file = io.BytesIO()
        write_params(file, arrays)
        seeds.append(file.getvalue())
    oldest = struct.pack("<QQQ IIii i4f", 0x112, 0, 1, 1, 4, 1, 0, 0, 1.0, 2.0, 3.0, 4.0)
    v1 = struct.pack("<QQQ Iiqii i2f", 0x112, 0, 1, 0xF993FAC8, 1, 2, 1, 0, 0, 1.0, 2.0)
    return [*seeds, *(each + struct.pack("<QQ1s", 1, 1, b"w") for each in (oldest, v1))]


def safetensors_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for dtype in ("F32", "F16", "BF16"):
        path = folder / f"{dtype}.safetensors"
        arrays = {"a": np.ones((3, 2), "float32"), "b": np.zeros(4, "float32")}
        write_safetensors(path, arrays, {name: array.shape for name, array in arrays.items()}, dtype)
        seeds.append(path.read_bytes())
    return seeds


def codes_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for bits, rest in ((3, "float32"), (1, "bfloat16")):
        planes, scales = np.ones((bits, 2, 2), "uint8"), np.ones((bits, 2, 3), "float32")
        arrays = {"m": np.ones((2, 9), "float32"), "b": np.ones(3, "float32")}
        file = io.BytesIO()
        write_codes(file, CodedArrays(arrays, {"m": PackedCodes(scales, planes, 9)}, rest))
        seeds.append(file.getvalue())
    return seeds


def mutate_safetensors(draw: random.Random, data: bytes) -> bytes:
    """Changes the header by its structure and gives it its right length; sometimes any byte."""
    length = int.from_bytes(data[:8], "little")
    if draw.randrange(4) == 0 or length > len(data):
        return mutate_bytes(draw, data)
    header = mutate_json(draw, data[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


# ---- PyTorch's files, made without PyTorch: a pickle of a state_dict, opcode by opcode


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _tensor(key: str, shape: tuple[int, ...], kind: str = "FloatStorage") -> bytes:
    size = int(np.prod(shape))
    strides = [int(np.prod(shape[place + 1 :])) for place in range(len(shape))]
    storage = b"(" + _text("storage") + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu") + _number(size) + b"tQ"
    tuples = [b"(" + b"".join(map(_number, each)) + b"t" for each in (shape, strides)]
    last = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _number(0) + tuples[0] + tuples[1] + last + b"tR"


def state_dict(**tensors: bytes) -> bytes:
    items = b"".join(_text(name) + tensor for name, tensor in tensors.items())
    return b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(" + items + b"u}" + _text("_metadata") + b"}sb."


def zipped(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return file.getvalue()


def torch_seeds(folder: Path) -> list[bytes]:
    pickled = state_dict(a=_tensor("0", (3, 2)), b=_tensor("1", (4,), "BFloat16Storage"), n=_number(3))
    numbers = {"data/0": np.ones(6, "<f4").tobytes(), "data/1": bytes(8)}
    return [
        zipped({"data.pkl": pickled, **numbers, "version": b"3\n"}),
        zipped({"data.pkl": pickled, "byteorder": b"little", **numbers}),
    ]


def old_torch_seeds(folder: Path) -> list[bytes]:
    head = [pickle.dumps(each, 2) for each in (OLD_MAGIC, 1001, {"protocol_version": 1001, "little_endian": True})]
    pickled = state_dict(a=_tensor("7", (2, 2)), w=_tensor("8", (3,), "HalfStorage"))
    keys = pickle.dumps(["7", "8"], 2)
    storages = struct.pack("<q4f", 4, 1, 2, 3, 4) + struct.pack("<q", 3) + bytes(6)
    return [b"".join([*head, pickled, keys, storages])]


OPCODES = [b"(", b")", b".", b"0", b"1", b"2", b"N", b"R", b"b", b"s", b"u", b"t", b"l", b"a", b"e", b"}", b"]", b"Q"]
OPCODES += [b"q\x00", b"h\x00", b"\x85", b"\x86", b"\x87", b"\x88", b"\x94", b"\x93", b"K\x01", b"M\xff\xff"]
OPCODES += [
    b"cos\nsystem\n",
    b"X\x01\x00\x00\x00a",
    b"\x8a\x01\x7f",
    b"I99999999999999999999\n",
    b"\x8b\xff\xff\xff\x7f",
]
OPCODES += [
    b"\x8e" + b"\xff" * 7 + b"\x7f",
    b"B\xff\xff\xff\x7f",
    b"G\x7f\xf8" + bytes(6),
    b"i",
    b"o",
    b"p0\n",
    b"g0\n",
]


def mutate_pickle(draw: random.Random, data: bytes) -> bytes:
    """Puts opcodes of pickles into data, or in the place of others; sometimes changes any byte."""
    if draw.randrange(3) == 0:
        return mutate_bytes(draw, data)
    new = bytearray(data)
    for _ in range(1 << draw.randrange(3)):
        at = draw.randrange(len(new) + 1)
        opcode = draw.choice(OPCODES) * draw.choice((1, 1, 1, 3, 40))
        new[at : at + draw.choice((0, len(opcode)))] = opcode
    return bytes(new)


def mutate_torch(draw: random.Random, data: bytes) -> bytes:
    """Changes the pickle or another member of the archive, which keeps right checksums; sometimes the archive."""
    if draw.randrange(3) == 0:
        return mutate_bytes(draw, data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    except Exception:  # what it was made of is damaged already, in whatever way
        return mutate_bytes(draw, data)
    name = draw.choice(("data.pkl", "data.pkl", *members))
    if name in members:
        members[name] = mutate_pickle(draw, members[name])
    if draw.randrange(20) == 0:
        members[draw.choice(("../x", "data/2", "byteorder", "data/../0"))] = members.pop(name, b"")
    return zipped(members)


# ---- whole networks, of one layer and two units

MODEL = ModelRecipe(units=2, num_layers=1, num_heads=1, max_length=2, vocab_size=5)


def network_seeds(folder: Path) -> list[bytes]:
    arrays = {each.name: np.ones(each.shape, "float32") for each in parameters_of(MODEL)}
    arrays[TIED_COPY] = arrays[EMBEDDING]
    file = io.BytesIO()
    write_params(file, arrays)
    return [file.getvalue()]


def read_original(path: Path) -> None:
    source, _ = open_source(path, path.parent / "tokenizer.model", 1)
    read_all(source.model_arrays())


def read_folder(path: Path) -> None:
    source, _ = open_source(path.parent)
    read_all(source.model_arrays())


def config_seeds(folder: Path) -> list[bytes]:
    config = {"model_type": "gpt2", "n_embd": 2, "n_layer": 1, "n_head": 1, "n_positions": 2, "vocab_size": 5}
    config.update(activation_function="gelu", resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.2, n_inner=None)
    return [dump(config), dump({"model_type": "gpt2", "n_layer": 1})]


def write_weights(path: Path, names: Iterable[str]) -> None:
    shapes = {each.in_transformers: each.transformers_shape for each in parameters_of(MODEL)}
    shapes = {name: shapes[name] for name in names}
    write_safetensors(path, {name: np.ones(shape, "float32") for name, shape in shapes.items()}, shapes)


def place_weights(path: Path, data: bytes) -> None:
    if not (path.parent / "model.safetensors").exists():
        write_weights(path.parent / "model.safetensors", [each.in_transformers for each in parameters_of(MODEL)])


def index_seeds(folder: Path) -> list[bytes]:
    names = [each.in_transformers for each in parameters_of(MODEL)]
    listed = {name: f"{'ab'[number % 2]}.safetensors" for number, name in enumerate(names)}
    return [dump({"metadata": {"total_size": 80}, "weight_map": listed})]


def place_index(path: Path, data: bytes) -> None:
    if not (path.parent / "config.json").exists():
        names = [each.in_transformers for each in parameters_of(MODEL)]
        for start, name in enumerate(("a.safetensors", "b.safetensors")):
            write_weights(path.parent / name, names[start::2])
        (path.parent / "config.json").write_bytes(config_seeds(path.parent)[0])


def plain_config(draw: random.Random, data: bytes) -> bytes:
    """Changes a config.json, but leaves the kind of network where no other key was changed."""
    try:
        plain = mutate_plain(draw, json.loads(data))
    except (ValueError, RecursionError):
        return mutate_bytes(draw, data)
    if isinstance(plain, dict) and draw.randrange(4):
        plain["model_type"] = "gpt2"
    return dump(plain)


TARGETS = [
    Target("mxnet-params", "model.params", params_seeds, lambda path: read_all(ParamsFile(path)), share=40),
    Target(
        "safetensors",
        "model.safetensors",
        safetensors_seeds,
        lambda path: read_all(SafetensorsFile(path)),
        mutate_safetensors,
        share=40,
    ),
    Target("codes", "model.codes", codes_seeds, lambda path: read_all(CodesFile(path)), mutate_safetensors, share=20),
    Target(
        "torch-zip", "pytorch_model.bin", torch_seeds, lambda path: read_all(TorchFile(path)), mutate_torch, share=20
    ),
    Target("torch-old", "old.bin", old_torch_seeds, lambda path: read_all(TorchFile(path)), mutate_pickle, share=20),
    Target("kogpt2-v1", "kogpt2.params", network_seeds, read_original, share=20),
    Target("config-json", "config.json", config_seeds, read_folder, plain_config, place_weights),
    Target("weights-index", "model.safetensors.index.json", index_seeds, read_folder, mutate_json, place_index),
]
