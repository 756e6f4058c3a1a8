"""Where do words end that carry particles? Stems of words, by the statistics of a text alone.

A Korean word is a stem with particles or endings after it: 텐서를, 텐서의, 텐서에서 are 텐서 ("tensor"). After a whole
stem much can follow, within a stem little: the entropy of the next letter (right branching entropy, Jin and
Tanaka-Ishii, 2006) and the number of different ones (accessor variety, Feng et al., 2004) are high there. A stem is
also met as a word without anything after it, which the inside of a verb (사용하-) is not.

What is left over after stems is an ending if it follows many of them. A word that is a stem with such an ending, and
after which less can follow than after the stem, is no stem of its own (텐서에서). Neither is one after which nothing
can follow and whose beginning is open, be that a single letter or never a word by itself (값을, 사용하여). Nor is the
beginning of longer stems (하이퍼 of 하이퍼파라미터): it has to be a stem without the words of the longer ones too.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

END = ""  # follows a stem that is the whole word
SHORTEST, LONGEST = 2, 24  # letters of a stem
LEAST_ENTROPY = 1.0  # bits
LEAST_VARIETY = 3  # different letters after a stem, the end of the word among them
LEAST_BARE = 0.05  # share of the times that a stem is the whole word
IS_WORD = 0.5  # from this share on it is a word, whatever follows it elsewhere
LEAST_STEMS = 3  # that an ending follows,
LEAST_SHARE = 0.02  # and at least this share of all stems
LONGEST_ENDING = 8


@dataclass(frozen=True)
class Stem:
    """The beginning of words, and how often each letter (END: none) comes after it."""

    text: str
    followers: Mapping[str, int] = field(repr=False)

    @property
    def count(self) -> int:
        return sum(self.followers.values())

    @property
    def bare(self) -> float:
        """The share of the times that it is the whole word."""
        return self.followers.get(END, 0) / max(1, self.count)

    @property
    def entropy(self) -> float:
        """The entropy of what follows, in bits."""
        total = self.count
        shares = (times / total for times in self.followers.values() if times)
        return -sum(share * math.log2(share) for share in shares)

    @property
    def is_open(self) -> bool:
        """True if much can follow."""
        variety = sum(times > 0 for times in self.followers.values())
        return variety >= LEAST_VARIETY and self.entropy >= LEAST_ENTROPY

    @property
    def takes_endings(self) -> bool:
        """True if much can follow, and need not."""
        return self.is_open and self.bare >= LEAST_BARE

    @property
    def is_whole(self) -> bool:
        """True for a stem or a word, False for a part of one."""
        if self._is_inside_latin():
            return False
        return self.takes_endings or self.bare >= IS_WORD

    def _is_inside_latin(self) -> bool:
        """Returns True if mostly Latin letters follow a Latin one: these have no particles."""
        after = sum(times for letter, times in self.followers.items() if letter and letter.isascii())
        return self.text[-1].isascii() and 2 * after > self.count

    def without(self, longer: Iterable[Stem]) -> Stem:
        """Returns the stem without the words of longer ones that begin with it."""
        left = Counter(self.followers)
        for each in longer:
            left[each.text[len(self.text)]] -= each.count
        return Stem(self.text, +left)


def find_stems(words: Mapping[str, int], least: int) -> dict[str, Stem]:
    """Returns the stems of words that are met at least `least` times, longer ones not counted: {text: stem}.

    `words` is {word: times}, each of letters only. The order of the words does not matter.
    """
    beginnings = {stem.text: stem for stem in _beginnings(words, least)}
    found = {text: stem for text, stem in beginnings.items() if len(text) >= SHORTEST and stem.is_whole}
    endings = find_endings(words, found)
    kept = {text: stem for text, stem in found.items() if not _has_ending(stem, beginnings, endings)}
    whole: dict[str, Stem] = {}
    longer: dict[str, list[Stem]] = {}  # by each beginning, the kept stems that are next to it in length
    for text in sorted(kept, key=lambda text: (-len(text), text)):
        stem = kept[text].without(longer.get(text, ()))
        if stem.count < least or not stem.is_whole:
            continue
        whole[text] = stem
        for size in range(SHORTEST, len(text)):
            begin = text[:size]
            nearer = [each for each in longer.get(begin, ()) if not each.text.startswith(text)]
            longer[begin] = [*nearer, kept[text]]
    return whole


def find_endings(words: Iterable[str], stems: Mapping[str, Stem]) -> set[str]:
    """Returns the endings of words: what is left over after many different stems that take endings."""
    takes = {text for text, stem in stems.items() if stem.takes_endings}
    after: Counter[str] = Counter()
    for word in words:
        for size in range(max(SHORTEST, len(word) - LONGEST_ENDING), len(word)):
            if word[:size] in takes:
                after[word[size:]] += 1
    least = max(LEAST_STEMS, LEAST_SHARE * len(takes))
    return {ending for ending, stems_before in after.items() if stems_before >= least}


def _has_ending(stem: Stem, beginnings: Mapping[str, Stem], endings: set[str]) -> bool:
    text = stem.text
    for size in range(1, len(text)):
        shorter = beginnings[text[:size]]
        if text[size:] not in endings or not shorter.is_open:
            continue
        is_stem = size >= SHORTEST and shorter.takes_endings
        if stem.entropy < shorter.entropy if is_stem else not stem.takes_endings:
            return True
    return False


def _beginnings(words: Mapping[str, int], least: int) -> Iterator[Stem]:
    """Yields the beginnings of words that are met at least `least` times, with what follows each."""
    ordered = sorted(words)
    sums = [0]
    for word in ordered:
        sums.append(sums[-1] + words[word])
    todo = [(0, len(ordered), 0)]  # words from ... to ..., which begin with the same so many letters
    while todo:
        first, last, size = todo.pop()
        begin = ordered[first][:size] if first < last else ""
        followers: dict[str, int] = {}
        place = first
        if first < last and len(ordered[first]) == size:
            followers[END] = words[ordered[first]]
            place += 1
        while place < last:
            letter = ordered[place][size]
            after = bisect_left(ordered, begin + chr(ord(letter) + 1), place, last)
            followers[letter] = sums[after] - sums[place]
            if followers[letter] >= least and size < LONGEST:
                todo.append((place, after, size + 1))
            place = after
        if size:
            yield Stem(begin, followers)


def count_longest(words: Mapping[str, int], stems: Mapping[str, Stem] | set[str]) -> Counter[str]:
    """Returns how often each stem begins a word of which no longer stem is the beginning."""
    found: Counter[str] = Counter()
    for word, times in words.items():
        if stem := longest_beginning(word, stems):
            found[stem] += times
    return found


def longest_beginning(word: str, stems: Container[str]) -> str:
    """Returns the longest of the stems with which a word begins, "" if there is none."""
    for size in range(min(len(word), LONGEST), SHORTEST - 1, -1):
        if word[:size] in stems:
            return word[:size]
    return ""
