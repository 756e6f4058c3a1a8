"""The peers that `cleaning.py` compares with: a plain loop of filters, and other projects' MinHash.

    python cleaning_peers.py KIND TEXTS --threshold 0.8 --shingle 5 --bands 20 --rows 6

TEXTS is a JSON array of documents. Each finder signs the same shingles (runs of characters, white space collapsed) with
as many hashes, looks each document up by the same bands, and drops it if the exact Jaccard similarity to a candidate
that was kept reaches the threshold. Printed: {"seconds": CPU time from texts to decision, "dropped": [numbers]}.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import unicodedata
from pathlib import Path
from typing import Any, Callable

HTML = re.compile(r"<[^<>]{1,200}>")
URL = re.compile(r"(?:https?://|www\.)\S+")
EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,4}")
NUMBER = re.compile(r"\b(?:\d{6}-\d{7}|\d{4}-\d{4}-\d{4}-\d{4}|01\d-\d{3,4}-\d{4}|0\d{1,2}-\d{3,4}-\d{4})\b")
RUN = re.compile(r"(.{1,4}?)\1{3,}")
SPACE = re.compile(r"[ \t\u3000\xa0]+")
HANGUL = re.compile(r"[가-힣ㄱ-ㅎㅏ-ㅣ]")
SYMBOL = re.compile(r"[^\w\s]")


def plain_filter(document: str) -> str | None:
    """Filters one document by the kinds of filter in the preset `web`, as such loops are usually written."""
    lines = []
    for line in document.split("\n"):
        line = unicodedata.normalize("NFC", HTML.sub(" ", line))
        for pattern, replacement in ((URL, "&url&"), (EMAIL, "&email&"), (NUMBER, "&number&"), (SPACE, " ")):
            line = pattern.sub(replacement, line)
        line = RUN.sub(r"\1\1\1", line).strip()
        if len(line) >= 2 and HANGUL.search(line) and (not lines or line != lines[-1]):
            lines.append(line)
    text = "\n".join(lines)
    if len(text) < 10 or len(HANGUL.findall(text)) < 0.3 * len(text) or len(SYMBOL.findall(text)) > 0.5 * len(text):
        return None
    return text


# ---- near duplicates ---------------------------------------------------------------------------------------------


def shingles(text: str, size: int) -> set[str]:
    text = " ".join(text.split())
    return {text[start : start + size] for start in range(len(text) - size + 1)}


def first_similar(mine: set[str], candidates: Any, sets: dict[int, set[str]], threshold: float) -> int | None:
    for other in candidates:
        if len(mine & sets[other]) >= threshold * len(mine | sets[other]):
            return int(other)
    return None


def datasketch(texts: list[str], threshold: float, size: int, bands: int, rows: int) -> list[int]:
    """datasketch's MinHash and MinHashLSH, its fast way of updating by batch."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    kept: dict[int, set[str]] = {}
    dropped = []
    empty = MinHash(num_perm=bands * rows)
    for number, text in enumerate(texts):
        mine = shingles(text, size)
        signature = empty.copy()
        signature.update_batch([shingle.encode() for shingle in mine])
        if mine and first_similar(mine, index.query(signature), kept, threshold) is not None:
            dropped.append(number)
            continue
        index.insert(number, signature, check_duplication=False)
        kept[number] = mine
    return dropped


def rensa(texts: list[str], threshold: float, size: int, bands: int, rows: int) -> list[int]:
    """rensa's MinHash, written in Rust."""
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=threshold, num_perm=bands * rows, num_bands=bands)
    kept: dict[int, set[str]] = {}
    dropped = []
    for number, text in enumerate(texts):
        mine = shingles(text, size)
        signature = RMinHash(num_perm=bands * rows, seed=1)
        signature.update(list(mine))
        if mine and first_similar(mine, index.query(signature), kept, threshold) is not None:
            dropped.append(number)
            continue
        index.insert(number, signature)
        kept[number] = mine
    return dropped


FINDERS: dict[str, Callable[[list[str], float, int, int, int], list[int]]] = {"datasketch": datasketch, "rensa": rensa}


def main() -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(FINDERS))
    parser.add_argument("texts", type=Path)
    parser.add_argument("--threshold", type=float, required=True)
    parser.add_argument("--shingle", type=int, required=True)
    parser.add_argument("--bands", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    arguments = parser.parse_args()
    texts = json.loads(arguments.texts.read_text(encoding="utf-8"))
    find = FINDERS[arguments.kind]
    find(
        texts[:1], arguments.threshold, arguments.shingle, arguments.bands, arguments.rows
    )  # the import does not count
    began = time.process_time()
    dropped = find(texts, arguments.threshold, arguments.shingle, arguments.bands, arguments.rows)
    print(json.dumps({"seconds": time.process_time() - began, "dropped": dropped}))


if __name__ == "__main__":
    main()
