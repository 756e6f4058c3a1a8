"""Trains a byte-level BPE as GPT-2 has it, or one that never joins two morphemes, as HyperCLOVA has it.

Every text comes back byte for byte: the 256 bytes are tokens, nothing is normalised, nothing is unknown. The ids are as
in :mod:`kogpt2_gluon.tokens.training`: ``<unk>`` 0 (never made from a text), ``<s>`` 1, ``</s>`` 2, ``<pad>`` 3,
``<unused0>`` 4, and so on, then 256 bytes and the pieces that were learnt.

Sources: byte-level BPE and the regular expression that cuts words, Radford et al. 2019 (GPT-2); the cut at morphemes
before it, Kim et al. 2021 (HyperCLOVA, arXiv 2109.04650).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Callable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.machine.interrupts import interruptible
from kogpt2_gluon.machine.limits import available_cores
from kogpt2_gluon.machine.process_pool import start_processes
from kogpt2_gluon.storage.tokenizer_file import MORPHEMES
from kogpt2_gluon.tokens.morphemes import ANALYZER, Cutter, MorphemeError, installed
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.tokens.training import (
    SAMPLE_MB,
    Sentences,
    check_room,
    check_sizes,
    too_many,
    unused_names,
    write_tokenizer,
)
from kogpt2_gluon.wording import counted

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
BYTES = 256
PIECE_BYTES = 60  # of the file, for a piece and its merge (measured)
BATCH = 256  # sentences that a process cuts at a time

_cutter: Cutter | None = None  # in a process that cuts, set when it starts


def train_byte_level(
    corpora: Path | Sequence[Path],
    out: Path,
    vocab_size: int,
    unused: int = 100,
    morphemes: str | None = None,
    sample_mb: float = SAMPLE_MB,
    processes: int = 0,
    verbose: bool = False,
    say: Callable[[str], None] | None = None,
) -> Tokenizer:
    """Trains a byte-level BPE on the train splits of cleaned corpora and writes it to `out`, a tokenizer.json.

    Parameters and errors are those of :func:`~kogpt2_gluon.tokens.training.train_tokenizer` but for these:

    Parameters
    ----------
    vocab_size : int
        The number of all pieces: the four special ones, the unused ones, 256 bytes, and the learnt ones.
    morphemes : str or None
        ``kiwi``: text is cut at morphemes first. The file then names the version of kiwipiepy, and wants that one.
    processes : int
        Processes that cut; 0: one a core. The file is the same for any number.
    verbose : bool
        True: the trainer shows its progress.

    RecipeError also if kiwipiepy is not installed.
    """
    check_sizes(vocab_size, unused, sample_mb)
    analyzer = _analyzer(morphemes)
    least = len(SPECIAL) + unused + BYTES
    folders = [corpora] if isinstance(corpora, Path) else list(corpora)
    names = ", ".join(map(str, folders))
    if vocab_size < least:
        raise RecipeError(
            f"--vocab-size {vocab_size}: too small for byte-level BPE, whose bytes and special pieces alone are {least}"
        )
    check_room(out, vocab_size, PIECE_BYTES)
    sentences = Sentences(folders, int(sample_mb * 1e6))
    processes = processes or available_cores()
    if say:
        cutting = f", which Kiwi cuts on {counted(processes, 'core')}" if analyzer else ""
        say(f"learning from {sentences.amount()}{cutting}")
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL, *unused_names(unused)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=verbose,
    )
    try:
        trained.train_from_iterator(_cut(iter(sentences), analyzer, processes), trainer)
    except Exception as error:  # the library has no type of its own, and can hide ours in it
        if sentences.error is not None:
            raise sentences.error from None
        if isinstance(error, KoGPT2Error):
            raise
        raise DataError(f"{names}: the tokenizers library cannot train on it: {error}") from None
    if (learnt := trained.get_vocab_size()) < vocab_size:
        raise too_many(vocab_size, names, learnt)
    with interruptible():  # not before: while the library trains, it hears no signal of Python's
        return write_tokenizer(out, _content(trained, unused, analyzer))


def _analyzer(morphemes: str | None) -> dict[str, Any] | None:
    """Returns what the file says of the analyzer; None without one. RecipeError if there is no such analyzer."""
    if morphemes is None:
        return None
    if morphemes != ANALYZER:
        raise RecipeError(f"--morphemes {morphemes}: is not {ANALYZER}")
    try:
        return installed()
    except MorphemeError as error:
        raise RecipeError(f"--morphemes {morphemes}: {error}") from None


def _cut(sentences: Iterator[str], analyzer: dict[str, Any] | None, processes: int) -> Iterator[str]:
    """Yields what BPE learns from: sentences, or the pieces of them that it must not join."""
    if analyzer is None:
        yield from sentences
        return
    batches = iter(lambda: list(islice(sentences, BATCH)), [])
    with start_processes(processes, "cutting", _start_process, (analyzer,)) as run:
        for pieces in run(_cut_batch, batches):
            yield from pieces


def _start_process(analyzer: dict[str, Any]) -> None:
    global _cutter
    _cutter = Cutter(analyzer)


def _cut_batch(sentences: list[str]) -> list[str]:
    assert _cutter is not None
    return list(chain.from_iterable(map(_cutter.cut, sentences)))


def _content(trained: tokenizers.Tokenizer, unused: int, analyzer: dict[str, Any] | None) -> bytes:
    """Returns a tokenizer.json with the trained model: the same bytes for the same model."""
    model = json.loads(trained.to_str())["model"]
    plain = json.loads(tokenizers.Tokenizer(models.BPE()).to_str())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    names = [(name, True) for name in SPECIAL] + [(name, False) for name in unused_names(unused)]
    plain["added_tokens"] = [
        {"id": token, "content": name, **flags, "special": special} for token, (name, special) in enumerate(names)
    ]
    steps = json.loads(_byte_level_steps().to_str())
    plain["pre_tokenizer"] = {**steps["pre_tokenizer"], **({MORPHEMES: analyzer} if analyzer else {})}
    plain["decoder"] = steps["decoder"]
    # tokenizers before 0.20 (transformers before 4.45) needs a merge as one text; later versions read both forms
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    plain["model"] = {**plain["model"], "vocab": vocab, "merges": merges}
    return (json.dumps(plain, ensure_ascii=False, indent=1) + "\n").encode()


def _byte_level_steps() -> tokenizers.Tokenizer:
    steps = tokenizers.Tokenizer(models.BPE())
    steps.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    steps.decoder = decoders.ByteLevel()
    return steps
