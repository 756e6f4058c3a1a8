"""KoGPT-2's BPE, byte-level BPE, and byte-level BPE cut at morphemes: the same text, size of vocabulary and network.

    python benchmarks/morphemes.py CORPUS [--dir morphemes] [--vocab-size 8000] [--updates 3000] [--rounds 5]
                                   [--encode-mb 2] [--no-equal-time] [--set KEY=VALUE ...] [--json]

CORPUS is a folder of `kogpt2 clean`. Each tokenizer is trained on its train split, and a network of 2 layers of 128
units is trained from scratch on the shards that each makes. What is there already in --dir is not made again.

    tokens a word, tokens a byte   of the held-out text as it is: words are what `str.split` gives, bytes are UTF-8
    encoding                       MB of that text a second in one process, the median of the rounds; all tokenizers
                                   take turns in each round, and the ratio to KoGPT-2's is the median of the rounds' own
    equal tokens                   bits per raw byte of the held-out text after --updates updates of 2,048 tokens. Raw
                                   bytes: what a tokenizer loses is paid for (docs/bits_per_byte.md). A tokenizer with
                                   fewer tokens a byte has then read more text, in MB
    equal time                     the same after as many updates as each makes in the longest of the times above, by
                                   its own median speed: each run is made again, with a schedule for that number
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from conditions import conditions
from verbs import kogpt2

from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, KoGPT2Error
from kogpt2_gluon.inference.evaluation import evaluate_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.shards.format import Manifest
from kogpt2_gluon.tokens.tokenizer import Tokenizer, border_tokens

CONTESTANTS = {  # what `kogpt2 tokenizer` is given, and the name of its file
    "KoGPT-2's BPE": ([], "tokenizer.model"),
    "byte-level BPE": (["--byte-level"], "tokenizer.json"),
    "byte-level BPE at morphemes": (["--byte-level", "--morphemes", "kiwi"], "tokenizer.json"),
}
NETWORK = {"model.units": 128, "model.num_layers": 2, "model.num_heads": 2}


@dataclass(frozen=True)
class Row:
    """A tokenizer's figures; `read_mb` is the text that `updates` read, and the last four are of the equal time."""

    name: str
    tokens_a_word: float
    tokens_a_byte: float
    encoding_mb_a_second: float
    encoding_ratio: float
    updates: int
    seconds: float
    read_mb: float
    bits_per_raw_byte: float
    same_time_updates: int | None = None
    same_time_read_mb: float | None = None
    same_time_bits_per_raw_byte: float | None = None


def made(folder: Path, corpus: Path, name: str, vocab_size: int) -> tuple[Tokenizer, Path]:
    """Returns a contestant's tokenizer and the folder of its shards, made if they are missing."""
    options, file_name = CONTESTANTS[name]
    path, shards = folder / file_name, folder / "shards"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kogpt2("tokenizer", corpus, "--vocab-size", vocab_size, "--out", path, *options, is_shown=True)
    tokenizer = Tokenizer.load(path)
    if tokenizer.vocab_size != vocab_size:
        raise DataError(f"{path}: has {tokenizer.vocab_size} tokens; give --vocab-size so, or another --dir")
    if not (shards / "test").exists():
        kogpt2("shard", corpus, "--tokenizer", path, "--out", shards, is_shown=True)
    return tokenizer, shards


def encoding_rounds(tokenizers: Sequence[Tokenizer], texts: Sequence[bytes], rounds: int) -> list[list[float]]:
    """Returns seconds of each round (rounds, tokenizers); one round before them warms up and is left out."""
    found = []
    for _ in range(rounds + 1):
        seconds = []
        for tokenizer in tokenizers:
            begun = time.perf_counter()
            tokenizer.encode_flat(texts)
            seconds.append(time.perf_counter() - begun)
        found.append(seconds)
    return found[1:]


def trained(shards: Path, run: Path, vocab_size: int, updates: int, overrides: Sequence[str]) -> tuple[float, float]:
    """Trains a network, or finds it trained; returns its tokens, and the seconds that its median speed gives them."""
    lines = read_metrics(run) if (run / "metrics.jsonl").is_file() else []
    if not any(line["kind"] == "evaluation" and line["step"] == updates for line in lines):
        settings = {
            **NETWORK,
            "model.vocab_size": vocab_size,
            "training.num_steps": updates,
            "data.train": shards / "train",
            "data.test": shards / "test",
            "evaluation.interval": updates,
            "checkpoint.interval": updates,
            "tracking.run_dir": run,
            "tracking.log_interval": max(1, updates // 100),
            "tracking.sample_prompts": "[]",
            "tracking.tensorboard": "false",
        }
        kogpt2("train", "small_cpu", *(f"{key}={value}" for key, value in settings.items()), *overrides, is_shown=True)
        lines = read_metrics(run)
    steps = [line for line in lines if line["kind"] == "train"]
    tokens = float(steps[-1]["tokens"])
    return tokens, tokens / statistics.median(float(line["tokens_per_second"]) for line in steps)


def measured(
    folder: Path,
    corpus: Path,
    vocab_size: int,
    updates: int,
    rounds: int,
    encode_mb: float,
    equal_time: bool,
    overrides: Sequence[str],
) -> list[Row]:
    """Returns a row for each contestant."""
    documents = [document.encode() for document in Corpus.open(corpus).documents("test")]
    raw, words = sum(map(len, documents)), sum(len(document.decode().split()) for document in documents)
    folders = {name: folder / "".join(sign for sign in name if sign.isalnum()) for name in CONTESTANTS}
    found = {name: made(folders[name], corpus, name, vocab_size) for name in CONTESTANTS}
    taken, texts = 0, []
    for document in documents:
        if taken < encode_mb * 1e6:
            texts.append(document)
            taken += len(document)
    times = encoding_rounds([tokenizer for tokenizer, _ in found.values()], texts, rounds)
    spent = {
        name: trained(shards, folders[name] / f"run{updates}", vocab_size, updates, overrides)
        for name, (_, shards) in found.items()
    }
    rows = []
    for number, (name, (tokenizer, shards)) in enumerate(found.items()):
        train, test = (Manifest.load(shards / split) for split in ("train", "test"))
        own = test.tokens - border_tokens(tokenizer.bos_id, tokenizer.eos_id) * test.documents
        a_token = (Corpus.open(corpus).size("train") - train.documents) / train.tokens / 1e6  # MB
        tokens, seconds = spent[name]
        row = {
            "name": name,
            "tokens_a_word": own / words,
            "tokens_a_byte": own / raw,
            "encoding_mb_a_second": taken / 1e6 / statistics.median(each[number] for each in times),
            "encoding_ratio": statistics.median(each[0] / each[number] for each in times),
            "updates": updates,
            "seconds": seconds,
            "read_mb": tokens * a_token,
            "bits_per_raw_byte": scored(folders[name] / f"run{updates}", corpus),
        }
        if equal_time:
            more = round(updates * max(each for _, each in spent.values()) / seconds)
            run = folders[name] / f"run{more}"
            row["same_time_updates"] = more
            row["same_time_read_mb"] = trained(shards, run, vocab_size, more, overrides)[0] * a_token
            row["same_time_bits_per_raw_byte"] = scored(run, corpus)
        rows.append(Row(**row))
    return rows


def scored(run: Path, corpus: Path) -> float:
    """Returns a run's bits per raw byte of the held-out text."""
    found = evaluate_checkpoint(run, corpus / "test", batch_size=32).bits_per_raw_byte
    assert found is not None  # a text was scored
    return found


def table(rows: Sequence[Row]) -> str:
    """Returns a Markdown table in the order of the contestants."""
    lines = [
        "| tokenizer | tokens a word | tokens a byte | encoding, MB/s | to KoGPT-2's | equal tokens: bits per raw byte "
        "| text read, MB | equal time: bits per raw byte | updates | text read, MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [
            f"{row.tokens_a_word:.3f}",
            f"{row.tokens_a_byte:.4f}",
            f"{row.encoding_mb_a_second:.2f}",
            f"{row.encoding_ratio:.3f}",
            f"{row.bits_per_raw_byte:.4f}",
            f"{row.read_mb:,.1f}",
            "" if row.same_time_bits_per_raw_byte is None else f"{row.same_time_bits_per_raw_byte:.4f}",
            "" if row.same_time_updates is None else f"{row.same_time_updates:,}",
            "" if row.same_time_read_mb is None else f"{row.same_time_read_mb:,.1f}",
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.argument("corpus", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dir", "folder", default="morphemes", type=click.Path(path_type=Path), help="Where all is kept.")
@click.option("--vocab-size", default=8000, show_default=True)
@click.option("--updates", default=3000, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--encode-mb", default=2.0, show_default=True, help="Held-out text that is encoded in a round.")
@click.option("--equal-time/--no-equal-time", default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Given to every training.")
@click.option("--json", "as_json", is_flag=True)
def main(
    corpus: Path,
    folder: Path,
    vocab_size: int,
    updates: int,
    rounds: int,
    encode_mb: float,
    equal_time: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare three tokenizers on CORPUS."""
    try:
        rows = measured(folder, corpus, vocab_size, updates, rounds, encode_mb, equal_time, overrides)
    except KoGPT2Error as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(json.dumps({"conditions": conditions(), "rows": [asdict(row) for row in rows]}, ensure_ascii=False))
    else:
        click.echo(table(rows))


if __name__ == "__main__":
    main()
