"""SentencePiece's normalisation, as steps that all readers of tokenizer.json take alike.

SentencePiece replaces the longest entry of a table of characters and sequences. `tokenizers` has a step for that table
(`Precompiled`) which looks up single characters only; transformers.js does not read the table, and OpenVINO's converter
drops it when NFC follows. So it is not used here. All have NFKC and regular expressions, and the table is NFKC but for
characters that are found by trying each: those that it deletes, takes for spaces or keeps (``nmt_nfkc`` keeps U+FF5E,
``nmt_nfkc_jamo`` single Korean letters), and those that are too new for the NFKC of `tokenizers`.

All known differences are in texts with several combining marks on one letter, or one on a letter that has a mark: NFKC
orders and composes them as Unicode says, and the table has not every way to write them. Where characters without a
piece become bytes, the noncharacters U+FDD0 and U+FDD1 become those of U+FDD2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from tokenizers import Regex, normalizers

from kogpt2_gluon.errors import DataError

SPACE = "\u2581"  # SentencePiece's visible space
# The start of a text that is not empty. Not Prepend: transformers.js prepends to empty ones too. Not in front of NFKC
# either: in `tokenizers` 0.23.3 it panics where a step has put something in front of a text.
START = r"\A(?=[\s\S])"
# Noncharacters: WALL keeps apart what is on both of its sides, MARK follows a letter that NFKC must not change, and
# OTHER is a character without a piece.
WALL, MARK, OTHER = "\ufdd0", "\ufdd1", "\ufdd2"
# Code points whose normalisation is looked at; between them are ideographs, syllables and private use.
LOOKED_AT = (
    *((0x0001, 0x3400), (0x4DC0, 0x4E00), (0xA000, 0xAC00), (0xD7A4, 0xD800), (0xF900, 0xFDD0), (0xFDD3, 0x20000)),
    *((0x2F800, 0x2FA20), (0xE0000, 0xE0200)),
)
JAMO = re.compile(r"[\u1100-\u1112\u1161-\u1175\u11a8-\u11c2]")  # the letters that compose to a syllable
KOREAN = ((0x1100, 0x1200), (0x3131, 0x318F), (0x3200, 0x3280), (0xFFA0, 0xFFDD))  # all but syllables and old letters
BLOCK = 256  # characters normalised at once


def normalizer_of(
    processor: Any, spec: Any, known: frozenset[str], symbols: Iterable[str], byte_fallback: bool
) -> normalizers.Normalizer:
    """Builds the normalizer that gives SentencePiece's ids.

    Parameters
    ----------
    processor : SentencePieceProcessor
    spec : NormalizerSpec
        That of the same model.
    known : frozenset of str
        Every character of the pieces.
    symbols : iterable of str
        The user-defined symbols, which SentencePiece sets apart before it normalises.
    byte_fallback : bool
        True if a character without a piece becomes bytes, False if it becomes the unknown piece.

    Raises DataError if the table changes a character in a way for which there is no step.
    """
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps += _Table(processor, spec, frozenset() if byte_fallback else known).steps(frozenset(symbols))
    if spec.add_dummy_prefix and not spec.remove_extra_whitespaces:
        steps.append(_replace(START, SPACE))  # before the walls fall: a text that is deleted keeps this space
    if spec.precompiled_charsmap:
        steps.append(_replace(f"[{WALL}{MARK}]+", ""))
    if spec.remove_extra_whitespaces:
        steps += [_replace(rf"\A +|[ {SPACE}]+\z", ""), _replace(" {2,}", " ")]
    steps.append(normalizers.Replace(" ", SPACE))
    if spec.add_dummy_prefix and spec.remove_extra_whitespaces:
        steps.append(_replace(START, SPACE))  # only if something is left
    if not byte_fallback:
        # SentencePiece makes a run of characters without pieces one unknown piece, and so does fuse_unk. OpenVINO makes
        # each byte one, so such a character becomes a byte, and a run of that byte one: OpenVINO takes this text for a
        # regular expression. To the others it is a text that never occurs, and each unknown piece keeps its offsets.
        byte = next(chr(code) for code in (*range(1, 9), *range(14, 32)) if chr(code) not in known)
        steps += [_replace(f"[^{_ranges({*known, SPACE})}]", byte), normalizers.Replace(f"{byte}+{OTHER}?", byte)]
    return normalizers.Sequence(steps)


class _Table:
    """A model's table, and the NFKC that replaces it.

    `known` is every character that has a piece; empty if all have, as with bytes.
    """

    def __init__(self, processor: Any, spec: Any, known: frozenset[str]) -> None:
        self.processor, self.spec, self.known = processor, spec, known
        folds = [normalizers.Lowercase()] if spec.name.endswith("_cf") else []
        self.nfkc = [normalizers.NFKC(), *folds]

    def steps(self, symbols: frozenset[str]) -> list[normalizers.Normalizer]:
        """Returns NFKC between the steps that make it the table."""
        replaced: dict[str, list[str]] = {OTHER: [WALL, MARK]}  # what becomes of characters: those characters
        kept: dict[str, str] = {}  # characters that NFKC changes: what the table makes of them
        back: dict[str, str] = {}  # the character that NFKC makes of these: what the table makes of it
        differing = {char: text for char, text in self._differing() if char not in symbols}
        for char, (text, other) in differing.items():
            if len(text) == 1 and back.get(other, text) == text and self._by_nfkc([text]) == [other]:
                kept[char] = back[other] = text
            elif JAMO.search(other) or self._in_pieces(text) != self._in_pieces(other):
                replaced.setdefault(text.replace(SPACE, " ") or WALL, []).append(char)
        spaces = SPACE + SPACE
        if self.spec.remove_extra_whitespaces and self._by_table([spaces]) != [spaces]:
            replaced.setdefault(" ", []).append(SPACE)
        steps = [_replace(f"[{_ranges(chars)}]", text) for text, chars in replaced.items()]
        steps += self._walls(frozenset(kept))
        steps += self.nfkc
        in_pieces = self._in_pieces
        steps += [normalizers.Replace(n + MARK, text) for n, text in back.items() if in_pieces(n) != in_pieces(text)]
        self._check(normalizers.Sequence(steps), differing)
        return steps

    def _walls(self, kept: frozenset[str]) -> list[normalizers.Normalizer]:
        """Returns the steps that put WALL and MARK around `kept`, and WALL between a syllable and a final consonant.

        NFKC joins these two (U+AC00 U+11A8), and the table does not, however they are written.
        """
        open_syllables = [chr(0xAC00 + 28 * index) for index in range(11172 // 28)]
        becomes = {char: self.nfkc[0].normalize_str(char) for char in map(chr, chain(*map(range, *zip(*KOREAN))))}
        before = [*open_syllables, *(char for char, text in becomes.items() if text[-1] in open_syllables)]
        finals = [char for char, text in becomes.items() if "\u11a8" <= text[0] <= "\u11c2"]
        steps = [_replace(f"(?<=[{_ranges(before)}])(?=[{_ranges(finals)}])", WALL)]
        if kept:
            letters = _ranges(kept)
            steps += [_replace(rf"(?<=[\s\S])(?=[{letters}])", WALL), _replace(f"(?<=[{letters}])", MARK)]
        return steps

    def _by_table(self, texts: list[str]) -> list[str]:
        """Returns what SentencePiece makes of texts, with visible spaces."""
        start = 1 + int(self.spec.add_dummy_prefix)
        return [text[start:-1] for text in self.processor.normalize([f".{text}." for text in texts])]

    def _by_nfkc(self, texts: list[str]) -> list[str]:
        nfkc = normalizers.Sequence(self.nfkc)
        return [nfkc.normalize_str(text).replace(" ", SPACE) for text in texts]

    def _in_pieces(self, text: str) -> str:
        """Returns a text in which each run of characters without pieces is OTHER, since they become the same id."""
        known = self.known
        return re.sub(f"{OTHER}+", OTHER, "".join(each if not known or each in known else OTHER for each in text))

    def _differing(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yields the characters of which table and NFKC make different texts, each with both texts."""
        chars = [chr(code) for first, end in LOOKED_AT for code in range(first, end)]
        for at in range(0, len(chars), BLOCK):
            block = chars[at : at + BLOCK]
            joined = [".".join(block)]  # a full stop composes with nothing
            if self._by_table(joined) != self._by_nfkc(joined):
                both = zip(self._by_table(block), self._by_nfkc(block))
                yield from ((char, texts) for char, texts in zip(block, both) if texts[0] != texts[1])

    def _check(self, normalizer: normalizers.Normalizer, differing: dict[str, tuple[str, str]]) -> None:
        """Raises DataError naming the first character that the steps do not change as the table does."""
        for char, (text, _) in differing.items():
            ours = re.sub(f"[{WALL}{MARK}]", "", normalizer.normalize_str(f".{char}."))[1:-1].replace(" ", SPACE)
            if self._in_pieces(ours) != self._in_pieces(text):
                raise DataError(f"its normalisation makes {text!r} of {char!r}; it cannot be converted")


def _replace(pattern: str, content: str) -> normalizers.Normalizer:
    return normalizers.Replace(Regex(pattern), content)


def _ranges(chars: Iterable[str]) -> str:
    r"""Returns the inside of a character class, such as \x{41}-\x{5A}, which all engines read."""
    codes = sorted(map(ord, chars))
    firsts = [code for before, code in zip([-2, *codes], codes) if code != before + 1]
    lasts = [code for code, after in zip(codes, [*codes[1:], -2]) if after != code + 1]
    return "".join(f"\\x{{{a:X}}}" + (f"-\\x{{{b:X}}}" if b > a else "") for a, b in zip(firsts, lasts))
