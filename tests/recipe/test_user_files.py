"""Numbers, paths and files of any editor are taken as the people who write them mean them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from kogpt2_gluon.corpus.cleaning.options import load_options
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.user_files import read_user_text, read_yaml


def recipe(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# Numbers


@pytest.mark.parametrize(
    ("key", "written", "told"),
    [
        ("training.num_steps", "0100", "0100 is 64 in YAML, which takes a leading 0 for base 8; write 100"),
        ("training.num_steps", "-010", "-010 is -8 in YAML, which takes a leading 0 for base 8; write -10"),
        ("training.num_steps", "0800", "0800 begins with 0; write 800"),
        ("training.num_steps", "00_7", "00_7 is 7 in YAML, which takes a leading 0 for base 8; write 7"),
        ("evaluation.interval", "1:40", "1:40 is 100 in YAML, which takes a colon for base 60; write one number"),
        ("data.cache_gib", "1:40.5", "1:40.5 is 100.5 in YAML, which takes a colon for base 60"),
        ("training.learning_rate", "2:30:00", "2:30:00 is 9000 in YAML, which takes a colon for base 60"),
        ("training.warmup_ratio", "010", "010 is 8 in YAML"),
    ],
)
def test_a_number_in_another_base_is_refused_with_what_was_meant(
    tmp_path: Path, key: str, written: str, told: str
) -> None:
    section, _, name = key.partition(".")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path, f"{section}: {{{name}: {written}}}\n"))
    assert f"{key}: {told}" in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        load_recipe("debug_cpu", [f"{key}={written}"])
    assert f"{key}: {told}" in str(caught.value)


def test_filters_and_weights_are_read_alike(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"length\.min_chars: 0100 is 64 in YAML"):
        load_options(recipe(tmp_path, "length: {enabled: true, min_chars: 0100}\n"))
    with pytest.raises(RecipeError, match=r"length\.min_chars: 0100 is 64 in YAML"):
        load_options(None, ["length.enabled=true", "length.min_chars=0100"])
    with pytest.raises(RecipeError, match="the weight of a: 010 is 8 in YAML"):
        load_recipe(recipe(tmp_path, "data: {train: {a: 010, b: 1}}\n"))
    with pytest.raises(RecipeError, match="the weight of a: 010 is 8 in YAML"):
        load_recipe("debug_cpu", ["data.train={a: 010, b: 1}"])


def test_all_such_numbers_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path, "training: {num_steps: 0100}\nevaluation: {interval: 1:40}\n"))
    assert "2 faults" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "number"),
    [("1000", 1000), ("1_000", 1000), ("1e3", 1000), ("+7", 7), ("0x10", 16), ("0b11", 3), ("5.0", 5), ('"12"', 12)],
)
def test_other_numbers_are_what_they_say(tmp_path: Path, written: str, number: int) -> None:
    found = load_recipe(recipe(tmp_path, f"training: {{num_steps: {written}}}\n"))
    assert found.training.num_steps == number and type(found.training.num_steps) is int
    again = tmp_path / "again.yaml"
    again.write_text(found.to_yaml(), encoding="utf-8")
    assert load_recipe(str(again)) == found


@pytest.mark.parametrize("written", ["0100", "1:40", "1.10", "2024-1-5", "1_000", "1.50e3", "0x1F", "2024"])
def test_a_text_is_what_was_written(tmp_path: Path, written: str) -> None:
    found = load_recipe(
        recipe(tmp_path, f"name: {written}\ndata: {{test: {written}}}\ntracking: {{sample_prompts: [{written}]}}\n")
    )
    assert (found.name, found.data.test, found.tracking.sample_prompts) == (written, written, [written])
    assert load_options(
        recipe(tmp_path, f"boilerplate: {{enabled: true, phrases: [{written}]}}")
    ).boilerplate.phrases == [written]


@pytest.mark.parametrize("word", ["no", "on", "Yes"])
def test_a_word_that_yaml_takes_for_true_or_false_is_explained(tmp_path: Path, word: str) -> None:
    with pytest.raises(RecipeError, match=r"name: expected a text, but YAML reads .* as (true|false); quote it"):
        load_recipe(recipe(tmp_path, f"name: {word}\n"))


# Paths


def test_a_home_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = load_recipe(
        "debug_cpu",
        ["tracking.run_dir=~/run", "checkpoint.ckpt_dir=~/saved", "data.test=~/t", "data.train={~/a: 1, b~: 2, ~: 3}"],
    )
    assert found.run_dir == tmp_path / "run" and found.ckpt_dir == tmp_path / "saved"
    assert found.data.test == f"{tmp_path}/t"
    assert found.data.train == {f"{tmp_path}/a": 1, "b~": 2, str(tmp_path): 3}
    text = load_recipe(recipe(tmp_path, "data: {source: text, tokenizer: ~/t.model, train: [~/a.txt, ./~b]}\n"))
    assert (text.data.tokenizer, text.data.train) == (f"{tmp_path}/t.model", [f"{tmp_path}/a.txt", "./~b"])


@pytest.mark.parametrize("key", ["tracking.run_dir", "checkpoint.ckpt_dir", "data.train"])
def test_the_home_of_nobody_is_refused(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"{key}: ~no-such-user/x: no such user here; write \./~no-such-user/x"):
        load_recipe("debug_cpu", [f"{key}=~no-such-user/x"])


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_an_empty_run_folder_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"tracking\.run_dir: is empty; give a name \(\. is the current folder\)"):
        load_recipe("debug_cpu", [f"tracking.run_dir={text}"])
    assert load_recipe("debug_cpu", ["tracking.run_dir=."]).run_dir == Path()


# Files of any editor

TEXT = "name: 한글\r\nabout: two\r\ntraining: {num_steps: 7}\r\n"  # Hangul


@pytest.mark.parametrize(
    "raw",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.replace("\r\n", "\r").encode(),
        TEXT.replace("\r\n", "\n").encode(),
    ],
)
def test_a_recipe_of_any_editor(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(raw)
    found = load_recipe(str(path))
    assert (found.name, found.about, found.training.num_steps) == ("한글", "two", 7)
    assert read_user_text(path, "recipe").splitlines() == TEXT.split("\r\n")[:-1]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("a: 1\nname: 한글\n".encode("cp949"), r"line 2 is not UTF-8; .* if it is CP949: iconv -f cp949 -t utf-8 "),
        (b"a: 1\n\n\xff\xff\xff\n", r"line 3 is not UTF-8; save it as UTF-8$"),
        (b"a: 1\0\n", "holds a zero byte"),
        ("name: x".encode("utf-16-le"), "holds a zero byte"),
        (codecs.BOM_UTF16_LE + b"a\0b", "is not UTF-16-LE"),
        (b"a" * ((16 << 20) + 1), "above 16 MiB, so it is not a recipe"),
        (b"- a\n", "a mapping of sections is expected, not a list"),
        (b"a: [1\n", "not readable as YAML"),
        (b"[" * 5000, "not readable as YAML"),
    ],
)
def test_any_other_file_is_refused_in_one_line(tmp_path: Path, raw: bytes, told: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(raw)
    with pytest.raises(RecipeError, match=told) as caught:
        read_yaml(path, "recipe")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(RecipeError, match="No such file"):
        read_yaml(path, "recipe")
