"""One table of bits per byte: networks, n-grams and compressors on the same held-out text, byte for byte.

    python benchmarks/bits_per_byte.py CORPUS [--network RUN ...] [--stride 32] [--shards DIR --order 2 --order 3]
                                       [--json]

CORPUS is a folder of `kogpt2 clean`; its test split is the text that is scored, and its train split what compressors
read before. A RUN is a checkpoint, or the folder of a run, that was trained on the same train split; DIR holds train/
and test/, made of both splits by `kogpt2 shard`, for the n-gram models.

Bits per raw byte are of the text as the corpus has it, in UTF-8, without the line ends between documents. Every row
pays for those: a network and an n-gram model with `</s>`, a compressor with the line end itself. A tokenizer that does
not give back the text pays for what restores it; the column says how much of the figure that is. What a compressor
makes of the held-out text is its size after the training text, less the size of the latter alone. Nobody pays for the
model or program itself.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from compressors import coded_after, compressors
from conditions import conditions
from ngram_baseline import score_shards

from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, KoGPT2Error
from kogpt2_gluon.reading.text.held_out import HeldOutText, TextOptions, open_held_out_text
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.shards.format import Manifest
from kogpt2_gluon.storage.tokenizer_file import tokenizer_in
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.wording import Say


@dataclass(frozen=True)
class Row:
    """A model's figures.

    model, trained_on : in words. bits_per_raw_byte : with `restoring`, which is the part of it that restores what the
    tokenizer loses. bits_per_byte : of the normalised text; None where there is no tokenizer. seconds : of scoring, or
    for n-grams and compressors of all.
    """

    model: str
    trained_on: str
    bits_per_raw_byte: float
    bits_per_byte: float | None
    restoring: float
    seconds: float


@dataclass(frozen=True)
class Text:
    """The held-out text: its folder, its documents, and their bytes without the line ends between them."""

    folder: Path
    documents: int
    raw_bytes: int


def read_split(corpus: Corpus, split: str) -> bytes:
    """Returns the text of a split as it is stored."""
    return b"".join(path.read_bytes() for path in corpus.files(split))


def network_rows(runs: Sequence[Path], strides: Sequence[int], text: Text) -> Iterator[Row]:
    """Scores each network, as it was trained and with each stride."""
    from kogpt2_gluon.inference.evaluation import evaluate_checkpoint

    for run in runs:
        checkpoint = open_checkpoint(run)
        recipe, step = checkpoint.recipe(), checkpoint.state()["step"]
        size = f"{sum(map(math.prod, checkpoint.weights().shapes.values())) / 1e6:.1f}M parameters"
        seen = f"{step * recipe.tokens_per_step / 1e6:,.1f}M tokens, {step:,} updates"
        for stride in (0, *strides):
            begun = time.perf_counter()
            score = evaluate_checkpoint(run, text.folder, batch_size=32, stride=stride)
            check_same_text(score.documents, score.raw_bytes or 0, text, str(run))
            yield Row(
                f"{recipe.name}, {size}, stride {score.stride} of {score.seq_length}",
                seen,
                score.bits_per_raw_byte or math.nan,
                score.bits_per_byte,
                (score.restoring_bits or 0) / text.raw_bytes,
                time.perf_counter() - begun,
            )


def ngram_rows(shards: Path, orders: Sequence[int], text: Text) -> Iterator[Row]:
    """Fits and scores the n-gram models, plain and modified, on shards of the same corpus."""
    held_out = read_through(text.folder, Tokenizer.load(tokenizer_in(shards / "test")))
    check_same_text(held_out.documents, held_out.raw_bytes, text, str(shards))
    restoring = held_out.coming_back.bits() / text.raw_bytes
    for modified in (False, True):
        for score in score_shards(shards / "train", shards / "test", orders, modified):
            if score.tokens != held_out.scored_tokens:
                raise DataError(f"{shards / 'test'}: not made of {text.folder}; shard the corpus again")
            bits = score.loss / math.log(2) * score.tokens
            name = f"Kneser-Ney {score.order}-gram of tokens" + (", modified" if modified else "")
            train = Manifest.load(shards / "train")
            yield Row(
                name,
                f"{train.tokens / 1e6:,.1f}M tokens",
                bits / text.raw_bytes + restoring,
                score.bits_per_byte,
                restoring,
                score.seconds,
            )


def read_through(folder: Path, tokenizer: Tokenizer) -> HeldOutText:
    """Tokenizes a held-out text, so that it is counted."""
    text, _ = open_held_out_text(folder, TextOptions(), tokenizer, 1024)
    for _ in text.batches(64):
        pass
    return text


def compressor_rows(train: bytes, test: bytes, text: Text, say: Say) -> Iterator[Row]:
    """Codes the held-out text after the training text, and alone."""
    for name, size in compressors(say).items():
        coded = coded_after(size, train, test)
        alone = f"; alone {coded.alone / text.raw_bytes:.3f}"
        words = f"{len(train) / 1e6:,.1f} MB{alone}"
        yield Row(name, words, coded.bits / text.raw_bytes, None, 0.0, coded.seconds)


def check_same_text(documents: int, raw_bytes: int, text: Text, name: str) -> None:
    """Raises DataError if a model was scored on another text than the rest of the table."""
    if (documents, raw_bytes) != (text.documents, text.raw_bytes):
        raise DataError(
            f"{name}: scored {documents:,} documents of {raw_bytes:,} bytes, but {text.folder} has "
            f"{text.documents:,} of {text.raw_bytes:,}"
        )


def table(rows: Sequence[Row]) -> str:
    """Returns a Markdown table, the best model first."""
    lines = [
        "| model | trained on | bits per raw byte | of which restoring | bits per normalised byte | seconds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: row.bits_per_raw_byte):
        restoring = f"{row.restoring:.4f}" if row.restoring else ""
        normalised = "" if row.bits_per_byte is None else f"{row.bits_per_byte:.3f}"
        lines.append(
            f"| {row.model} | {row.trained_on} | {row.bits_per_raw_byte:.3f} | {restoring} | {normalised} "
            f"| {row.seconds:,.0f} |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("corpus", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--network", "networks", multiple=True, type=click.Path(path_type=Path), help="A run; repeatable.")
@click.option("--stride", "strides", multiple=True, type=click.IntRange(1), help="Also score networks with this one.")
@click.option("--shards", type=click.Path(file_okay=False, path_type=Path), help="train/ and test/, for n-grams.")
@click.option("--order", "orders", multiple=True, default=(2, 3, 4), show_default=True, type=click.IntRange(1))
@click.option("--compressors/--no-compressors", "with_compressors", default=True, help="gzip to zpaq; 10 minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table.")
def main(
    corpus: Path,
    networks: tuple[Path, ...],
    strides: tuple[int, ...],
    shards: Path | None,
    orders: tuple[int, ...],
    with_compressors: bool,
    as_json: bool,
) -> None:
    """Bits per byte of networks, n-grams and compressors on the held-out text of CORPUS."""

    def say(words: str) -> None:
        click.echo(words, err=True)

    try:
        opened = Corpus.open(corpus)
        sizes = [len(document.encode()) for document in opened.documents("test")]
        text = Text(corpus / "test", len(sizes), sum(sizes))
        if not sizes:
            raise DataError(f"{corpus}: holds nothing out; clean the text with --test-share")
        rows = []
        for row in all_rows(opened, text, networks, strides, shards, orders, with_compressors, say):
            say(f"{row.model}: {row.bits_per_raw_byte:.4f} bits per raw byte")
            rows.append(row)
    except KoGPT2Error as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    if as_json:
        about = {"documents": text.documents, "raw_bytes": text.raw_bytes, "conditions": conditions()}
        click.echo(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False))
    else:
        click.echo(f"{text.documents:,} documents, {text.raw_bytes:,} raw bytes\n\n{table(rows)}")


def all_rows(
    corpus: Corpus,
    text: Text,
    networks: Sequence[Path],
    strides: Sequence[int],
    shards: Path | None,
    orders: Sequence[int],
    with_compressors: bool,
    say: Say,
) -> Iterator[Row]:
    """Yields all rows, the fast ones first."""
    if shards is not None:
        yield from ngram_rows(shards, orders, text)
    yield from network_rows(networks, strides, text)
    if with_compressors:
        yield from compressor_rows(read_split(corpus, "train"), read_split(corpus, "test"), text, say)


if __name__ == "__main__":
    main()
