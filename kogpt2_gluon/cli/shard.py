"""The verb `kogpt2 shard`: tokenizes a corpus into shards."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from kogpt2_gluon.cli.paths import ANY_PATH, FOLDER
from kogpt2_gluon.cli.progress_bar import progress_bar
from kogpt2_gluon.cli.stopping import stoppable


@click.command(no_args_is_help=True)
@click.argument("corpus", type=ANY_PATH)
@click.option(
    "--tokenizer", "tokenizer_path", required=True, type=ANY_PATH, help="SentencePiece or tokenizer.json file."
)
@click.option("--out", required=True, type=FOLDER, help="Folder for OUT/train and OUT/test.")
@click.option("--processes", default=0, type=click.IntRange(min=0), help="Tokenizing processes; 0: one per core.")
@click.option(
    "--chunk-kib",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *map(str, (64, 128, 256, 512, 1024, 2048, 4096))]),
    help="Size of a chunk; auto gives every reading lane enough of them.",
)
@click.option("--restart", is_flag=True, help="Start again instead of resuming an interrupted sharding.")
def shard(corpus: Path, tokenizer_path: Path, out: Path, processes: int, chunk_kib: str, restart: bool) -> None:
    """Corpus + tokenizer -> token shards (.ktok) with a manifest, for train and test.

    After an interruption or a full disk the same command resumes; what is finished already is kept.

    \b
    Example: kogpt2 shard corpus --tokenizer tokenizer.model --out shards
    """
    from kogpt2_gluon.corpus.store import SPLITS, Corpus
    from kogpt2_gluon.machine.limits import available_cores
    from kogpt2_gluon.shards.sharding import shard_corpus
    from kogpt2_gluon.shards.unfinished import has_shards
    from kogpt2_gluon.storage.work_folder import work_folder

    opened = Corpus.open(corpus)
    chunk_bytes = 0 if chunk_kib == "auto" else int(chunk_kib) << 10
    for split in SPLITS:
        size = opened.size(split)
        if split == "test" and not size:
            continue
        kept = partial(has_shards, work_folder(out / split))
        with stoppable(kept, "shard"), progress_bar(f"sharding {split}") as bar:
            manifest = shard_corpus(
                corpus,
                tokenizer_path,
                out / split,
                split,
                processes or available_cores(),
                chunk_bytes,
                bar.show,
                say=partial(click.echo, err=True),
                restart=restart,
            )
        click.echo(
            f"{out / split}: {manifest.documents:,} documents, {manifest.tokens:,} tokens, "
            f"{manifest.text_bytes / max(1, manifest.tokens - 2 * manifest.documents):.2f} bytes a token, "
            f"{manifest.unknown / manifest.tokens:.3%} unknown"
        )
