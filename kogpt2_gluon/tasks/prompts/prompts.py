"""A task in words: a template, a word for each label, and what is between shots.

    template: "영화평: {text}\\n평가: {label}"
    words: {negative: 부정, positive: 긍정}
    separator: "\\n\\n"
    neutral: [해당 없음]

The template has {text}, or of a pair {text_1} and {text_2}, and {label} once. What follows {label} belongs to the
answer, and is scored with it. A neutral text takes the place of the texts where the likelihoods of labels alone are
wanted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Task
from kogpt2_gluon.user_files import load_yaml, read_user_text

KEYS = ("template", "words", "separator", "neutral")
SEPARATOR = "\n\n"
NEUTRAL = ("해당 없음",)  # "not applicable"
PLACE = re.compile(r"\{([^{}]*)\}")
LABEL = "{label}"


@dataclass(frozen=True)
class Prompt:
    """How the rows of a task are asked.

    Attributes
    ----------
    name : str
        Where it comes from, for people.
    template : str
    words : mapping
        {label: word}, for every label of the task, in its order.
    separator : str
        Between two shots, and before the question.
    neutral : tuple of str
        Texts without meaning.
    """

    name: str
    template: str
    words: Mapping[str, str]
    separator: str = SEPARATOR
    neutral: tuple[str, ...] = NEUTRAL

    @property
    def delimiter(self) -> str:
        """The white space in front of a label, which belongs to the answer."""
        before = self.template.partition(LABEL)[0]
        return before[len(before.rstrip()) :]

    def question(self, texts: Sequence[str]) -> str:
        """Returns the template up to the label."""
        return _fill(self.template.partition(LABEL)[0], texts)

    def answer(self, texts: Sequence[str], label: str) -> str:
        """Returns what follows a question: the word of a label and the rest of the template."""
        return self.words[label] + _fill(self.template.partition(LABEL)[2], texts)

    def context(self, shots: Sequence[Row], texts: Sequence[str]) -> str:
        """Returns solved rows and the question."""
        solved = [self.question(row.texts) + self.answer(row.texts, row.label) for row in shots]
        return "".join(each + self.separator for each in solved) + self.question(texts)


def _fill(part: str, texts: Sequence[str]) -> str:
    """Puts texts in their places, all at once: a text that has braces of its own stays as it is."""
    return PLACE.sub(lambda found: texts[int(found[1] == "text_2")], part)


def open_prompt(task: Task, file: Path | None = None) -> Prompt:
    """Returns the prompt of a task: that of a person's file, else the one here, else a plain one of its words.

    RecipeError for a task whose answers are not classes, and with all faults of a file.
    """
    if task.head != CLASSIFICATION:
        raise RecipeError(
            f"task {task.name}: its answers are {task.head}, which no fixed choice of words can ask for; likelihoods "
            f"are for {CLASSIFICATION}: fine-tune it"
        )
    if file:
        return parse_prompt(read_user_text(file, "prompt"), str(file), task)
    own = resources.files(__package__).joinpath(f"{task.name}.yaml")
    if re.fullmatch(r"[a-z0-9-]+", task.name) and own.is_file():
        return parse_prompt(own.read_text(encoding="utf-8"), f"{task.name}.yaml of kogpt2_gluon", task)
    return _plain_prompt(task)


def _plain_prompt(task: Task) -> Prompt:
    """A prompt of a task that has none."""
    texts = "글 1: {text_1}\n글 2: {text_2}" if task.is_pair else "글: {text}"
    words = {label: task.names.get(label, label) for label in task.labels}
    return Prompt("a plain one", f"{texts}\n분류: {LABEL}", words)


def parse_prompt(text: str, name: str, task: Task) -> Prompt:
    """Reads a prompt for a task. RecipeError names all faults at once."""
    try:
        plain = load_yaml(text, as_texts=True)
    except yaml.YAMLError as error:
        raise RecipeError(f"prompt {name}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(plain, dict):
        raise RecipeError(f"prompt {name}: expected the keys {', '.join(KEYS)}")
    faults = list(_faults(plain, task))
    if faults:
        head = f"prompt {name}: " if len(faults) == 1 else f"prompt {name}: {len(faults)} faults:\n  "
        raise RecipeError(head + "\n  ".join(faults))
    words = {label: plain["words"][label] for label in task.labels}
    return Prompt(
        name,
        plain["template"],
        words,
        plain.get("separator", SEPARATOR),
        tuple(plain.get("neutral", NEUTRAL)),
    )


def _faults(plain: Mapping[Any, Any], task: Task) -> Iterator[str]:
    for key in plain:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            yield f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else f"; the keys: {', '.join(KEYS)}")
    yield from _template_faults(plain.get("template"), task)
    yield from _word_faults(plain.get("words"), task)
    separator = plain.get("separator", SEPARATOR)
    if not isinstance(separator, str) or not separator:
        yield "separator: expected a text that is not empty, else shots run into each other"
    neutral = plain.get("neutral", NEUTRAL)
    if isinstance(neutral, str) or not neutral or not all(isinstance(each, str) for each in neutral):
        yield "neutral: expected a list of one text or more"


def _template_faults(template: Any, task: Task) -> Iterator[str]:
    if not isinstance(template, str):
        yield "template: is missing; it is a text with " + " and ".join(_places(task))
        return
    found = [match[0] for match in PLACE.finditer(template)]
    if unknown := [place for place in found if place not in _places(task)]:
        yield f"template: {unknown[0]} is none of {', '.join(_places(task))}"
    for place in _places(task):
        if place not in found:
            yield f"template: {place} is missing"
    if found.count(LABEL) > 1:
        yield f"template: {LABEL} more than once"


def _places(task: Task) -> tuple[str, ...]:
    return ("{text_1}", "{text_2}", LABEL) if task.is_pair else ("{text}", LABEL)


def _word_faults(words: Any, task: Task) -> Iterator[str]:
    if not isinstance(words, dict):
        yield f"words: expected a word for each of {', '.join(task.labels)}"
        return
    for label in words:
        if label not in task.labels:
            yield f"words: {label} is not a label of {task.name}, which has {', '.join(task.labels)}"
    owners: dict[str, str] = {}
    for label in task.labels:
        word = words.get(label)
        if not isinstance(word, str) or not word.strip():
            yield f"words: {label} has no word"
        elif word.strip() in owners:
            yield f"words: {owners[word.strip()]} and {label} have the same word {word.strip()}"
        else:
            owners[word.strip()] = label
