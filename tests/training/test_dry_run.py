"""Faults of a recipe's data are found before anything is computed, and by a dry run too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.reading.mix import show_passes
from kogpt2_gluon.reading.training_data import training_tokenizer
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.shards.format import TOKENIZER, Manifest
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.dry_run import check_data, describe
from tests.helpers import kogpt2
from tests.reading.text.text_reader_helpers import recipe_for, write_text


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: bytes) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(small_tokenizer)
    return path


@pytest.fixture()
def other(shards: Path, model: Path, tmp_path: Path) -> Path:
    """The held-out shards as if another tokenizer had made them."""
    folder = tmp_path / "other"
    shutil.copytree(shards / "test", folder)
    shutil.copy(model, folder / TOKENIZER)
    manifest = Manifest.load(folder)
    manifest.tokenizer_sha256 = Tokenizer.load(model).sha256
    manifest.save(folder)
    return folder


def with_data(tiny: list[str], **data: object) -> Recipe:
    return load_recipe("debug_cpu", [*tiny, *(f"data.{key}={value}" for key, value in data.items())])


def test_a_dry_run_refuses_what_training_does(tiny: list[str], shards: Path, other: Path) -> None:
    check_data(with_data(tiny))
    check_data(with_data(tiny, train=""))
    with pytest.raises(DataError, match=r"nope: no shards there for data\.test"):
        check_data(with_data(tiny, test="nope"))
    with pytest.raises(DataError, match="nope"):
        check_data(with_data(tiny, test="nope", train=""))
    with pytest.raises(DataError, match="other: made with another tokenizer than"):
        check_data(with_data(tiny, test=other))
    with pytest.raises(DataError, match=r"^nope: "):
        check_data(with_data(tiny, train="nope"))
    with pytest.raises(RecipeError, match="7 workers cannot share"):
        check_data(with_data(tiny), size=7)
    assert "epochs unknown (nope: " in describe(with_data(tiny, train="nope"))  # what it takes is said all the same


def test_a_dry_run_of_text_refuses_what_training_does(tmp_path: Path, model: Path) -> None:
    write_text(tmp_path / "text", 2)
    check_data(recipe_for(model, tmp_path / "text"), size=1)
    with pytest.raises(DataError, match="nope: no such file"):
        check_data(recipe_for(model, tmp_path / "nope"), size=1)
    with pytest.raises(RecipeError, match="3 workers cannot share 2 text files"):
        check_data(recipe_for(model, tmp_path / "text", 3), size=3)


def test_the_command_says_so(tiny: list[str]) -> None:
    done = kogpt2("train", "debug_cpu", *tiny, "data.test=nope", "--dry-run", code=3)
    assert done.stderr.startswith("kogpt2: nope: no shards there for data.test") and "parameters" in done.stdout


def test_a_mix_of_two_tokenizers_names_the_training_sets(tiny: list[str], shards: Path, other: Path) -> None:
    for first, second in ((shards / "train", other), (other, shards / "train")):
        with pytest.raises(DataError, match=f"^{second}: its tokenizer_sha256 is .*, that of {first} is"):
            training_tokenizer(with_data(tiny, train=f"[{first}, {second}]"))


def test_few_passes_are_shown_in_digits_that_count() -> None:
    shown = {12.5: "12.50", 1234.5: "1,234.50", 0.25: "0.25", 0.0416: "0.042", 0.00031: "0.00031", 0.0: "0.00"}
    assert {passes: show_passes(passes) for passes in shown} == shown


# Text that would be read wrongly.


@pytest.mark.parametrize("inside", ["", "a.txt"])
def test_a_cleaned_corpus_is_read_as_it_says(tmp_path: Path, model: Path, inside: str) -> None:
    folder = tmp_path / "wiki"
    folder.mkdir()
    (folder / "corpus.json").write_text(json.dumps({"documents": "blank-line"}))
    (folder / "train").mkdir()
    (folder / "train" / "a.txt").write_text(
        "맑은 날\n강변\n\n좋은 글\n", encoding="utf-8"
    )  # fine day, riverside; good text
    train = folder / "train" / inside
    with pytest.raises(RecipeError, match=r"says that its documents are blank-line, not line; set data\.documents=bl"):
        check_data(recipe_for(model, train), size=1)
    check_data(recipe_for(model, train, documents="blank-line"), size=1)
    with pytest.raises(DataError, match=f"{folder}: a cleaned corpus; .*: data.train={folder}/train"):
        check_data(recipe_for(model, folder), size=1)


def test_a_field_that_no_record_has_is_answered_with_those_there_are(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"id": 3, "text": "좋은 글"}\n{"body": "글"}\n', encoding="utf-8")  # good text; text
    for field in ("content", "id"):
        fields = "id: a number; text: a text; body"
        with pytest.raises(DataError, match=rf"a\.jsonl: no text under '{field}' in its first 2 records; .*: {fields}"):
            check_data(recipe_for(model, path, documents=field), size=1)
    for field in ("text", "body", "field:text"):
        check_data(recipe_for(model, path, documents=field), size=1)
