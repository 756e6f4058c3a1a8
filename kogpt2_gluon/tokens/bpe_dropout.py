"""BPE-dropout (Provilkov et al., 2020) that gives the same tokens for a seed in every process and on every machine.

SentencePiece samples too, but each process salts its generator (0.2.3: Abseil's) differently, so a resumed run would
draw other tokens. This file follows its algorithm (the best pair first, the leftmost of equal pairs; a pair that was
dropped comes back only when a neighbour merges) for all segments of many texts at once, in NumPy.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.storage.tokenizer_file import is_json

LONGEST_ROW = 24  # symbols; longer segments are merged one by one
NO_PAIR = np.iinfo(np.int32).max  # the rank of a pair that does not make a piece, or was dropped
UNKNOWN, GONE = -2, -1  # symbols: a character without a piece; a symbol that was merged into the one before it
FIRST_SURROGATE = 0xD800  # surrogates are not characters, so one of these codes can represent each user-defined piece

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]


def refuse_json(model: bytes, path: Path) -> None:
    """Raises RecipeError for a tokenizer.json: the library's own dropout draws other tokens in every process."""
    if is_json(model):
        raise RecipeError(
            f"{path}: data.bpe_dropout needs a SentencePiece model, and this is a tokenizer.json; set "
            "data.bpe_dropout=0"
        )


class BPEDropout:
    """A SentencePiece BPE model that encodes with some merges left out at random.

    Raises RecipeError for a model of another type than BPE, and for a tokenizer.json. A model in which pieces share a
    score works too: of two pieces with the same score, the one with the lower id goes first.
    """

    def __init__(self, model: bytes, path: Path) -> None:
        refuse_json(model, path)
        proto = model_proto(model, path)
        kind, types = proto.trainer_spec, proto.SentencePiece
        if kind.model_type != kind.BPE or any(piece.type == types.UNUSED for piece in proto.pieces):
            raise RecipeError(
                f"{path}: data.bpe_dropout needs a BPE model without pieces of type UNUSED; set data.bpe_dropout=0"
            )
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._vocab_size = len(proto.pieces)
        self._unk_id: int = self._processor.unk_id()
        ids = {piece.piece: number for number, piece in enumerate(proto.pieces) if piece.type == types.NORMAL}
        defined = [piece.piece for piece in proto.pieces if piece.type == types.USER_DEFINED]
        if len(defined) > 2048:
            raise RecipeError(f"{path}: {len(defined)} user-defined pieces, more than the 2,048 of data.bpe_dropout")
        self._defined = {piece: chr(FIRST_SURROGATE + number) for number, piece in enumerate(defined)}
        longest_first = sorted(map(re.escape, defined), key=len, reverse=True)
        self._find_defined = re.compile("|".join(longest_first)) if defined else None
        self._bytes: Int32Array | None = None
        if kind.byte_fallback:
            names = [f"<0x{value:02X}>" for value in range(256)]
            self._bytes = np.array([self._processor.piece_to_id(name) for name in names], np.int32)
        self._index_characters(ids, {self._defined[piece]: self._processor.piece_to_id(piece) for piece in defined})
        self._index_pairs(ids, [piece.score for piece in proto.pieces])

    def _index_characters(self, ids: dict[str, int], defined: dict[str, int]) -> None:
        """Makes the tables of single characters: sorted codes, and the id of each."""
        single = {piece: token for piece, token in ids.items() if len(piece) == 1} | defined
        codes = sorted(single, key=ord)
        # A model can lack pieces of one character; the tables then have a code that no character has.
        self._codes = np.array([ord(code) for code in codes] or [-1], np.int64)
        self._code_ids = np.array([single[code] for code in codes] or [UNKNOWN], np.int32)

    def _index_pairs(self, ids: dict[str, int], scores: list[float]) -> None:
        """Makes the tables of pairs, as sorted keys: two pieces that make a third, and two neighbours in any piece."""
        pairs: list[tuple[int, int, int]] = []
        neighbours: set[tuple[int, int]] = set()
        for piece, token in ids.items():
            for cut in range(1, len(piece)):
                left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
                if left is not None and right is not None:
                    pairs.append((left, right, token))
                one, other = ids.get(piece[cut - 1]), ids.get(piece[cut])
                if one is not None and other is not None:
                    neighbours.add((one, other))
        table = np.array(pairs, np.int64).reshape(-1, 3)
        keys = table[:, 0] * self._vocab_size + table[:, 1]
        order = np.argsort(keys)
        self._piece_of_rank = np.lexsort((np.arange(self._vocab_size), -np.array(scores))).astype(np.int32)
        rank_of_piece = np.argsort(self._piece_of_rank).astype(np.int32)
        # One more key, which no pair equals, so that every search ends inside the table.
        self._pair_keys = np.append(keys[order], np.iinfo(np.int64).max)
        self._pair_ranks = np.append(rank_of_piece[table[order, 2]], np.int32(NO_PAIR))
        sides = np.array(sorted(neighbours), np.int64).reshape(-1, 2)
        self._neighbour_keys = np.append(sides[:, 0] * self._vocab_size + sides[:, 1], np.iinfo(np.int64).max)

    def encode(self, texts: Sequence[bytes], dropout: float, seed: int) -> tuple[Int32Array, Int64Array]:
        """Encodes many texts: all ids in one array (int32), and the number of ids of each text (int64).

        Parameters
        ----------
        texts : sequence of bytes
            Valid UTF-8.
        dropout : float
            The probability that a merge is left out; 0 gives SentencePiece's own ids.
        seed : int
            The same texts, dropout and seed give the same ids.
        """
        generator = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF])  # its stream is frozen
        spelt = [self._spell(text.decode()) for text in texts]
        text_ends = np.cumsum([len(text) for text in spelt], dtype=np.int64)
        codes = np.frombuffer("".join(spelt).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
        if not len(codes):
            return np.empty(0, np.int32), np.zeros(len(texts), np.int64)
        at = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        symbols = np.where(self._codes[at] == codes, self._code_ids[at], np.int32(UNKNOWN))
        self._merge(symbols, self._segments(symbols, text_ends), dropout, generator)
        return self._finish(symbols, codes, text_ends)

    def _spell(self, text: str) -> str:
        """Returns a text in the spelling of the pieces, with one character for each user-defined piece."""
        spelt: str = self._processor.normalize(text)
        if self._find_defined is None:
            return spelt
        return self._find_defined.sub(lambda match: self._defined[match[0]], spelt)

    def _segments(self, symbols: Int32Array, text_ends: Int64Array) -> Int64Array:
        """Returns where segments begin: texts are cut between characters that are neighbours in no piece."""
        wide = symbols.astype(np.int64)
        keys = wide[:-1] * self._vocab_size + wide[1:]
        together = self._neighbour_keys[np.searchsorted(self._neighbour_keys, keys)] == keys
        together &= (wide[:-1] >= 0) & (wide[1:] >= 0)
        inner_ends = text_ends[(text_ends > 0) & (text_ends < len(symbols))]
        together[inner_ends - 1] = False
        return np.concatenate([[0], np.flatnonzero(~together) + 1])

    def _merge(self, symbols: Int32Array, starts: Int64Array, dropout: float, generator: np.random.RandomState) -> None:
        """Replaces the characters of every segment, in place, by its pieces and by `GONE` after them."""
        lengths = np.diff(np.append(starts, len(symbols)))
        for length in np.unique(lengths[lengths > 1]):
            first = starts[lengths == length]
            if length <= LONGEST_ROW:
                places = first[:, None] + np.arange(length)
                symbols[places] = self._merge_rows(symbols[places], dropout, generator)
                continue
            for start in first.tolist():
                pieces = self._merge_one(symbols[start : start + length].tolist(), dropout, generator)
                symbols[start : start + length] = GONE
                symbols[start : start + len(pieces)] = pieces

    def _ranks(self, left: Int32Array, right: Int32Array) -> Int32Array:
        """Returns the ranks of the pieces that pairs make, and NO_PAIR for a pair that makes none."""
        keys = left.astype(np.int64) * self._vocab_size + right
        at = np.searchsorted(self._pair_keys, keys)
        found = (self._pair_keys[at] == keys) & (left >= 0) & (right >= 0)
        return np.where(found, self._pair_ranks[at], np.int32(NO_PAIR))

    def _merge_rows(self, rows: Int32Array, dropout: float, generator: np.random.RandomState) -> Int32Array:
        """Returns the pieces of many segments of one length (count, length); merges one pair of each at a time."""
        count, length = rows.shape
        columns = np.arange(length)
        result = np.full((count, length), GONE, np.int32)
        # One more column, so that the last symbol can move to the left too.
        symbols = np.concatenate([rows, np.full((count, 1), GONE, np.int32)], axis=1)
        ranks = np.full((count, length), NO_PAIR, np.int32)
        ranks[:, :-1] = self._ranks(rows[:, :-1], rows[:, 1:])
        number = np.arange(count)
        while True:
            best = ranks.argmin(axis=1)
            rank = ranks[np.arange(len(best)), best]
            live = rank != NO_PAIR
            if not live.all():
                result[number[~live]] = symbols[~live, :length]
                symbols, ranks, number, best, rank = symbols[live], ranks[live], number[live], best[live], rank[live]
            if not len(number):
                return result
            dropped = generator.random_sample(len(number)) < dropout
            ranks[np.flatnonzero(dropped), best[dropped]] = NO_PAIR
            kept = np.flatnonzero(~dropped)
            at = best[kept]
            each = np.arange(len(kept))
            moved = np.take_along_axis(symbols[kept], columns + (columns > at[:, None]), axis=1)
            moved[each, at] = piece = self._piece_of_rank[rank[kept]]
            symbols[kept, :length] = moved
            pairs = np.take_along_axis(ranks[kept], np.minimum(columns + (columns >= at[:, None]), length - 1), axis=1)
            pairs[:, -1] = NO_PAIR
            pairs[each, at] = self._ranks(piece, symbols[kept, at + 1])
            before = self._ranks(np.where(at > 0, moved[each, at - 1], GONE), piece)
            pairs[each, at - 1] = np.where(at > 0, before, pairs[each, at - 1])
            ranks[kept] = pairs

    def _merge_one(self, symbols: list[int], dropout: float, generator: np.random.RandomState) -> list[int]:
        """Returns the pieces of one long segment; uses a heap of pairs."""
        after = [*range(1, len(symbols)), -1]
        before = list(range(-1, len(symbols) - 1))
        heap: list[tuple[int, int, int, int]] = []  # rank, place of the left symbol, the two symbols
        left, right = np.array(symbols[:-1], np.int32), np.array(symbols[1:], np.int32)
        for place, rank in enumerate(self._ranks(left, right).tolist()):
            if rank != NO_PAIR:
                heap.append((rank, place, symbols[place], symbols[place + 1]))
        heapq.heapify(heap)

        def add(place: int) -> None:
            one, other = symbols[place], symbols[after[place]]
            key = one * self._vocab_size + other
            at = int(np.searchsorted(self._pair_keys, key))
            if self._pair_keys[at] == key:
                heapq.heappush(heap, (int(self._pair_ranks[at]), place, one, other))

        while heap:
            rank, place, one, other = heapq.heappop(heap)
            following = after[place]
            if symbols[place] != one or following < 0 or symbols[following] != other:
                continue  # one of them has been merged in the meantime
            if generator.random_sample() < dropout:
                continue
            symbols[place], symbols[following] = int(self._piece_of_rank[rank]), GONE
            after[place] = after[following]
            if after[place] >= 0:
                before[after[place]] = place
                add(place)
            if before[place] >= 0:
                add(before[place])
        return [symbol for symbol in symbols if symbol != GONE]

    def _finish(self, symbols: Int32Array, codes: Int64Array, text_ends: Int64Array) -> tuple[Int32Array, Int64Array]:
        """Returns the ids, and their number in each text.

        Characters without a piece become bytes, or one ``<unk>`` for each run of them.
        """
        counts = (symbols != GONE).astype(np.int64)
        unknown = symbols == UNKNOWN
        if self._bytes is not None:
            counts[unknown] += np.searchsorted([0x80, 0x800, 0x10000], codes[unknown], side="right")
        else:
            again = unknown[1:] & unknown[:-1]
            inner_ends = text_ends[(text_ends > 0) & (text_ends < len(symbols))]
            again[inner_ends - 1] = False
            counts[1:][again] = 0
        ids = np.repeat(symbols, counts)
        if self._bytes is not None:
            data = "".join(map(chr, codes[unknown].tolist())).encode()
            ids[ids == UNKNOWN] = self._bytes[np.frombuffer(data, np.uint8)]
        else:
            ids[ids == UNKNOWN] = self._unk_id
        ends = np.concatenate([[0], np.cumsum(counts)])[text_ends]
        return ids, np.diff(np.concatenate([[0], ends]))
