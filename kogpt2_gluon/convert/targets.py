"""One door to all targets of a conversion, and what fits to which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.convert.codes_folder import write_codes_run
from kogpt2_gluon.convert.fine_tuned_folder import CLASSES, convert_fine_tuned
from kogpt2_gluon.convert.gguf_folder import Measure, file_name, write_gguf
from kogpt2_gluon.convert.heads import BODY, SPANS, Body, check_part, has_prompt, heads_of, task_of
from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.convert.onnx_folder import write_onnx
from kogpt2_gluon.convert.original import write_original
from kogpt2_gluon.convert.prompt_folder import write_prompt
from kogpt2_gluon.convert.run_folder import write_run
from kogpt2_gluon.convert.sagemaker_archive import write_sagemaker
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.tokenizer_files import CUTTING
from kogpt2_gluon.errors import RecipeError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Options:
    """Holds what is asked of a conversion besides its target. Each target takes some of them (TAKEN_BY).

    Attributes
    ----------
    with_optimizer : bool
        The optimizer's state too, to go on training.
    dtype : str
        Of the weights.
    max_shard_size : int
        MB of a file; 0: one file.
    bos : bool
        The tokenizer puts <s> in front of a text.
    measure : callable or None
        What a GGUF file is measured with.
    part : str
        Of a fine-tuned network, one of heads.PARTS; "": all of it.
    bits, group_size : int or None
        Of binary codes.
    """

    with_optimizer: bool = False
    dtype: str = "float32"
    max_shard_size: int = 0
    bos: bool = False
    measure: Measure | None = None
    part: str = ""
    bits: int | None = None
    group_size: int | None = None


# heads.check_part says which network and target take a part.
TAKEN_BY = {
    "max_shard_size": ("huggingface",),
    "dtype": ("huggingface", "gguf", "codes"),
    "bits": ("codes",),
    "group_size": ("codes",),
    "bos": ("huggingface", "onnx"),
    "with_optimizer": ("huggingface", "checkpoint"),
}


def convert_to(target: str, source: Source, out: Path, **options: Any) -> str:
    """Writes `source` as folder `out`, or archive for sagemaker; returns a line that says how to use it.

    `options` are fields of Options. RecipeError for one that the target does not have, and for a head that it has no
    place for.
    """
    asked = Options(**options)
    _check(target, asked)
    check_part(source, target, asked.part)
    task = task_of(source)
    if asked.part == BODY and target != "peft" and (task or has_prompt(source)):
        body, left_out = Body(source, task), f"head of its task {task.name}" if task else "prompt"
        return f"{convert_to(target, body, out, **{**options, 'part': ''})}; the {left_out} is left out"
    return WRITERS[target](source, out, asked)


def _check(target: str, asked: Options) -> None:
    """Raises RecipeError for the first option that the target does not take."""
    nothing = Options()
    for name, targets in TAKEN_BY.items():
        if getattr(asked, name) != getattr(nothing, name) and target not in targets:
            option, taken = f"--{name.replace('_', '-')}", " and ".join(", ".join(targets).rsplit(", ", 1))
            raise RecipeError(f"{option} is for --to {taken}, not for {target}")


# ---- what each target writes ----------------------------------------------------------------------------------------


def _huggingface(source: Source, out: Path, asked: Options) -> str:
    size, task = asked.max_shard_size * MEGABYTE, task_of(source)
    if task:
        convert_fine_tuned(source, out, asked.dtype, size, asked.with_optimizer, asked.bos, asked.part)
        loading = CLASSES[(asked.part or heads_of(task)[0]) == SPANS]
        return f"{out}: load it with {loading}; README.md shows how{_cutting(out)}"
    convert_checkpoint(source, out, asked.dtype, size, asked.with_optimizer, asked.bos)
    loading = f"GPT2LMHeadModel.from_pretrained and AutoTokenizer.from_pretrained({str(out)!r})"
    return f"{out}: load it with {loading}{_cutting(out)}"


def _checkpoint(source: Source, out: Path, asked: Options) -> str:
    write_run(source, out, asked.with_optimizer)
    further = f"train {out}/recipe.yaml" if asked.with_optimizer else f"train RECIPE --init-from {out}"
    use = f"predict {out} FILE" if task_of(source) else f"generate {out} PROMPT"
    return f"{out}: go on with kogpt2 {further}, or try kogpt2 {use}"


def _codes(source: Source, out: Path, asked: Options) -> str:
    sizes = write_codes_run(source, out, asked.bits, asked.group_size, asked.dtype)
    return f"{sizes}\n{out}: try kogpt2 generate {out} PROMPT --weights codes, or kogpt2 evaluate {out}"


def _original(source: Source, out: Path, asked: Options) -> str:
    write_original(source, out)
    return f"{out}: its README.md says how KoGPT2 v1 loads it"


def _onnx(source: Source, out: Path, asked: Options) -> str:
    write_onnx(source, out, asked.bos)
    use = "model.onnx generates and logits.onnx scores, with onnxruntime"
    return f"{out}: {use}; README.md shows how{_cutting(out)}"


def _gguf(source: Source, out: Path, asked: Options) -> str:
    write_gguf(source, out, asked.dtype, asked.measure)
    return f"{out}: try llama-completion -m {out / file_name(asked.dtype)} -no-cnv -p PROMPT"


def _sagemaker(source: Source, out: Path, asked: Options) -> str:
    write_sagemaker(source, out)
    return f"{out}: an endpoint of SageMaker takes it; docs/serving.md walks through"


def _peft(source: Source, out: Path, asked: Options) -> str:
    write_prompt(source, out)
    return f"{out}: kogpt2 serve takes it with --prompt NAME={out}, and peft in front of the network (--part body)"


WRITERS: dict[str, Callable[[Source, Path, Options], str]] = {
    "huggingface": _huggingface,
    "checkpoint": _checkpoint,
    "codes": _codes,
    "original": _original,
    "onnx": _onnx,
    "gguf": _gguf,
    "sagemaker": _sagemaker,
    "peft": _peft,
}


def _cutting(out: Path) -> str:
    """Returns what to do with texts for a tokenizer that wants them cut at morphemes, "" for any other."""
    is_cut = (out / CUTTING).is_file()
    return f"; cut texts with its {CUTTING} first, as README.md shows, or they get other ids" if is_cut else ""
