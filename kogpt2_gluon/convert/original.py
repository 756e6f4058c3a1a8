"""KoGPT2 v1's files, as source and as target: a `.params` file of MXNet and a SentencePiece model (`.spiece`).

A checkpoint's names and layout are those of the released weights already, so nothing is renamed or turned. The file
does not say how many attention heads there are, nor the dropout: GPT-2 has heads of 64 units, and so have the released
weights; the dropout is KoGPT-2's, 0.1.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kogpt2_gluon.convert.names import POSITIONS, bytes_of, checked
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import target_folder
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import EMBEDDING
from kogpt2_gluon.storage.params_file import ParamsFile, is_params_file, write_params

Array = NDArray[Any]

HEAD_UNITS = 64
LAYER = re.compile(r"_attn_ln\.(\d+)\.gamma")
PARAMS, SPIECE = "model.params", "tokenizer.spiece"


class OriginalFiles:
    """A `.params` file with the names of KoGPT2 v1. `notes` say what was taken for granted.

    Parameters
    ----------
    path : Path
    tokenizer : Path, optional
        None: the one file `*.spiece` or `*.model` next to it.
    num_heads : int
        0: units / 64.
    """

    def __init__(self, path: Path, tokenizer: Path | None = None, num_heads: int = 0) -> None:
        self.path = self.model_path = path
        self.model_files = [path]
        if not is_params_file(path):
            raise DataError(
                f"{path}: not a .params file of MXNet; PyTorch's weights go into a folder, as pytorch_model.bin with "
                "config.json and a tokenizer"
            )
        self._file = ParamsFile(path)
        self.notes: list[str] = []
        self._recipe = self._make_recipe(num_heads)
        self.tokenizer_path = tokenizer or _tokenizer_beside(path)
        self._arrays = checked(self._file, self._recipe.model, str(path))

    def verify(self, optimizer: bool = True) -> None:
        """Nothing to compare: the file has no hash. Names and shapes are compared with those of the network."""

    def recipe(self) -> Recipe:
        return self._recipe

    def state(self) -> dict[str, Any]:
        return {"step": 0}

    def model_arrays(self) -> Mapping[str, Array]:
        return self._arrays

    def optimizer_arrays(self) -> Mapping[str, Array]:
        return {}

    def _make_recipe(self, num_heads: int) -> Recipe:
        for name in (EMBEDDING, POSITIONS):
            if name not in self._file or self._file[name].ndim != 2:
                raise DataError(f"{self.model_path}: has no matrix {name}, so it is not a KoGPT2 v1")
        num_layers = len([name for name in self._file if LAYER.fullmatch(name)])
        if not num_layers:
            raise DataError(f"{self.model_path}: has no _attn_ln.0.gamma, so it is not a KoGPT2 v1")
        vocab_size, units = self._file[EMBEDDING].shape
        if not num_heads:
            num_heads = units // HEAD_UNITS
            if units % HEAD_UNITS:
                raise RecipeError(
                    f"{self.model_path}: units={units} are no multiple of {HEAD_UNITS}, so --num-heads must be given"
                )
            heads = f"{num_heads} attention heads of {HEAD_UNITS} units each"
            self.notes.append(f"note: {heads}, as GPT-2 has them; --num-heads takes another number")
        model = {
            "units": units,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "max_length": self._file[POSITIONS].shape[0],
            "vocab_size": vocab_size,
        }
        plain = {"name": self.model_path.stem, "model": model, "data": {"seq_length": model["max_length"]}}
        return parse_recipe(plain, source=str(self.model_path))


def _tokenizer_beside(path: Path) -> Path:
    found = sorted(each for each in path.absolute().parent.iterdir() if each.suffix in (".spiece", ".model"))
    if len(found) != 1:
        listed = ", ".join(each.name for each in found) or "none"
        raise RecipeError(f"{path}: give its tokenizer with --tokenizer (next to it: {listed})")
    return found[0]


def write_original(source: Source, out: Path) -> None:
    """Writes folder `out` with the two files, and the lines of Python that load them with KoGPT2 v1's own class.

    RecipeError if the tokenizer is no SentencePiece model, which KoGPT2 v1 needs.
    """
    source.verify(optimizer=False)
    model = source.recipe().model
    if source.tokenizer_path.suffix == ".json":
        raise RecipeError(f"{source.tokenizer_path}: KoGPT2 v1 needs a SentencePiece model; convert to another kind")
    if model.activation != "gelu":
        raise RecipeError(
            f"{source.model_path}: model.activation={model.activation}; KoGPT2 v1 has the erf form of GELU"
        )
    arrays = checked(source.model_arrays(), model, str(source.model_path))
    with target_folder(out, bytes_of(model) + 4 * model.vocab_size * model.units) as folder:
        write_params(folder / PARAMS, arrays)
        shutil.copyfile(source.tokenizer_path, folder / SPIECE)
        (folder / "README.md").write_text(_how_to_load(model), encoding="utf-8")


def _how_to_load(model: ModelRecipe) -> str:
    return f"""# A network in the files of KoGPT2 v1

`{PARAMS}` has the names and the layout of the released weights, `{SPIECE}` is its SentencePiece model. With the class
`GPT2Model` of KoGPT2 v1 (kogpt2/model/gpt.py), under MXNet and GluonNLP 0.x:

```python
import gluonnlp as nlp
net = GPT2Model(units={model.units}, vocab_size={model.vocab_size}, max_length={model.max_length},
                num_layers={model.num_layers}, num_heads={model.num_heads}, dropout={model.dropout:g})
net.load_parameters("{PARAMS}")
tokenizer = nlp.data.SentencepieceTokenizer("{SPIECE}", num_best=-1, alpha=0)
vocab = nlp.vocab.BERTVocab.from_sentencepiece("{SPIECE}", mask_token=None, sep_token=None, cls_token=None,
                                               unknown_token="<unk>", padding_token="<pad>",
                                               bos_token="<s>", eos_token="</s>")
```
"""
