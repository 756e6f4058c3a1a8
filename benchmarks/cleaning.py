"""Measure how fast text is cleaned, deduplicated and sharded, and how much memory that takes.

    python benchmarks/cleaning.py --json [--documents tech_docs.jsonl] [--reviews reviews.txt] [--peers DIR]
                                  [--only PART ...] [--sizes 10,100,1000] [--rounds 5] [--mb 8]

Text: `--documents` is a file of JSON lines (its `--field`, by default `text`), `--reviews` one of a document a line;
without them the package's own sample text is used for both. `--peers DIR` names a folder for the peers' environment
(made once from cleaning_peers.txt with `python -m venv` and pip). The parts:

filters          all cheap filters (preset `web`), in one process: MB of UTF-8 a second of CPU time, for the filters
                 alone and for the whole of `clean` from file to corpus
near_duplicates  signing and search together, in the same way; then a planted set: recall and precision
memory           `kogpt2 clean` of --sizes MB of text made distinct: largest sum of resident memory over its processes,
                 each sampled every 20 ms; with the filters, and with near duplicates as well
sharding         `shard_corpus` on all cores against SentencePiece's own batch encoding of the same documents on as
                 many threads, by the clock
formats          the same documents from JSON arrays, CSV, Parquet and Arrow, against JSON lines: CPU time of reading
                 and of the whole of `clean` in one process; memory of `kogpt2 clean` for the first and last of --sizes

Everything that is compared runs in turn, `--rounds` times; figures are medians, ratios are made within a round. The
yardstick, decoding the same bytes and normalising them (bytes.decode, unicodedata.normalize), lets figures of different
machines be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Any, Callable

import numpy as np
import sentencepiece
from cleaning_formats import formats_table, measure_formats
from cleaning_memory import peak_memory
from cleaning_peers import FINDERS, plain_filter
from cleaning_text import cpu_seconds, distinct, read_texts, size_of, speeds, take, write_distinct, write_texts
from conditions import conditions

from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.cleaning.filters import TextCleaner
from kogpt2_gluon.corpus.cleaning.minhash import choose_bands, jaccard, shingle_set
from kogpt2_gluon.corpus.cleaning.near_duplicates import NearDuplicateOptions, band_keys, drop_near_duplicates
from kogpt2_gluon.corpus.cleaning.options import load_options
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.shards.format import Manifest
from kogpt2_gluon.tokens.training import train_tokenizer

HERE = Path(__file__).resolve().parent
PARTS = ("filters", "near_duplicates", "memory", "sharding", "formats")
BATCH_BYTES = 1 << 20  # of text that the filters get at a time, as in `clean`
AIMS = {"documents": 10.0, "reviews": 5.0, "near_duplicates": 3.0, "sharding": 0.9}

Result = dict[str, Any]


# ---- filters -----------------------------------------------------------------------------------------------------


def measure_filters(arguments: argparse.Namespace, work: Path) -> Result:
    """Measures the filters on documents, then on reviews."""
    return {kind: _measure_filters(arguments, work, kind) for kind in ("documents", "reviews")}


def _measure_filters(arguments: argparse.Namespace, work: Path, kind: str) -> Result:
    texts = read_texts(arguments, kind, 1e6 * arguments.mb)
    data = "\n".join(texts).encode("utf-8", "surrogatepass")
    file, out = work / f"{kind}.jsonl", work / "corpus"
    if kind == "reviews":
        file = file.with_suffix(".txt")
    write_texts(file, kind, texts)
    cleaner, options = TextCleaner(load_options("web")), load_options("web")
    remaining = iter(texts)
    batches = list(iter(lambda: take(remaining, BATCH_BYTES), []))

    def yardstick() -> None:
        unicodedata.normalize("NFC", data.decode("utf-8", "surrogatepass"))

    def whole() -> None:
        clean([file], out, "text" if kind == "documents" else "line", options=options)

    def measure() -> dict[str, float]:
        shutil.rmtree(out, ignore_errors=True)
        return {
            "filters": cpu_seconds(lambda: [cleaner.clean(batch) for batch in batches]),
            "whole": cpu_seconds(whole),
            "plain_loop": cpu_seconds(lambda: [plain_filter(text) for text in texts]),
            "decode_and_normalize": cpu_seconds(yardstick),
        }

    found = cleaner.clean(texts)
    result = speeds(size_of(texts) / 1e6, [measure() for _ in range(arguments.rounds)])
    shutil.rmtree(out)
    kept = sum(text is not None for text in found.texts)
    return {"mb": size_of(texts) / 1e6, "texts": len(texts), "kept": kept, **result, "aim_mb_per_second": AIMS[kind]}


# ---- near duplicates ---------------------------------------------------------------------------------------------


def find_near_duplicates(texts: list[str], options: NearDuplicateOptions, work: Path) -> list[int]:
    """Signs and searches, as `clean` does."""
    remaining = iter(texts)
    keys = [band_keys(batch, options) for batch in iter(lambda: take(remaining, BATCH_BYTES), [])]
    np.save(work / "keys.npy", np.concatenate(keys))
    dropped = np.zeros(len(texts), bool)
    drop_near_duplicates([work / "keys.npy"], dropped, texts.__getitem__, work, options)
    return [int(number) for number in np.flatnonzero(dropped)]


def measure_near_duplicates(arguments: argparse.Namespace, work: Path) -> Result:
    """Measures documents, reviews of at least 10 characters, and the planted set."""
    peers = make_peers(arguments.peers) if arguments.peers else "no --peers DIR"
    result: Result = {"peers": "measured" if isinstance(peers, Path) else f"skipped: {peers}"}
    for kind in ("documents", "reviews"):
        result[kind] = _measure_near_duplicates(arguments, work, kind, peers if isinstance(peers, Path) else None)
    result["planted"] = measure_planted(read_texts(arguments, "documents", 2e6), work)
    return result


def _measure_near_duplicates(arguments: argparse.Namespace, work: Path, kind: str, peers: Path | None) -> Result:
    options = NearDuplicateOptions(enabled=True, min_chars=10)
    texts = [text for text in read_texts(arguments, kind, 1e6 * arguments.mb) if len(text) >= 10]
    data = "\n".join(texts).encode("utf-8", "surrogatepass")
    (work / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    dropped: dict[str, list[int]] = {}

    def ours() -> None:
        dropped["ours"] = find_near_duplicates(texts, options, work)

    def yardstick() -> None:
        unicodedata.normalize("NFC", data.decode("utf-8", "surrogatepass"))

    def measure() -> dict[str, float]:
        seconds = {"ours": cpu_seconds(ours)}
        for name in FINDERS if peers else ():
            seconds[name], dropped[name] = run_peer(peers, name, work / "texts.json", options)
        return {**seconds, "decode_and_normalize": cpu_seconds(yardstick)}

    figures = speeds(size_of(texts) / 1e6, [measure() for _ in range(arguments.rounds)])
    return {
        "mb": size_of(texts) / 1e6,
        "texts": len(texts),
        "dropped": {name: len(numbers) for name, numbers in dropped.items()},
        **figures,
        "aim_mb_per_second": AIMS["near_duplicates"],
    }


def measure_planted(texts: list[str], work: Path) -> Result:
    """Plants copies with 0.2% to 5% of the characters changed; counts those dropped at 0.85 or more, and all others."""
    options = NearDuplicateOptions(enabled=True)
    texts = [text for text in texts if len(text) >= 200]
    first = set(find_near_duplicates(texts, options, work))
    texts = [text for number, text in enumerate(texts) if number not in first]  # no near duplicates but the planted
    rng = random.Random(0)
    copies = [edited(text, rng.choice((0.002, 0.005, 0.01, 0.02, 0.05)), rng) for text in texts]
    similarity = [jaccard(*(shingle_set(text, options.shingle) for text in pair)) for pair in zip(texts, copies)]
    found = find_near_duplicates(texts + copies, options, work)
    gone = {number - len(texts) for number in found if number >= len(texts)}
    wanted = {number for number, value in enumerate(similarity) if value >= 0.85}
    right = sum(number >= len(texts) and similarity[number - len(texts)] >= options.threshold for number in found)
    return {
        "texts": len(texts),
        "copies_at_0.85": len(wanted),
        "recall_at_0.85": len(wanted & gone) / max(1, len(wanted)),
        "dropped": len(found),
        "precision": right / max(1, len(found)),
    }


def edited(text: str, share: float, rng: random.Random) -> str:
    letters = list(text)
    for place in rng.sample(range(len(letters)), max(1, round(share * len(letters)))):
        letters[place] = chr(rng.randrange(0xAC00, 0xD7A4))
    return "".join(letters)


def make_peers(folder: Path) -> Path | str:
    """Returns the peers' Python, whose environment is made once, or the reason why it cannot be made."""
    python = folder / "bin" / "python"
    try:
        if not (folder / ".ready").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
            wanted = ["-m", "pip", "install", "--quiet", "-r", str(HERE / "cleaning_peers.txt")]
            subprocess.run([str(python), *wanted], check=True, capture_output=True, text=True)
            (folder / ".ready").touch()
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        return f"no environment for peers: {said[-1] if said else error}"
    return python


def run_peer(python: Path, name: str, texts: Path, options: NearDuplicateOptions) -> tuple[float, list[int]]:
    """(seconds of CPU time, numbers dropped) of one peer with our shingles, bands and rows."""
    bands, rows = choose_bands(options.threshold, options.permutations)
    command = [str(python), str(HERE / "cleaning_peers.py"), name, str(texts), "--threshold", str(options.threshold)]
    command += ["--shingle", str(options.shingle), "--bands", str(bands), "--rows", str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return found["seconds"], found["dropped"]


# ---- memory ------------------------------------------------------------------------------------------------------


def measure_memory(arguments: argparse.Namespace, work: Path) -> Result:
    """Runs each size, without and with near duplicates; only one file is on disk at a time."""
    texts = read_texts(arguments, "documents", 1e6 * arguments.mb)
    rows: list[Result] = []
    for size in arguments.sizes:
        file = work / "distinct.jsonl"
        megabytes = write_distinct(file, texts, 1e6 * size) / 1e6
        row: Result = {"mb": round(megabytes, 1)}
        for name, extra in (("web", []), ("web_near_duplicates", ["--set", "near_duplicates=true"])):
            out = work / "distinct"
            command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "clean", str(file), "--documents", "text"]
            command += ["--out", str(out), "--filters", "web", "--processes", str(arguments.cores), *extra]
            peak, seconds = peak_memory(command)
            row[name] = {"peak_mb": round(peak, 1), "mb_per_second": round(megabytes / seconds, 2)}
            shutil.rmtree(out)
        file.unlink()
        rows.append(row)
    growth = {
        name: round(rows[-1][name]["peak_mb"] / rows[0][name]["peak_mb"], 3) for name in ("web", "web_near_duplicates")
    }
    return {"processes": arguments.cores, "sizes": rows, "growth_from_first_to_last": growth}


# ---- sharding ----------------------------------------------------------------------------------------------------


# In a process of its own, as `kogpt2 shard` runs; otherwise its tokenizing processes would import all of this file.
SHARD = """
import sys, time
from pathlib import Path
from kogpt2_gluon.shards.sharding import shard_corpus

corpus, model, out, cores = sys.argv[1:]
began = time.perf_counter()
shard_corpus(Path(corpus), Path(model), Path(out), "train", int(cores))
print(time.perf_counter() - began)
"""


def measure_sharding(arguments: argparse.Namespace, work: Path) -> Result:
    """Compares sharding documents on disk with SentencePiece encoding a list in memory."""
    kinds: Result = {}
    for kind in ("documents", "reviews"):
        file, corpus_dir, model = work / f"{kind}.in", work / f"{kind}-corpus", work / f"{kind}.model"
        size = 1e6 * arguments.shard_mb
        texts = take(distinct(read_texts(arguments, kind, size)), size)
        file.write_text("\n".join(texts), encoding="utf-8")
        clean([file], corpus_dir, "line", test_share=0.0)
        corpus = Corpus.open(corpus_dir)
        train_tokenizer(corpus_dir, model, arguments.vocab_size, sample_mb=10)
        documents = list(corpus.documents("train"))
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        rounds: list[dict[str, float]] = []
        for _ in range(arguments.rounds):
            shutil.rmtree(work / "shards", ignore_errors=True)
            seconds: dict[str, float] = {}
            command = [sys.executable, "-c", SHARD, corpus_dir, model, work / "shards", arguments.cores]
            done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
            seconds["ours"] = float(done.stdout)
            manifest = Manifest.load(work / "shards")
            began = time.perf_counter()
            ids = processor.encode(documents, out_type=int, num_threads=arguments.cores)
            seconds["sentencepiece"] = time.perf_counter() - began
            rounds.append(seconds)
            # The same tokens, and <s> and </s> around each document.
            assert manifest.tokens == sum(map(len, ids)) + 2 * len(ids), (manifest.tokens, len(ids))
            del ids
        megabytes = size_of(documents) / 1e6
        kinds[kind] = {"mb": megabytes, "texts": len(documents), **speeds(megabytes, rounds), "aim": AIMS["sharding"]}
        shutil.rmtree(work / "shards")
    return {"cores": arguments.cores, **kinds}


# ---- all together ------------------------------------------------------------------------------------------------

MEASURES: dict[str, Callable[[argparse.Namespace, Path], Result]] = {
    "filters": measure_filters,
    "near_duplicates": measure_near_duplicates,
    "memory": measure_memory,
    "sharding": measure_sharding,
    "formats": measure_formats,
}


def table(result: Result) -> str:
    """Prints the figures as text."""
    lines = []
    for kind in ("documents", "reviews"):
        for part in ("filters", "near_duplicates", "sharding"):
            found = result.get(part, {}).get(kind)
            if found:
                figures = ", ".join(f"{name} {speed:.1f}" for name, speed in found["mb_per_second"].items())
                ratios = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in found["ratio_to"].items())
                lines.append(f"{part:<16} {kind:<10} MB/s: {figures}; {ratios}")
    if "planted" in result.get("near_duplicates", {}):
        planted = result["near_duplicates"]["planted"]
        lines.append(f"planted copies   recall {planted['recall_at_0.85']:.4f}, precision {planted['precision']:.4f}")
    for row in result.get("memory", {}).get("sizes", []):
        web, near = row["web"], row["web_near_duplicates"]
        lines.append(f"memory           {row['mb']:,} MB: {web['peak_mb']} MB, {near['peak_mb']} MB by near duplicates")
    if "formats" in result:
        lines += formats_table(result["formats"])
    return "\n".join(lines)


def main() -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--documents", type=Path, help="JSON lines of long documents")
    parser.add_argument("--field", default="text", help="the field that holds their text")
    parser.add_argument("--reviews", type=Path, help="text of one document a line")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environment")
    parser.add_argument("--work", type=Path, help="folder for the data; default: a temporary one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mb", type=float, default=8.0, help="text of each measurement")
    parser.add_argument("--shard-mb", type=float, default=100.0, help="text that is sharded")
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--sizes", type=lambda text: [float(size) for size in text.split(",")], default=[10.0, 100.0, 1000.0],
        help="MB of the memory runs",
    )  # fmt: skip
    arguments = parser.parse_args()
    result: Result = {"conditions": {**conditions(), "rounds": arguments.rounds, "text": text_names(arguments)}}
    for part in arguments.only:
        print(part, file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=arguments.work) as work:
            result[part] = MEASURES[part](arguments, Path(work))
    print(json.dumps(result, indent=1) if arguments.json else table(result))


def text_names(arguments: argparse.Namespace) -> dict[str, str]:
    paths = {"documents": arguments.documents, "reviews": arguments.reviews}
    return {kind: path.name if path else "the package's sample text" for kind, path in paths.items()}


if __name__ == "__main__":
    main()
