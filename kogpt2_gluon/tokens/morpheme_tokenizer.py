"""A tokenizer.json whose text is cut at morphemes before byte-level BPE gets it; see :mod:`.morphemes`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.tokenizer_file import TokenizerJson
from kogpt2_gluon.tokens.json_tokenizer import JsonTokenizer
from kogpt2_gluon.tokens.morphemes import Cutter, MorphemeError, whole_tokens


class MorphemeTokenizer(JsonTokenizer):
    """Byte-level BPE over pieces that a morpheme analyzer cuts: no token runs over the border of two morphemes.

    Parameters
    ----------
    file : TokenizerJson
    analyzer : dict
        What the file says of the analyzer.

    DataError, in one line with the way out, if the analyzer is missing or is another one than the file names.
    """

    def __init__(self, file: TokenizerJson, analyzer: dict[str, Any]) -> None:
        super().__init__(file)
        if not self._spelling.byte_level or self.adds_space or self._library.normalizer:
            raise DataError(f"{self.path}: cut at morphemes, but not byte-level BPE without normalisation")
        try:
            self._cutter = Cutter(analyzer, whole_tokens(file.plain))
        except MorphemeError as error:
            raise DataError(f"{self.path}: {error}") from None

    def _cut(self, texts: Sequence[str]) -> list[list[str]]:
        try:
            return [self._cutter.cut(text) for text in texts]
        except MorphemeError as error:
            raise DataError(f"{self.path}: {error}") from None
        except Exception as error:  # of Kiwi, which has no type of its own for them
            raise DataError(f"{self.path}: Kiwi failed on a text: {' '.join(str(error).split())[:300]}") from None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text. DataError if one is not valid Unicode, or the library fails on it."""
        with self._usable(texts):
            found = self._encode_batch(self._cut(texts), is_pretokenized=True, add_special_tokens=False)
            return [encoding.ids for encoding in found]

    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Returns the ids of each text and the characters that each id stands for; see Tokenizer."""
        with self._usable(texts):
            pieces = self._cut(texts)
            encodings = self._library.encode_batch(pieces, is_pretokenized=True, add_special_tokens=False)
        return [
            (list(encoding.ids), _places(cut, encoding.word_ids, encoding.offsets))
            for cut, encoding in zip(pieces, encodings)
        ]


def _places(
    cut: Sequence[str], numbers: Sequence[int | None], offsets: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Returns places in a text, of ids whose `offsets` are places in the piece with that number."""
    begins = [0, *accumulate(map(len, cut))]
    pairs = [(number, offset) for number, offset in zip(numbers, offsets) if number is not None]
    assert len(pairs) == len(numbers)  # only tokens that a template adds are of no piece
    return [(begins[number] + start, begins[number] + end) for number, (start, end) in pairs]
