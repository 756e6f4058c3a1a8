"""Prompts: those of the public tasks fit their tasks, a person's own is checked, and texts go in as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.tasks.prompts.prompts import Prompt, open_prompt, parse_prompt
from kogpt2_gluon.tasks.public import PUBLIC
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Task

FILES = sorted((Path(__file__).parents[2] / "kogpt2_gluon" / "tasks" / "prompts").glob("*.yaml"))
NSMC, PAIR = PUBLIC["nsmc"], PUBLIC["question-pair"]


def test_there_is_a_prompt_for_each_of_these_tasks():
    names = {"nsmc", "question-pair", "kornli", "klue-nli", "pawsx", "hate-speech", "3i4k"}
    assert {file.stem for file in FILES} == names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_fits_its_task_and_no_piece_crosses_its_border(file):
    task = PUBLIC[file.stem]
    prompt = open_prompt(task)
    assert list(prompt.words) == list(task.labels) and prompt.name.startswith(file.name)
    assert prompt.delimiter == " " and prompt.separator == "\n\n" and prompt.neutral
    assert prompt == parse_prompt(file.read_text(encoding="utf-8"), prompt.name, task)


@pytest.mark.parametrize("name", [name for name, task in PUBLIC.items() if task.head != CLASSIFICATION])
def test_other_tasks_say_why_they_have_none(name):
    with pytest.raises(RecipeError, match=f"task {name}: its answers are .*, which no fixed choice of words can ask"):
        open_prompt(PUBLIC[name])


def test_a_task_without_a_file_is_asked_by_its_own_words():
    own = Task("own", "", CLASSIFICATION, NSMC.read, {}, ("accuracy",), ("a", "b"), names={"a": "가"})
    prompt = open_prompt(own)
    assert prompt.words == {"a": "가", "b": "b"} and prompt.context([], ("글자",)) == "글: 글자\n분류: "


def test_shots_come_first_each_with_its_answer():
    prompt = parse_prompt(
        "template: '{text} => {label}!'\nwords: {negative: N, positive: P}\nseparator: ' / '", "x", NSMC
    )
    shots = [Row(("one",), "positive"), Row(("two",), "negative")]
    assert prompt.context(shots, ("three",)) == "one => P! / two => N! / three => "
    assert prompt.answer(("three",), "positive") == "P!" and prompt.delimiter == " "


def test_the_answer_can_stand_in_the_middle():
    text = "template: '{text_1} {label}, {text_2}'\nwords: {same: 즉, different: 그러나}"
    prompt = parse_prompt(text, "x", PAIR)
    assert prompt.question(("a", "b")) == "a " and prompt.answer(("a", "b"), "different") == "그러나, b"


def test_texts_go_in_as_they_are():
    prompt = Prompt("x", "{text_1}|{text_2}: {label}", {"same": "S", "different": "D"})
    odd = ("{text_2} {label} {0} %s \\1", "{text_1}")
    assert prompt.context([Row(odd, "same")], odd) == f"{odd[0]}|{odd[1]}: S\n\n{odd[0]}|{odd[1]}: "


WORDS = "words: {negative: 부정, positive: 긍정}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("template: '{text} {label}'", "words: expected a word for each of negative, positive"),
        (WORDS, "template: is missing; it is a text with {text} and {label}"),
        (WORDS + "template: '{text}'", "template: {label} is missing"),
        (WORDS + "template: '{label}'", "template: {text} is missing"),
        (WORDS + "template: '{text} {label} {label}'", "{label} more than once"),
        (WORDS + "template: '{text} {text_1} {label}'", "{text_1} is none of {text}, {label}"),
        (WORDS + "template: '{text} {label}'\nseperator: x", "unknown key seperator; did you mean separator?"),
        (WORDS + "template: '{text} {label}'\nseparator: ''", "separator: expected a text that is not empty"),
        (WORDS + "template: '{text} {label}'\nneutral: none", "neutral: expected a list"),
        ("template: '{text} {label}'\nwords: {negative: ' ', positive: 긍정}", "negative has no word"),
        ("template: '{text} {label}'\nwords: {negative: 좋다, positive: '좋다 '}", "have the same word 좋다"),
        ("template: '{text} {label}'\nwords: {0: 부정, 1: 긍정}", "0 is not a label of nsmc, which has negative, posi"),
        ("- a", "expected the keys template, words"),
        ("a: [", "not readable as YAML"),
        ("template: !!python/object/apply:os.system ['true']", "x.yaml: "),
    ],
)
def test_faults_are_named(text, said):
    with pytest.raises(RecipeError) as raised:
        parse_prompt(text, "x.yaml", NSMC)
    assert said in str(raised.value)


def test_all_faults_at_once(tmp_path):
    (tmp_path / "p.yaml").write_text("templat: x\nwords: {negative: a}\n", encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"p\.yaml: 3 faults:\n  unknown key templat; .*\n  template: is mis.*\n  words: pos"
    ):
        open_prompt(NSMC, tmp_path / "p.yaml")
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read"):
        open_prompt(NSMC, tmp_path / "none.yaml")
