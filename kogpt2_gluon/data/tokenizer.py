"""The tokenizer: SentencePiece BPE as KoGPT-2's, trained on a cleaned corpus, and read back.

Ids of the tokenizers made here: ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2, ``<pad>`` 3, ``<unused0>`` 4, and so on. The ids
of any other, KoGPT-2's released one included, are looked up by name in its file.
"""

from __future__ import annotations

import hashlib
import io
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional, Sequence

import sentencepiece

from kogpt2_gluon.data.corpus import Corpus
from kogpt2_gluon.data.files import replace_file
from kogpt2_gluon.errors import DataError, RecipeError

# How text is normalised before it is cut into pieces. `nmt_nfkc` is KoGPT-2's: NFKC, and line ends and runs of spaces
# become one space. `lossless` keeps every character but U+2581, SentencePiece's own sign for a space; what is not in
# the vocabulary falls back to bytes, a line end to <0x0A>.
PROFILES: dict[str, dict[str, Any]] = {
    "nmt_nfkc": {"normalization_rule_name": "nmt_nfkc"},
    "lossless": {"normalization_rule_name": "identity", "byte_fallback": True, "remove_extra_whitespaces": False},
}
# SentencePiece skips longer sentences and counts positions in a word with 16 bits. NFKC makes at most 18 characters of
# the 3 bytes of one (U+FDFA), so that a piece without a space, cut at this length, still fits: 8192 / 3 * 18 < 65,536.
MAX_SENTENCE_BYTES = 8192
SPACE = "\u2581"  # how SentencePiece spells a space
RESERVED = "\u2585"  # SentencePiece's inner sign for the unknown: it skips every sentence that holds one
# The file records the trainer's thread count, though no piece depends on it: fixed, for the same bytes everywhere.
TRAINER_THREADS = 16


def train_tokenizer(
    corpus_dir: Path,
    out: Path,
    vocab_size: int,
    unused: int = 100,
    character_coverage: float = 0.9995,
    profile: str = "nmt_nfkc",
    verbose: bool = False,
) -> Tokenizer:
    """Trains a SentencePiece BPE model on the whole train split of a cleaned corpus and writes it to `out`.

    `vocab_size` counts everything: the four special pieces, `unused` pieces ``<unusedN>`` for later use, and with the
    ``lossless`` profile 256 bytes. Characters outside the `character_coverage` most frequent share of the text become
    ``<unk>`` (``lossless``: bytes). `verbose` shows SentencePiece's own log on standard error.

    The result depends on the corpus and these arguments alone. SentencePiece keeps all the text in memory while it
    trains: 4.5 bytes for each of the corpus (measured), and a few hundred MB of words. Where that is too much, clean a
    sample of the sources for it; KoGPT-2's was trained on 25 million sentences of its 150.

    Raises RecipeError for an argument that cannot work, naming the value that would where there is one, and DataError
    for a bad corpus.
    """
    _check_arguments(vocab_size, unused, character_coverage, profile)
    corpus = Corpus.open(corpus_dir)
    if not corpus.count("train"):
        raise DataError(f"{corpus_dir}: its train split is empty; clean it again with a smaller --test-share")
    model = io.BytesIO()
    sentences = _Sentences(corpus)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            unk_piece="<unk>",
            bos_piece="<s>",
            eos_piece="</s>",
            pad_piece="<pad>",
            user_defined_symbols=[f"<unused{number}>" for number in range(unused)],
            max_sentence_length=MAX_SENTENCE_BYTES,
            input_sentence_size=0,  # all of them
            num_threads=TRAINER_THREADS,
            minloglevel=0 if verbose else 2,
            **PROFILES[profile],
        )
    except RuntimeError as error:
        if sentences.error is not None:
            raise sentences.error from None
        raise _explain(error, corpus_dir, vocab_size) from None
    with replace_file(out) as stream:
        stream.write(model.getvalue())
    return Tokenizer.load(out)


def _check_arguments(vocab_size: int, unused: int, character_coverage: float, profile: str) -> None:
    if profile not in PROFILES:
        raise RecipeError(f"--profile {profile}: is none of {', '.join(PROFILES)}")
    if vocab_size < 1:
        raise RecipeError(f"--vocab-size {vocab_size}: must be above 0")
    if unused < 0:
        raise RecipeError(f"--unused {unused}: must not be below 0")
    if not 0.98 <= character_coverage <= 1:
        raise RecipeError(f"--character-coverage {character_coverage:g}: must be from 0.98 to 1")


def _explain(error: RuntimeError, corpus_dir: Path, vocab_size: int) -> Exception:
    """SentencePiece's complaint as one line that says what would do."""
    message = " ".join(str(error).split())
    too_small = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if too_small:
        return RecipeError(
            f"--vocab-size {vocab_size}: too small for {corpus_dir}: its characters and the special pieces alone need "
            f"{too_small[1]}; give at least that, or a lower --character-coverage"
        )
    too_high = re.search(r"set it to a value <= (\d+)", message)
    if too_high:
        return RecipeError(
            f"--vocab-size {vocab_size}: too high for {corpus_dir}: its text yields {too_high[1]} pieces; "
            "give at most that"
        )
    return DataError(f"{corpus_dir}: SentencePiece cannot train on it: {message}")


class _Sentences:
    """The train split as SentencePiece wants it; keeps an error of ours that would else come back as a RuntimeError."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.error: Optional[DataError] = None

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self._corpus.lines("train"):
                yield from cut_sentence(line)
        except DataError as error:
            self.error = error
            raise


def cut_sentence(line: str, limit: int = MAX_SENTENCE_BYTES) -> Iterator[str]:
    """A line in sentences that SentencePiece will not skip: at most `limit` bytes of UTF-8, and no reserved sign.

    Cuts at a space, which the cut replaces: BPE is learnt from words, so that nothing is lost or changed by it. Only a
    word that is itself too long is cut between two characters.
    """
    if len(line) * 4 <= limit and RESERVED not in line:
        yield line
        return
    for part in line.split(RESERVED):
        data = part.encode()
        start = 0
        while len(data) - start > limit:
            end = data.rfind(b" ", start + 1, start + limit + 1)
            if end > 0:
                yield data[start:end].decode()
                start = end + 1
                continue
            end = start + limit
            while data[end] & 0xC0 == 0x80:  # inside a character
                end -= 1
            yield data[start:end].decode()
            start = end
        if start < len(data):
            yield data[start:].decode()


class Tokenizer:
    """A SentencePiece model: text to ids and back. `Tokenizer.load` reads one."""

    def __init__(self, model: bytes, path: Path) -> None:
        if not model:
            raise DataError(f"{path}: an empty file, not a SentencePiece model")
        self.path = path
        self.sha256 = hashlib.sha256(model).hexdigest()
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise DataError(f"{path}: not a SentencePiece model, or a damaged one") from None
        self.vocab_size: int = self._processor.get_piece_size()
        self.unk_id = self._special("<unk>")
        self.bos_id = self._special("<s>")
        self.eos_id = self._special("</s>")
        self.pad_id = self._special("<pad>")
        self._adds_space = self._processor.normalize("a").startswith(SPACE)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Reads a `.model` file. DataError if it is missing, damaged, or lacks one of ``<unk> <s> </s> <pad>``."""
        try:
            model = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the tokenizer cannot be read: {error.strerror}") from None
        return cls(model, path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer.load, (self.path,)  # so that worker processes can be handed one

    def _special(self, piece: str) -> int:
        token = self._find(piece)
        if token is None:
            raise DataError(f"{self.path}: a tokenizer without the piece {piece}, which documents need")
        return token

    def _find(self, piece: str) -> Optional[int]:
        token: int = self._processor.piece_to_id(piece)  # the id of <unk> if there is no such piece
        return token if self._processor.id_to_piece(token) == piece else None

    @cached_property
    def unused(self) -> list[str]:
        """The pieces ``<unused0>``, ``<unused1>``, ... in order, free for fine-tuning to give a meaning."""
        pieces: list[str] = []
        while self._find(f"<unused{len(pieces)}>") is not None:
            pieces.append(f"<unused{len(pieces)}>")
        return pieces

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without ``<s>`` or ``</s>``. DataError if it is not valid Unicode."""
        try:
            ids: list[int] = self._processor.encode(text, out_type=int)
        except (RuntimeError, TypeError, UnicodeEncodeError):
            _check_unicode([text])
            raise
        return ids

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """The ids of each text. DataError if one is not valid Unicode (half of a surrogate pair)."""
        try:
            ids: list[list[int]] = self._processor.encode(list(texts), out_type=int, num_threads=num_threads)
        except (RuntimeError, TypeError, UnicodeEncodeError):
            _check_unicode(texts)
            raise
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special pieces have none. DataError for an id outside the vocabulary."""
        plain = [int(token) for token in ids]
        for token in plain:
            if not 0 <= token < self.vocab_size:
                raise DataError(f"id {token} is none of the {self.vocab_size} of tokenizer {self.path}")
        text: str = self._processor.decode(plain)
        return text

    def normalize(self, text: str) -> str:
        """The text as the pieces spell it, spaces as spaces: what `bits per byte` counts the bytes of.

        The space that SentencePiece puts before the first word is no part of it.
        """
        _check_unicode([text])
        spelt: str = self._processor.normalize(text)
        return (spelt[1:] if self._adds_space else spelt).replace(SPACE, " ")


def _check_unicode(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"not valid Unicode: half of a surrogate pair, U+{ord(text[error.start]):04X}, at character "
                f"{error.start} of {text[:20]!r}"
            ) from None
