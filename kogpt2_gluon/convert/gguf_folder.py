"""A checkpoint as a folder for llama.cpp and what builds on it: a GGUF file of weights and tokenizer, and a card.

llama.cpp computes GPT-2 with the tanh form of GELU, and no key of the file asks for another. What that costs is
measured by the caller (:class:`Cost`), and the card says it. Neither MXNet nor torch nor a GPU is needed; the package
`gguf` is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.convert.gguf_vocabulary import GgufVocabulary, gguf_vocabulary
from kogpt2_gluon.convert.huggingface import check_tokenizer
from kogpt2_gluon.convert.model_card import card_sections, card_title, special_tokens
from kogpt2_gluon.convert.names import POSITIONS, Parameter, bytes_of, checked, parameters_of
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import refuse_occupied, target_folder
from kogpt2_gluon.convert.tokenizer_files import TokenizerFiles, read_tokenizer
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import EMBEDDING
from kogpt2_gluon.storage.safetensors_file import DTYPES as ARRAY_DTYPES
from kogpt2_gluon.storage.safetensors_file import rounded

Array = npt.NDArray[Any]

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # the recipe's word: GGUF's
OUTPUT = "output.weight"
NOTEWORTHY = 0.005  # of the bits per byte
IN_GGUF = {  # transformers' name without "transformer." and the layer: GGUF's
    **{"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm"},
    **{"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
}


class Cost(NamedTuple):
    """The cost of computing a network in llama.cpp's way, measured on Korean text.

    Attributes
    ----------
    tokens : int
        Of the text.
    log_prob : float
        Largest difference in the natural logarithm of a token's probability.
    bits_per_byte, change : float
        Of the network as it was trained; its relative change.
    """

    tokens: int
    log_prob: float
    bits_per_byte: float
    change: float

    def __str__(self) -> str:
        return (
            f"in llama.cpp the log-probabilities of {self.tokens} tokens of Korean text change by up to "
            f"{self.log_prob:.2g}, and bits per byte ({self.bits_per_byte:.4g}) by {self.change:+.2%}"
        )

    @property
    def noteworthy(self) -> bool:
        return abs(self.change) > NOTEWORTHY


Measure = Callable[[Source], Cost]


def file_name(dtype: str) -> str:
    """Returns the name of the GGUF file; llama.cpp's users expect its type at the end."""
    return f"model-{DTYPES[dtype]}.gguf"


def write_gguf(source: Source, out: Path, dtype: str = "float32", measure: Measure | None = None) -> None:
    """Verifies a source and writes it as folder `out`, which appears complete or not at all.

    Parameters
    ----------
    source : Source
    out : Path
    dtype : str
        Of the matrices: float32, or float16 or bfloat16, to which they are rounded. Vectors and positions stay float32.
    measure : function, optional
        Returns the cost for the card; without it the card says that it was not measured.

    Raises RecipeError if `out` exists and is not an empty folder, if the tokenizer is a tokenizer.json or the package
    `gguf` is missing; DataError naming the array, piece or file that cannot be converted.
    """
    _require_gguf()
    refuse_occupied(out)
    source.verify(optimizer=False)
    recipe, state = source.recipe(), source.state()
    vocabulary = gguf_vocabulary(source.tokenizer_path)
    tokenizer = read_tokenizer(source.tokenizer_path)
    check_tokenizer(tokenizer, recipe.model)
    arrays = checked(source.model_arrays(), recipe.model, str(source.model_path))
    cost = measure(source) if measure else None
    twice = bool(vocabulary.added)  # the embedding and the output differ in the rows of the added tokens
    rows = (1 + twice) * len(vocabulary.tokens) * recipe.model.units
    needed = bytes_of(recipe.model, ARRAY_DTYPES[DTYPES[dtype]].itemsize) + 4 * rows
    with target_folder(out, needed) as folder:
        _write_file(folder / file_name(dtype), recipe, vocabulary, tokenizer, arrays, DTYPES[dtype])
        card = _card(recipe, state, tokenizer, vocabulary, dtype, cost)
        (folder / "README.md").write_text(card, encoding="utf-8")


def _require_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        reason = str(error).strip().split("\n")[0]
        raise RecipeError(f"--to gguf needs the package gguf ({reason}): pip install 'kogpt2-gluon[convert]'") from None


def _write_file(
    path: Path,
    recipe: Recipe,
    vocabulary: GgufVocabulary,
    tokenizer: TokenizerFiles,
    arrays: Mapping[str, Array],
    dtype: str,
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

    model = recipe.model
    writer = GGUFWriter(path, "gpt2")
    writer.add_name(recipe.name)
    writer.add_languages(["ko"])
    writer.add_file_type(LlamaFileType["ALL_F32" if dtype == "F32" else f"MOSTLY_{dtype}"])
    writer.add_context_length(model.max_length)
    writer.add_embedding_length(model.units)
    writer.add_feed_forward_length(4 * model.units)
    writer.add_block_count(model.num_layers)
    writer.add_head_count(model.num_heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    for name in ("bos", "eos", "unk", "pad"):
        if f"{name}_token" in tokenizer.special_tokens:
            getattr(writer, f"add_{name}_token_id")(tokenizer.ids[tokenizer.special_tokens[f"{name}_token"]])
    writer.add_add_bos_token(True)  # it begins a document
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(vocabulary.space_in_front)
    tensors = list(_tensors(model, vocabulary))
    for tensor in tensors:
        kind = tensor.dtype(dtype)
        size = math.prod(tensor.shape) * ARRAY_DTYPES[kind].itemsize
        writer.add_tensor_info(tensor.name, tensor.shape, ARRAY_DTYPES[kind], size, GGMLQuantizationType[kind])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout
        file = writer.fout[0]
        for tensor in tensors:
            array = tensor.made_of(arrays[tensor.source])
            assert array.shape == tensor.shape, (tensor.name, array.shape, tensor.shape)
            data = np.ascontiguousarray(rounded(array, tensor.dtype(dtype), tensor.name))
            # Not by writer.write_tensor_data: ndarray.tofile does not say that the disk is full.
            writer.write_padding(file, file.tell())
            file.write(data.reshape(-1).view(np.uint8).data)
            writer.write_padding(file, data.nbytes)
    finally:
        writer.close()


class _Tensor(NamedTuple):
    """A tensor of the file: its name and shape, the parameter it comes from, and rows of that to take."""

    name: str
    source: str
    shape: tuple[int, ...]
    rows: list[int] | None = None

    def dtype(self, of_matrices: str) -> str:
        """Returns the type in the file: llama.cpp wants vectors and positions in float32."""
        return "F32" if len(self.shape) == 1 or self.source == POSITIONS else of_matrices

    def made_of(self, array: Array) -> Array:
        return array if self.rows is None else array[self.rows]


def _tensors(model: ModelRecipe, vocabulary: GgufVocabulary) -> Iterator[_Tensor]:
    """Yields all tensors. Rows of the embedding without a piece are left out."""
    pieces, size = list(range(vocabulary.pieces)), (len(vocabulary.tokens), model.units)
    for parameter in parameters_of(model):
        name = _in_gguf(parameter)
        if parameter.name != EMBEDDING:
            yield _Tensor(name, parameter.name, parameter.shape)
            continue
        yield _Tensor(name, EMBEDDING, size, pieces + [vocabulary.read_as] * vocabulary.added)
        if vocabulary.added:  # else llama.cpp takes the embedding for the output too
            yield _Tensor(OUTPUT, EMBEDDING, size, pieces + [vocabulary.rated_as] * vocabulary.added)


def _in_gguf(parameter: Parameter) -> str:
    _, *place, kind = parameter.in_transformers.split(".")
    if place[0] == "h":
        return f"blk.{place[1]}.{IN_GGUF['.'.join(place[2:])]}.{kind}"
    return f"{IN_GGUF[place[0]]}.{kind}"


def _card(
    recipe: Recipe,
    state: dict[str, Any],
    tokenizer: TokenizerFiles,
    vocabulary: GgufVocabulary,
    dtype: str,
    cost: Cost | None,
) -> str:
    model, name = recipe.model, file_name(dtype)
    first = f"**Not as trained: {cost}.**\n\n" if cost and cost.noteworthy else ""
    return f"""---
language: ko
library_name: gguf
pipeline_tag: text-generation
tags: [gpt2, korean, llama.cpp]
---

{first}{card_title(recipe, state, dtype)}
```
llama-completion -m {name} -no-cnv -n {min(40, model.max_length // 2)} -p "오늘은 날씨가"
```

- {_activation_line(model, cost)}

{card_sections(recipe, state, tokenizer, _tokenizer_lines(vocabulary, tokenizer))}"""


def _tokenizer_lines(vocabulary: GgufVocabulary, tokenizer: TokenizerFiles) -> str:
    """Returns the lines of the card that say which ids a text gets in llama.cpp."""
    unknown, never = (vocabulary.tokens[row] for row in (vocabulary.read_as, vocabulary.rated_as))
    lines = f"""\
- SentencePiece BPE, {vocabulary.pieces:,} pieces. {special_tokens(tokenizer)}
- The ids are SentencePiece's for a text in NFKC with single spaces and no line ends: llama.cpp does not normalise.
  In Python: `" ".join(unicodedata.normalize("NFKC", text).split())`.
- llama.cpp puts `{tokenizer.special_tokens["bos_token"]}` in front of a prompt by itself. Its server and its programs
  look for special tokens in a prompt.
"""
    if vocabulary.added:
        lines += f"""\
- A character that has no piece becomes one token for each of its bytes, where SentencePiece gives one `{unknown}` for
  all such characters in a row. These {vocabulary.added} tokens are read as `{unknown}`, and have the output of
  `{never}`: if training never has that, none of them is generated.
"""
    if vocabulary.symbols:
        lines += f"""\
- A user-defined piece, such as `{vocabulary.symbols[0]}`, in a text: llama.cpp puts a space after it, and none before.
"""
    if vocabulary.spelled:
        lines += f"""\
- Written out in a text, {", ".join(f"`{token}`" for token in vocabulary.spelled)} can become the special token.
"""
    return lines


def _activation_line(model: ModelRecipe, cost: Cost | None) -> str:
    form = (
        "llama.cpp computes GPT-2 with the tanh form of GELU, which this network has."
        if model.activation == "gelu_tanh"
        else "llama.cpp computes GPT-2 with the tanh form of GELU, and this network has the erf form."
    )
    measured = f"Measured:\n  {cost}." if cost else "What that costs was\n  not measured: MXNet was not installed."
    return f"{form} {measured}"
