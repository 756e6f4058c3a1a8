"""One door to all targets of a conversion, and what fits to which."""

from __future__ import annotations

from pathlib import Path

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


def convert_to(
    target: str,
    source: Source,
    out: Path,
    with_optimizer: bool = False,
    dtype: str = "float32",
    max_shard_size: int = 0,
    bos: bool = False,
    measure: Measure | None = None,
    part: str = "",
    bits: int | None = None,
    group_size: int | None = None,
) -> str:
    """Writes `source` as folder `out`, or archive for sagemaker; returns a line that says how to use it.

    `max_shard_size` is in MB; `measure` is for a GGUF file; `part` is of a fine-tuned network, one of heads.PARTS;
    `bits` and `group_size` are for codes.
    RecipeError for an option that the target does not have, and for a head that it has no place for.
    """
    if max_shard_size and target != "huggingface":
        raise RecipeError(f"--max-shard-size is for --to huggingface, not for {target}")
    if dtype != "float32" and target not in ("huggingface", "gguf", "codes"):
        raise RecipeError(f"--dtype is for --to huggingface, gguf and codes, not for {target}")
    if (bits is not None or group_size is not None) and target != "codes":
        raise RecipeError(f"--bits and --group-size are for --to codes, not for {target}")
    if bos and target not in ("huggingface", "onnx"):
        raise RecipeError(f"--bos is for --to huggingface and onnx, not for {target}")
    if target in ("original", "onnx", "gguf", "sagemaker", "codes", "peft") and with_optimizer:
        raise RecipeError(f"--with-optimizer: {target} has no file for it; convert to huggingface or checkpoint")
    check_part(source, target, part)
    if target == "peft":
        write_prompt(source, out)
        return f"{out}: kogpt2 serve takes it with --prompt NAME={out}, and peft in front of the network (--part body)"
    task = task_of(source)
    if part == BODY and (task or has_prompt(source)):
        body, left_out = Body(source, task), f"head of its task {task.name}" if task else "prompt"
        done = convert_to(target, body, out, with_optimizer, dtype, max_shard_size, bos, measure, "", bits, group_size)
        return f"{done}; the {left_out} is left out"
    if task and target == "huggingface":
        convert_fine_tuned(source, out, dtype, max_shard_size * MEGABYTE, with_optimizer, bos, part)
        loading = CLASSES[(part or heads_of(task)[0]) == SPANS]
        return f"{out}: load it with {loading}; README.md shows how{_cutting(out)}"
    if target == "checkpoint":
        write_run(source, out, with_optimizer)
        further = f"train {out}/recipe.yaml" if with_optimizer else f"train RECIPE --init-from {out}"
        use = f"predict {out} FILE" if task else f"generate {out} PROMPT"
        return f"{out}: go on with kogpt2 {further}, or try kogpt2 {use}"
    if target == "codes":
        sizes = write_codes_run(source, out, bits, group_size, dtype)
        return f"{sizes}\n{out}: try kogpt2 generate {out} PROMPT --weights codes, or kogpt2 evaluate {out}"
    if target == "onnx":
        write_onnx(source, out, bos)
        use = "model.onnx generates and logits.onnx scores, with onnxruntime"
        return f"{out}: {use}; README.md shows how{_cutting(out)}"
    if target == "gguf":
        write_gguf(source, out, dtype, measure)
        return f"{out}: try llama-completion -m {out / file_name(dtype)} -no-cnv -p PROMPT"
    if target == "sagemaker":
        write_sagemaker(source, out)
        return f"{out}: an endpoint of SageMaker takes it; docs/serving.md walks through"
    if target == "original":
        write_original(source, out)
        return f"{out}: its README.md says how KoGPT2 v1 loads it"
    convert_checkpoint(source, out, dtype, max_shard_size * MEGABYTE, with_optimizer, bos)
    loading = f"GPT2LMHeadModel.from_pretrained and AutoTokenizer.from_pretrained({str(out)!r})"
    return f"{out}: load it with {loading}{_cutting(out)}"


def _cutting(out: Path) -> str:
    """Returns what to do with texts for a tokenizer that wants them cut at morphemes, "" for any other."""
    is_cut = (out / CUTTING).is_file()
    return f"; cut texts with its {CUTTING} first, as README.md shows, or they get other ids" if is_cut else ""
