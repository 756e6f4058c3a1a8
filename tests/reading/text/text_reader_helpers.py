"""Small text files, and what a stream of tokens should hold."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.corpus.documents import read_documents
from kogpt2_gluon.corpus.records import Document
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.reading.text.reader import TextReader
from kogpt2_gluon.reading.text.tokens import Cursor, DocumentEncoder, SequenceBlock, TextStream
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.tokens.tokenizer import Tokenizer

SEQ = 8
SENTENCE = "오늘은 날씨가 맑아서 강변을 걸었다 이 영화는 정말 재미있게 봤어요"  # fine weather; a good film
WORDS = SENTENCE.split()


def recipe_for(model: Path, folder: Path, size: int = 1, **data: object) -> Recipe:
    train = {"batch_size": 3, "total_batch_size": 6 * size, "seed": 5}
    settings = {"source": "text", "train": str(folder), "tokenizer": str(model), "seq_length": SEQ, **data}
    return parse_recipe({"data": settings, "model": {"vocab_size": 400}, "training": train})


def write_text(folder: Path, num_files: int, seed: int = 0, largest: int = 40) -> list[str]:
    """Files of one document a line; each document begins with a number of its own."""
    folder.mkdir(exist_ok=True)
    draw, texts = random.Random(seed), []
    for number in range(num_files):
        lines = [
            f"{number} {line} " + " ".join(draw.choices(WORDS, k=draw.randint(0, 9)))
            for line in range(draw.randint(largest // 4, largest))
        ]
        (folder / f"wiki_news_corpus_{number:02d}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        texts += lines
    return texts


def steps(reader: TextReader, worker: Any, count: int, until_epoch: int = 0) -> tuple[list[np.ndarray], list[Any]]:
    """`count` updates (or those up to the end of an epoch) as the training loop takes them, and what it hears."""
    updates, heard = [], []
    for update in reader:
        updates.append(update.copy())
        lines = reader.agree(worker.sum(reader.notices()), worker)
        heard.append((reader.consumed, reader.epoch, reader.epoch_ended, lines))
        if len(updates) == count or (reader.epoch_ended and int(reader.epoch) == until_epoch):
            break
    return updates, heard


def row_of(sources: list[Source], kind: str, tokenizer: Tokenizer) -> list[int]:
    """All tokens of files one after another, made the plain way."""
    row: list[int] = []
    for source in sources:
        for item in read_documents(source, kind):
            if isinstance(item, Document) and item.text.strip():
                row += [tokenizer.bos_id, *tokenizer.encode(item.text), tokenizer.eos_id]
    return row


def stream(sources: list[Source], tokenizer: Tokenizer, kind: str = "line", **other: Any) -> TextStream:
    encoder = DocumentEncoder(tokenizer, other.get("dropout", 0.0))
    return TextStream(sources, kind, encoder, SEQ, other.get("key", (5, 0, 0)))


def first_round(opened: TextStream, start: Cursor | None = None) -> list[SequenceBlock]:
    blocks = []
    for block in opened.blocks(start or Cursor()):
        blocks.append(block)
        if block.after.round:
            break
    return blocks
