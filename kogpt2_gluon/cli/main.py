"""The command `kogpt2`: one verb for each stage of the road from text to a converted model.

Every verb is thin: it parses, calls the stage's function, prints. Modules are imported inside the verbs, so that
`kogpt2 --help` loads neither MXNet nor anything else that is slow.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from kogpt2_gluon import __version__
from kogpt2_gluon.cli.clean import clean
from kogpt2_gluon.cli.files import files
from kogpt2_gluon.cli.ops import ops
from kogpt2_gluon.cli.profile import profile
from kogpt2_gluon.cli.progress_bar import progress_bar
from kogpt2_gluon.cli.tokenizer import tokenizer
from kogpt2_gluon.cli.verify import verify
from kogpt2_gluon.errors import KoGPT2Error

FOLDER = click.Path(file_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)


class Group(click.Group):
    """Verbs in the order of the road, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of definition."""
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kogpt2")
def cli() -> None:
    """Train KoGPT-2 again: text, tokenizer, shards, training, evaluation, conversion.

    \b
    The whole road in five lines:
      kogpt2 clean news.txt --documents line --out corpus
      kogpt2 tokenizer corpus --vocab-size 50000 --out tokenizer.model
      kogpt2 shard corpus --tokenizer tokenizer.model --out shards
      kogpt2 train kogpt2_base data.train=shards/train data.test=shards/test
      kogpt2 convert runs/kogpt2_base OUT --to huggingface

    Exit codes: 0 done, 2 bad recipe or argument, 3 bad data, 4 diverged, 75 stopped with its state saved, 1 other.
    """


def main() -> None:
    """Entry point: a KoGPT2Error becomes one line on stderr and its exit code."""
    try:
        cli(standalone_mode=False)
    except KoGPT2Error as error:
        click.echo(f"kogpt2: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("kogpt2: interrupted", err=True)
        sys.exit(130)
    except OSError as error:  # a full disk, a missing permission: the user's to mend
        click.echo(f"kogpt2: {error.filename or 'system'}: {error.strerror or error}", err=True)
        sys.exit(1)


cli.add_command(clean)
cli.add_command(tokenizer)


@cli.command(no_args_is_help=True)
@click.argument("corpus", type=ANY_PATH)
@click.option("--tokenizer", "tokenizer_path", required=True, type=ANY_PATH, help="SentencePiece model.")
@click.option("--out", required=True, type=FOLDER, help="Folder for OUT/train and OUT/test.")
@click.option("--processes", default=0, type=click.IntRange(min=0), help="Tokenizing processes; 0: one a core.")
@click.option(
    "--chunk-kib",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *map(str, (64, 128, 256, 512, 1024, 2048, 4096))]),
)
def shard(corpus: Path, tokenizer_path: Path, out: Path, processes: int, chunk_kib: str) -> None:
    """Corpus + tokenizer -> token shards (.ktok) with a manifest, for train and test.

    \b
    Example: kogpt2 shard corpus --tokenizer tokenizer.model --out shards
    """
    from kogpt2_gluon.corpus.store import SPLITS, Corpus
    from kogpt2_gluon.machine.runtime import available_cores
    from kogpt2_gluon.shards.sharding import shard_corpus

    opened = Corpus.open(corpus)
    chunk_bytes = 0 if chunk_kib == "auto" else int(chunk_kib) << 10
    for split in SPLITS:
        size = opened.size(split)
        if split == "test" and not size:
            continue
        with progress_bar(f"sharding {split}") as bar:
            manifest = shard_corpus(
                corpus,
                tokenizer_path,
                out / split,
                split,
                processes or available_cores(),
                chunk_bytes,
                bar.show,
                say=partial(click.echo, err=True),
            )
        click.echo(
            f"{out / split}: {manifest.documents:,} documents, {manifest.tokens:,} tokens, "
            f"{manifest.text_bytes / max(1, manifest.tokens - 2 * manifest.documents):.2f} bytes a token, "
            f"{manifest.unknown / manifest.tokens:.3%} unknown"
        )


cli.add_command(verify)
cli.add_command(files)
cli.add_command(ops)


@cli.command(no_args_is_help=True)
@click.argument("recipe")
@click.argument("overrides", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and what it would take, and stop.")
@click.option("--resume", default="auto", show_default=True, help="auto, never, or a checkpoint's path.")
def train(recipe: str, overrides: tuple[str, ...], dry_run: bool, resume: str) -> None:
    """Recipe -> checkpoints. Under `horovodrun --gloo -np N` the same command is one worker of N.

    RECIPE is a YAML file or the name of a shipped one; OVERRIDES are section.key=value.

    \b
    Example: kogpt2 train demo training.num_steps=200 tracking.run_dir=runs/try
             horovodrun --gloo -np 8 kogpt2 train kogpt2_base data.train=shards/train
    """
    from kogpt2_gluon.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    if dry_run:
        from kogpt2_gluon.estimate import check_data, describe

        click.echo(describe(loaded))
        check_data(loaded)  # last: what it takes is said all the same
        return
    from kogpt2_gluon.machine import runtime

    runtime.prepare(loaded.training.threads)
    from kogpt2_gluon.training.loop import train as run

    run(loaded, resume)


cli.add_command(profile)


@cli.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("data", type=FOLDER)
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--seq-length", default=0, type=click.IntRange(min=0), help="Tokens scored together; 0: as in training.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]))
@click.option(
    "--precision", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16", "float16"])
)
@click.option("--ops", "operators", default="auto", show_default=True, type=click.Choice(["auto", "fused", "stock"]))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def evaluate(
    checkpoint: Path,
    data: Path,
    batch_size: int,
    seq_length: int,
    device: str,
    precision: str,
    operators: str,
    as_json: bool,
) -> None:
    """Held-out loss, perplexity a token and a word, and bits per byte of a checkpoint on shards.

    CHECKPOINT is its folder, or the run's. Bytes are those of the text after the tokenizer's normalisation, and every
    token but <s> is scored.

    \b
    Example: kogpt2 evaluate runs/demo shards/test
    """
    from kogpt2_gluon.inference.loading import evaluate_checkpoint

    scores = evaluate_checkpoint(checkpoint, data, batch_size, seq_length, device, precision, operators)
    if as_json:
        click.echo(json.dumps(scores.to_dict()))
        return
    click.echo(f"tokens scored       {scores.tokens:>14,}  (all but <s>)")
    click.echo(f"loss                {scores.loss:>14.4f}  nats a token")
    click.echo(f"perplexity          {scores.perplexity:>14.3f}  a token")
    click.echo(f"word perplexity     {scores.word_perplexity:>14.3f}  a word between spaces")
    click.echo(f"bits per byte       {scores.bits_per_byte:>14.4f}  of the normalised text, UTF-8")


@cli.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("prompt")
@click.option("--num-samples", "-n", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--max-new-tokens", default=60, show_default=True)
@click.option("--temperature", default=1.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", default=0, show_default=True, help="Keep the k likeliest tokens; 0: all.")
@click.option("--top-p", default=1.0, show_default=True, help="Keep the likeliest tokens of this probability.")
@click.option("--repetition-penalty", default=1.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]))
@click.option(
    "--precision", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16", "float16"])
)
@click.option("--ops", "operators", default="auto", show_default=True, type=click.Choice(["auto", "fused", "stock"]))
def generate(
    checkpoint: Path, prompt: str, num_samples: int, device: str, precision: str, operators: str, **sampling: Any
) -> None:
    """Continue a text with a checkpoint; each sample stops at </s>.

    \b
    Example: kogpt2 generate runs/demo "오늘 날씨는" --top-k 40 -n 3        (prompt: "today's weather is")
    """
    from kogpt2_gluon.inference.loading import generate_from_checkpoint

    settings = {"device": device, "precision": precision, "ops": operators, **sampling}
    for text in generate_from_checkpoint(checkpoint, prompt, num_samples, **settings):
        click.echo(text)


@cli.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("out", type=FOLDER)
@click.option("--to", "target", default="huggingface", show_default=True, type=click.Choice(["huggingface"]))
def convert(checkpoint: Path, out: Path, target: str) -> None:
    """Checkpoint -> a folder that PyTorch's transformers load. Needs neither torch nor MXNet.

    \b
    Example: kogpt2 convert runs/demo OUT --to huggingface
    """
    from kogpt2_gluon.convert.huggingface import convert_checkpoint
    from kogpt2_gluon.runs.checkpoint import open_checkpoint

    opened = open_checkpoint(checkpoint)
    opened.verify()
    convert_checkpoint(opened.path, out)
    click.echo(f"{out}: load it with GPT2LMHeadModel.from_pretrained and AutoTokenizer.from_pretrained({str(out)!r})")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(as_json: bool) -> None:
    """What this machine can do, what is missing, and the command that mends it.

    \b
    Example: kogpt2 doctor --json
    """
    from kogpt2_gluon.doctor import main as run

    sys.exit(run(as_json))


@cli.command(no_args_is_help=True)
@click.argument("run_dir", type=FOLDER)
def report(run_dir: Path) -> None:
    """A run's folder -> RUN_DIR/report.html: its curves, recipe and samples on one page.

    \b
    Example: kogpt2 report runs/demo
    """
    from kogpt2_gluon.runs.report import write_report

    click.echo(write_report(run_dir))


@cli.command()
@click.option("--dir", "work_dir", default="demo-run", show_default=True, type=FOLDER, help="Folder for all it makes.")
def demo(work_dir: Path) -> None:
    """The whole road on embedded Korean text, in a few minutes: corpus to PyTorch folder.

    \b
    Example: kogpt2 demo --dir demo-run
    """
    from kogpt2_gluon.demo.demo import run_demo

    run_demo(work_dir, echo=click.echo)


if __name__ == "__main__":
    main()
