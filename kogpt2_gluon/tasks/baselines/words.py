"""The most frequent labels that a word had: spans by looking words up."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from kogpt2_gluon.tasks.metrics import OUTSIDE, Predictions
from kogpt2_gluon.tasks.task import TOKEN_LABELS, Row, Span, Task
from kogpt2_gluon.wording import Say, silent

ABOUT = "the most frequent labels that a word's characters have in the train rows, none for a word that is not there"
_WORD = re.compile(r"\S+")

Tags = tuple[str, ...]


def suits(task: Task) -> bool:
    """Returns True for spans alone: with the head joint they go with the classes of the character n-grams."""
    return task.head == TOKEN_LABELS


def answer(task: Task, train: Sequence[Row], test: Sequence[Row], seed: int = 0, say: Say = silent) -> Predictions:
    """Returns the spans that the words of the test rows have."""
    tags = learn(train)
    return Predictions(spans=[find_spans(row.texts[0], tags) for row in test])


def learn(rows: Sequence[Row]) -> dict[str, Tags]:
    """Returns the most frequent labels of each word's characters; of several, the first in the order of the alphabet.

    Words that are never in a span are not among them.
    """
    seen: defaultdict[str, Counter[Tags]] = defaultdict(Counter)
    for row in rows:
        text = row.texts[0]
        tags = [OUTSIDE] * len(text)
        for begin, end, kind in row.spans:
            tags[begin:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - begin - 1)]
        for word in _WORD.finditer(text):
            seen[word[0]][tuple(tags[word.start() : word.end()])] += 1
    best = {word: min(found.items(), key=lambda each: (-each[1], each[0]))[0] for word, found in seen.items()}
    return {word: tags for word, tags in best.items() if set(tags) != {OUTSIDE}}


def find_spans(text: str, tags: dict[str, Tags]) -> tuple[Span, ...]:
    """Returns the spans of a text whose words have these labels.

    A span goes on over a space where the next word begins inside a span of the same kind.
    """
    spans: list[Span] = []
    before = OUTSIDE  # the kind of the last character that is not white space
    for word in _WORD.finditer(text):
        for place, tag in enumerate(tags.get(word[0], (OUTSIDE,) * len(word[0])), word.start()):
            kind = tag[2:]
            if tag == OUTSIDE:
                before = OUTSIDE
            elif tag.startswith("I") and before == kind:
                spans[-1] = spans[-1]._replace(end=place + 1)
            else:
                spans.append(Span(place, place + 1, kind))
                before = kind
    return tuple(spans)
