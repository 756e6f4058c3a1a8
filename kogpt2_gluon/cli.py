"""The command `kogpt2`: one verb for each stage of the road from text to a converted model.

Every verb is thin: it parses, calls the stage's function, prints. Modules are imported inside the verbs, so that
`kogpt2 --help` loads neither MXNet nor anything else that is slow.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import click

from kogpt2_gluon import __version__
from kogpt2_gluon.errors import KoGPT2Error, RecipeError

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


@cli.command(no_args_is_help=True)
@click.argument("sources", nargs=-1, required=True, type=ANY_PATH)
@click.option("--out", required=True, type=FOLDER, help="Folder of the cleaned corpus.")
@click.option("--documents", required=True, help="What a document is: line, blank-line, or a FIELD of JSON lines.")
@click.option("--test-share", default=0.01, show_default=True, help="Share of documents held out, by hash.")
@click.option("--overwrite", is_flag=True, help="Replace a finished corpus at --out.")
def clean(sources: tuple[Path, ...], out: Path, documents: str, test_share: float, overwrite: bool) -> None:
    """Raw text -> corpus: normalise, drop empty and duplicate documents, split off a held-out part.

    SOURCES are files or folders: text or JSON lines, also as .gz, .xz or .zst.

    \b
    Example: kogpt2 clean reviews.txt --documents line --out corpus --test-share 0.02
    """
    from kogpt2_gluon.data.cleaning import clean as run

    with progress_bar("cleaning") as bar:
        report = run(sources, out, documents, test_share, bar.show, overwrite)
    click.echo(report.summary())


@cli.command(no_args_is_help=True)
@click.argument("corpus", type=FOLDER)
@click.option("--out", required=True, type=ANY_PATH, help="The SentencePiece model to write.")
@click.option("--vocab-size", default=50000, show_default=True, type=click.IntRange(min=8))
@click.option("--unused", default=100, show_default=True, type=click.IntRange(min=0), help="Reserved <unusedN> tokens.")
@click.option("--character-coverage", default=0.9995, show_default=True, type=click.FloatRange(0.9, 1.0))
@click.option("--overwrite", is_flag=True, help="Replace a tokenizer at --out.")
@click.option("--profile", default="nmt_nfkc", show_default=True, type=click.Choice(["nmt_nfkc", "lossless"]))
def tokenizer(
    corpus: Path, out: Path, vocab_size: int, unused: int, character_coverage: float, profile: str, overwrite: bool
) -> None:
    """Corpus -> tokenizer: a SentencePiece BPE as KoGPT-2's.

    \b
    Example: kogpt2 tokenizer corpus --vocab-size 50000 --out tokenizer.model
    """
    from kogpt2_gluon.data.tokenizer import Tokenizer, train_tokenizer

    if out.exists() and not overwrite:
        raise RecipeError(f"{out}: exists, and shards may depend on it; choose another --out, or --overwrite")
    train_tokenizer(
        corpus,
        out,
        vocab_size,
        unused=unused,
        character_coverage=character_coverage,
        profile=profile,
        verbose=sys.stderr.isatty(),  # its own log is the progress display: a large corpus takes hours
    )
    trained = Tokenizer.load(out)
    click.echo(f"{out}: {trained.vocab_size:,} tokens, sha256 {trained.sha256[:16]}...")


@cli.command(no_args_is_help=True)
@click.argument("corpus", type=FOLDER)
@click.option("--tokenizer", "tokenizer_path", required=True, type=ANY_PATH, help="SentencePiece model.")
@click.option("--out", required=True, type=FOLDER, help="Folder for OUT/train and OUT/test.")
@click.option("--processes", default=0, help="Tokenizing processes; 0: one a core.")
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
    from kogpt2_gluon.data.corpus import SPLITS, Corpus
    from kogpt2_gluon.data.sharding import shard_corpus
    from kogpt2_gluon.runtime import available_cores

    opened = Corpus.open(corpus)
    chunk_bytes = 0 if chunk_kib == "auto" else int(chunk_kib) << 10
    for split in SPLITS:
        size = opened.size(split)
        if split == "test" and not size:
            continue
        with progress_bar(f"sharding {split}") as bar:
            manifest = shard_corpus(
                corpus, tokenizer_path, out / split, split, processes or available_cores(), chunk_bytes, bar.show
            )
        click.echo(
            f"{out / split}: {manifest.documents:,} documents, {manifest.tokens:,} tokens, "
            f"{manifest.text_bytes / max(1, manifest.tokens - 2 * manifest.documents):.2f} bytes a token, "
            f"{manifest.unknown / manifest.tokens:.3%} unknown"
        )


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
        from kogpt2_gluon.estimate import describe

        click.echo(describe(loaded))
        return
    from kogpt2_gluon import runtime

    runtime.prepare(loaded.training.threads)
    from kogpt2_gluon.training.loop import train as run

    run(loaded, resume)


@cli.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("data", type=FOLDER)
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--seq-length", default=0, help="Tokens scored together; 0: as in training.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "gpu"]))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def evaluate(checkpoint: Path, data: Path, batch_size: int, seq_length: int, device: str, as_json: bool) -> None:
    """Held-out loss, perplexity a token and a word, and bits per byte of a checkpoint on shards.

    CHECKPOINT is its folder, or the run's. Bytes are those of the text after the tokenizer's normalisation, and every
    token but <s> is scored.

    \b
    Example: kogpt2 evaluate runs/demo shards/test
    """
    from kogpt2_gluon.inference import evaluate_checkpoint

    scores = evaluate_checkpoint(checkpoint, data, batch_size, seq_length, device)
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
def generate(checkpoint: Path, prompt: str, num_samples: int, device: str, **sampling: Any) -> None:
    """Continue a text with a checkpoint; each sample stops at </s>.

    \b
    Example: kogpt2 generate runs/demo "오늘 날씨는" --top-k 40 -n 3        (prompt: "today's weather is")
    """
    from kogpt2_gluon.inference import generate_from_checkpoint

    for text in generate_from_checkpoint(checkpoint, prompt, num_samples, device, **sampling):
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
    from kogpt2_gluon.checkpoint import open_checkpoint
    from kogpt2_gluon.convert.huggingface import convert_checkpoint

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
    from kogpt2_gluon.tracking.report import write_report

    click.echo(write_report(run_dir))


@cli.command()
@click.option("--dir", "work_dir", default="demo-run", show_default=True, type=FOLDER, help="Folder for all it makes.")
def demo(work_dir: Path) -> None:
    """The whole road on embedded Korean text, in a few minutes: corpus to PyTorch folder.

    \b
    Example: kogpt2 demo --dir demo-run
    """
    from kogpt2_gluon.demo import run_demo

    run_demo(work_dir, echo=click.echo)


class ProgressBar:
    """A bar with MB/s and time to go on a terminal; one closing line elsewhere."""

    def __init__(self, title: str, bar: Any, task: Any):
        self._title, self._bar, self._task = title, bar, task
        self._began, self._done = time.perf_counter(), 0

    def show(self, done: int, total: int) -> None:
        """Bytes done so far, of how many."""
        self._done = done
        self._bar.update(self._task, completed=done, total=total)

    def close_plainly(self) -> None:
        megabytes = self._done / 1e6
        seconds = max(1e-9, time.perf_counter() - self._began)
        click.echo(f"{self._title}: {megabytes:.1f} MB in {seconds:.1f} s, {megabytes / seconds:.1f} MB/s", err=True)


@contextmanager
def progress_bar(title: str) -> Iterator[ProgressBar]:
    """A ProgressBar on stderr, so that what a verb prints stays clean."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = ProgressBar(title, bar, bar.add_task(title, total=None))
        yield shown
    if not console.is_terminal:
        shown.close_plainly()


if __name__ == "__main__":
    main()
