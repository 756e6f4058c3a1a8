"""A transformers folder of a GPT-2 as the source of a conversion: config.json, weights and a tokenizer.

The weights are `.safetensors` files or PyTorch's older `.bin` files, one or several with an index; neither PyTorch nor
transformers is needed, and nothing in a file is run. What is no parameter of the network is left out and named: the
causal masks that old versions saved (`attn.bias`, `attn.masked_bias`), and heads of other tasks. float16 and bfloat16
become float32, which holds them exactly. A config that asks for another computation than this network's is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.convert.names import from_transformers, parameters_of
from kogpt2_gluon.convert.optimizer import RECIPE, STATE, read_optimizer
from kogpt2_gluon.convert.tokenizer_files import SPIECE
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import Recipe, load_recipe, parse_recipe
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.storage.links import file_in, read_file
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile
from kogpt2_gluon.storage.tokenizer_file import TOKENIZER_JSON
from kogpt2_gluon.storage.torch_file import TorchFile

Array = NDArray[Any]

CONFIG = "config.json"
PREFIX, HEAD, EMBEDDING = "transformer.", "lm_head.weight", "transformer.wte.weight"
MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
# What this network computes; a key that a config lacks has transformers' own default.
COMPUTES: dict[str, tuple[Any, Any]] = {  # key: (transformers' default, what is needed)
    "layer_norm_epsilon": (1e-5, 1e-5),
    "scale_attn_weights": (True, True),
    "scale_attn_by_inverse_layer_idx": (False, False),
    "add_cross_attention": (False, False),
}
# transformers' names of the two forms of GELU; the last two compute what gelu_new does.
ACTIVATIONS = {"gelu": "gelu", **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), "gelu_tanh")}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


class TransformersFolder:
    """A folder that ``GPT2LMHeadModel.from_pretrained`` loads. `notes` say what was left out or taken for granted.

    RecipeError if it is another network; DataError, naming the file, if it is damaged or incomplete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._config = _read_json(path / CONFIG)
        self._recipe = self._make_recipe()
        self._files = _Weights(path)
        self._arrays = self._renamed()

    def verify(self, optimizer: bool = True) -> None:
        """Nothing to compare: such a folder has no hashes. Names and shapes are compared with config.json."""

    def recipe(self) -> Recipe:
        return self._recipe

    def state(self) -> dict[str, Any]:
        path = self.path / STATE
        return _read_json(path) if path.is_file() else {"step": 0}

    def model_arrays(self) -> Mapping[str, Array]:
        return self._arrays

    def optimizer_arrays(self) -> Mapping[str, Array]:
        return read_optimizer(self.path, self._recipe.model)

    @property
    def model_path(self) -> Path:
        return self._files.first

    @property
    def model_files(self) -> list[Path]:
        return self._files.paths

    @property
    def tokenizer_path(self) -> Path:
        for name in (SPIECE, TOKENIZER_JSON):
            if (self.path / name).is_file():
                return self.path / name
        raise DataError(f"{self.path}: no {SPIECE} and no {TOKENIZER_JSON}, so its tokenizer is not known")

    # ---- config.json -------------------------------------------------------------------------------------------------

    def _make_recipe(self) -> Recipe:
        config = self._config
        if config.get("model_type") != "gpt2":
            raise RecipeError(
                f"{self.path / CONFIG}: model_type is {config.get('model_type')!r}; only gpt2 is converted"
            )
        for key, (default, needed) in COMPUTES.items():
            if (found := config.get(key, default)) != needed:
                raise RecipeError(f"{self.path / CONFIG}: {key} is {found!r}; this network has {needed!r}")
        units = self._number("n_embd", 768)
        if (inner := config.get("n_inner")) not in (None, 4 * units):
            raise RecipeError(f"{self.path / CONFIG}: n_inner is {inner!r}; this network has 4 x n_embd = {4 * units}")
        model = {
            "units": units,
            "num_layers": self._number("n_layer", 12),
            "num_heads": self._number("n_head", 12),
            "max_length": self._number("n_positions", 1024),
            "vocab_size": self._number("vocab_size", 50257),
            "dropout": self._dropout(),
            "activation": self._activation(),
        }
        if (self.path / RECIPE).is_file():  # written by a conversion with the optimizer's state
            recipe = load_recipe(str(self.path / RECIPE))
            differ = [key for key, value in model.items() if recipe.to_dict()["model"][key] != value]
            if differ:
                raise DataError(f"{self.path / RECIPE}: its model.{differ[0]} is not that of {CONFIG}")
            return recipe
        plain = {"name": self.path.resolve().name, "model": model, "data": {"seq_length": model["max_length"]}}
        return parse_recipe(plain, source=str(self.path / CONFIG))

    def _number(self, key: str, default: int) -> int:
        value = self._config.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(f"{self.path / CONFIG}: {key} is {value!r}, not a number")
        return value

    def _activation(self) -> str:
        found = self._config.get("activation_function", "gelu_new")
        if not isinstance(found, str) or found not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise RecipeError(f"{self.path / CONFIG}: activation_function is {found!r}; this network has {known}")
        return ACTIVATIONS[found]

    def _dropout(self) -> float:
        rates = {key: self._config.get(key, 0.1) for key in DROPOUTS}
        for key, value in rates.items():
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise DataError(f"{self.path / CONFIG}: {key} is {value!r}, not a number")
        if len(set(rates.values())) > 1:
            listed = ", ".join(f"{key} {rate}" for key, rate in rates.items())
            self.notes.append(f"note: {CONFIG} has {listed}; this network has one dropout, {rates['resid_pdrop']}")
        rate: float = rates["resid_pdrop"]
        return rate

    # ---- the weights -------------------------------------------------------------------------------------------------

    def _renamed(self) -> Mapping[str, Array]:
        expected = {each.in_transformers for each in parameters_of(self._recipe.model)}
        files = self._files
        heads = sorted(files.keys() - expected - {HEAD} - {name for name in files if MASKS.fullmatch(name)})
        more_layers = [name for name in heads if re.match(r"transformer\.h\.\d+\.", name)]
        if more_layers:
            raise DataError(f"{files.first}: {more_layers[0]} is not in the network of {CONFIG}")
        if heads:
            more = f" and {len(heads) - 1} more" if len(heads) > 1 else ""
            self.notes.append(f"note: {heads[0]}{more} left out: not a parameter of the language model")
        if HEAD in files and not np.array_equal(files[HEAD], files.get(EMBEDDING, ())):
            raise RecipeError(
                f"{files.first}: {HEAD} differs from {EMBEDDING}; this network uses one matrix for both (tied)"
            )
        return from_transformers(files.only(expected), self._recipe.model, str(files.first))


class _Weights(LazyArrays[tuple[Mapping[str, Array], str]]):
    """The arrays of all weight files of a folder, under GPT2LMHeadModel's names."""

    def __init__(self, folder: Path) -> None:
        files: dict[str, tuple[Mapping[str, Array], str]] = {}  # name -> (its file, the name there)
        self.paths = _weight_files(folder)
        self.first = self.paths[0]  # for messages
        for path in self.paths:
            opened = SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)
            for name in opened:
                full = name if name.startswith((PREFIX, "lm_head.")) or not _of_body(name) else PREFIX + name
                if full in files:
                    raise DataError(f"{path}: {name} comes twice in the weights of {folder}")
                files[full] = opened, name
        super().__init__(files)

    def __getitem__(self, name: str) -> Array:
        file, there = self._places[name]
        return file[there]

    def only(self, names: set[str]) -> Mapping[str, Array]:
        """Returns those of these names that are there."""
        kept = copy(self)
        kept._places = {name: place for name, place in self._places.items() if name in names}
        return kept


def _of_body(name: str) -> bool:
    """True for a parameter of GPT2Model, which is saved without the prefix `transformer.`."""
    return name.startswith(("wte.", "wpe.", "h.", "ln_f."))


def _weight_files(folder: Path) -> list[Path]:
    """Returns the weight files: safetensors before PyTorch's, as transformers prefers them."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            listed = _read_json(index).get("weight_map")
            if not isinstance(listed, dict) or not listed:
                raise DataError(f"{index}: lists no weights")
            names = sorted({str(each) for each in listed.values()})
            for each in names:
                if file_in(folder, each) is None:
                    raise DataError(f"{index}: {each} is not a file of the folder")
            return [folder / each for each in names]
    raise DataError(f"{folder}: no model.safetensors and no pytorch_model.bin there, so there are no weights")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_file(path).decode())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON, or damaged") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a JSON object")
    return content
