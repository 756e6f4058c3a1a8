"""Faults of a recipe's data are found before anything is computed, and by a dry run too."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, DiskFullError, RecipeError
from kogpt2_gluon.estimate import size_of
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.mix import show_passes
from kogpt2_gluon.reading.training_data import check_training_reader, open_training_reader, training_tokenizer
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.shards.format import TOKENIZER, Manifest
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training import start
from kogpt2_gluon.training.dry_run import PlannedWorker, describe
from kogpt2_gluon.training.dry_run import check as check_all
from kogpt2_gluon.training.resume_point import resume_choice
from tests.helpers import kogpt2, run, small_disk
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


def check_data(recipe: Recipe, size: int = 0) -> str:
    return "\n".join(check_all(recipe, size=size))


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
        check_data(load_recipe("debug_cpu", [*tiny, "training.total_batch_size=28"]), size=7)
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


# A dry run makes the run's own checks.


def both(*arguments: object, code: int) -> tuple[str, str]:
    """The output of a dry run and the error of the run; both end with the same exit code and, if refused, line."""
    dry = kogpt2("train", "debug_cpu", *arguments, "--dry-run", code=code)
    run = kogpt2("train", "debug_cpu", *arguments, code=code)
    if code:
        assert dry.stderr.splitlines()[-1] == run.stderr.splitlines()[-1]
    return dry.stdout, run.stderr


def test_what_the_run_refuses_the_dry_run_refuses(tiny: list[str], tmp_path: Path) -> None:
    run_dir, steps = tmp_path / "run", "training.num_steps=4"
    assert "start              at step 0" in both(*tiny, "training.num_steps=2", code=0)[0]
    files = sorted(str(path) for path in tmp_path.rglob("*"))
    dry = kogpt2("train", "debug_cpu", *tiny, steps, "--dry-run").stdout
    assert f"start              resumes from step 2 ({run_dir}/checkpoints/step-00000002)" in dry
    assert "changed since then training.num_steps: 2 -> 4" in dry and "free disk          " in dry
    assert "another recipe (model.dropout: 0.1 -> 0.3)" in both(*tiny, steps, "model.dropout=0.3", code=2)[1]
    assert "another recipe (training.seed" in both(*tiny, steps, "training.seed=7", code=2)[1]
    assert "already holds step-00000002" in both(*tiny, steps, "--resume", "Never", code=2)[1]
    assert "no checkpoint there" in both(*tiny, steps, "--resume", tmp_path / "nowhere", code=3)[1]
    record = run_dir / "metrics.jsonl"
    whole = record.read_bytes()
    record.write_bytes(b"damaged\n" + whole)
    assert "metrics.jsonl: line 1 is not" in both(*tiny, steps, code=3)[1]
    record.write_bytes(whole)
    newest, oldest = (run_dir / "checkpoints" / f"step-0000000{step}" / "model.params" for step in (2, 0))
    newest.write_bytes(newest.read_bytes()[:-1])
    dry = kogpt2("train", "debug_cpu", *tiny, steps, "--dry-run").stdout
    assert f"WARNING: {newest}: missing, truncated or damaged" in dry and "resumes from step 0 (" in dry
    oldest.unlink()
    files.remove(str(oldest))
    assert f"no checkpoint is whole: {newest}: missing" in both(*tiny, steps, code=3)[1]
    assert sorted(str(path) for path in tmp_path.rglob("*")) == files  # nothing is left by any of them


@pytest.mark.parametrize("key", ["tracking.run_dir", "checkpoint.ckpt_dir"])
def test_folders_that_cannot_be_are_refused(tiny: list[str], tmp_path: Path, key: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder in (
        tmp_path / "file",
        tmp_path / "file" / "run",
        tmp_path / "link",
        Path("/proc/nope"),
        Path("/dev/null/x"),
    ):
        with pytest.raises(RecipeError, match=f"{key}={folder}: cannot be made"):
            check_data(load_recipe("debug_cpu", [*tiny, f"{key}={folder}"]))
    check_data(load_recipe("debug_cpu", [*tiny, f"{key}={tmp_path}/new/folder"]))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link"]


def test_a_dry_run_loads_no_mxnet(tiny: list[str]) -> None:
    code = (
        "import sys; from kogpt2_gluon.recipe import load_recipe; from kogpt2_gluon.training.dry_run import check\n"
        f"print(*check(load_recipe('debug_cpu', {tiny!r})), 'mxnet' in sys.modules)"
    )
    assert run(sys.executable, "-c", code).stdout.rstrip().endswith("False")


def test_free_disk_is_compared_with_the_estimate(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("debug_cpu", [*tiny, "checkpoint.keep=2"])  # two, the best one, and one that is being written
    one = size_of(recipe).checkpoint
    for free, told in (
        (4 * one, ""),
        (4 * one - 1, "MB free, and its checkpoints take"),
        (one, "free, and its checkpoints"),
    ):
        monkeypatch.setattr(start, "free_bytes", lambda path, free=free: free)
        assert (told in check_data(recipe)) and (bool(told) == ("note: " in check_data(recipe)))
    monkeypatch.setattr(start, "free_bytes", lambda path: one - 1)
    with pytest.raises(DiskFullError, match=r"checkpoints: the disk is full .*; a checkpoint needs .* MB; make room"):
        check_data(recipe)


@pytest.mark.parametrize("size", [1, 2])
def test_a_resumed_reader_is_checked_for_the_planned_workers(tiny: list[str], size: int) -> None:
    kogpt2("train", "debug_cpu", *tiny, "training.num_steps=2")
    more = [*tiny, "training.num_steps=4"]
    assert "resumes from step 2" in check_data(load_recipe("debug_cpu", more), size=size)
    with pytest.raises(DataError, match="its data had"):
        check_data(load_recipe("debug_cpu", [*more, "data.window=3"]), size=size)


def test_a_resume_of_text_is_checked(tmp_path: Path, model: Path) -> None:
    write_text(tmp_path / "text", 2)
    recipe = recipe_for(model, tmp_path / "text")
    reader = open_training_reader(recipe, Worker())
    saved = reader.state()
    reader.close()
    check_training_reader(recipe, Worker(), saved)
    with pytest.raises(RecipeError, match=r"saved by 1 workers, .* cannot resume with 2"):
        check_training_reader(recipe_for(model, tmp_path / "text", 2), PlannedWorker(2), saved)
    next((tmp_path / "text").iterdir()).write_text("새 글\n" * 20, encoding="utf-8")  # a new text
    with pytest.raises(DataError, match="has changed since epoch 1 began"):
        check_training_reader(recipe, Worker(), saved)


@pytest.mark.parametrize(
    ("given", "taken"), [("Auto", "auto"), ("NEVER", "never"), (" auto ", "auto"), ("./Auto", "./Auto")]
)
def test_auto_and_never_in_any_case(given: str, taken: str) -> None:
    assert resume_choice(given) == taken


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("atuo", "did you mean auto"),
        ("nevr", "did you mean never"),
        ("Autos", "did you mean auto"),
        ("", "is empty"),
        (" ", "is empty"),
        ("~no-such-user/run", "no such user here"),
    ],
)
def test_a_word_that_is_neither_is_no_path(given: str, told: str) -> None:
    with pytest.raises(RecipeError, match=rf"^--resume .*{told}"):
        resume_choice(given)


# A full disk.


def test_a_full_disk_in_training_names_path_need_and_last_save(tiny: list[str], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        settings = [*tiny, f"tracking.run_dir={disk}/run", "checkpoint.interval=2", "checkpoint.keep=0"]
        settings += ["training.num_steps=100000", "tracking.tensorboard=false"]
        error = kogpt2("train", "debug_cpu", *settings, code=1).stderr.splitlines()[-1]
        found = re.search(
            # Whichever meets it first: the thread that saves, or the record of a step that is made meanwhile.
            rf"^kogpt2: {disk}/run.*: the disk is full \([\d.]+ MB free of 8\.4 MB\); (?:the checkpoint of step "
            r"[\d,]+ needs [\d.]+ MB|the record of the run needs room too); (step-\d+) was saved last; make room and "
            r"run again to go on from it$",
            error,
        )
        assert found and (disk / "run" / "checkpoints" / found[1] / "manifest.json").exists(), error
        shutil.copytree(disk / "run", tmp_path / "run", dirs_exist_ok=True)
    again = kogpt2("train", "debug_cpu", *tiny, f"training.num_steps={int(found[1][5:]) + 1}", "checkpoint.keep=0")
    assert f"going on from {tmp_path}/run/checkpoints/{found[1]}" in again.stdout


@pytest.mark.parametrize("name", ["recipe.yaml", "log.txt", "metrics.jsonl"])
def test_a_full_disk_for_the_record_is_named(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from kogpt2_gluon.runs import metrics
    from kogpt2_gluon.training import loop

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = {"recipe.yaml": (loop, "write_file"), "log.txt": (metrics.Tracker, "_note")}
    monkeypatch.setattr(*target.get(name, (metrics.Tracker, "_record")), full)
    with pytest.raises(
        DiskFullError, match=rf"^{tmp_path}/run: the disk is full .*; nothing was saved before; make room"
    ):
        loop.train(load_recipe("debug_cpu", [*tiny, "training.num_steps=2"]))
