"""`kogpt2 predict` as a user runs it, and what the verbs for language models say to a fine-tuned network."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.runs.checkpoint import Checkpoint, save_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import name_best
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer
from tests.convert.convert_helpers import make_checkpoint
from tests.convert.head_helpers import SENTENCES, make_fine_tuned
from tests.helpers import kogpt2
from tests.training.task_helpers import write_task

OPTIONS = ("--device", "cpu", "--ops", "stock")


@pytest.fixture(scope="module")
def made(small_tokenizer: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """Networks with different heads."""
    folder = tmp_path_factory.mktemp("made")
    return {kind: make_fine_tuned(folder / kind, small_tokenizer, kind) for kind in ("class", "pair", "number", "both")}


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.txt"
    path.write_text("\n".join([*SENTENCES, ""]) + "\n", encoding="utf-8")
    return path


def predict(checkpoint: Checkpoint, *arguments: object, code: int = 0):
    return kogpt2("predict", checkpoint.path, *arguments, *OPTIONS, code=code)


def invoke(*arguments: object, **options):
    """A verb in this process, which has MXNet already."""
    return CliRunner().invoke(cli, [str(each) for each in arguments], **options)


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_with_a_row_a_line(made, reviews, tmp_path):
    done = predict(made["class"], reviews, "--out", tmp_path / "new" / "answers.jsonl")
    assert f"{tmp_path / 'new' / 'answers.jsonl'}: the answers to 6 rows, of made-class" in done.stdout
    found = lines_of((tmp_path / "new" / "answers.jsonl").read_text(encoding="utf-8"))
    assert [each["row"] for each in found] == [1, 2, 3, 4, 5, 6]
    assert set(found[0]["probabilities"]) == {"bad", "보통", "good"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["answers.jsonl"]
    printed = predict(made["class"], reviews)
    assert printed.stderr == ""
    for line, each, text in zip(printed.stdout.splitlines(), found, [*SENTENCES, ""]):
        number, label, probability, shown = line.split("\t")
        assert (int(number), label) == (each["row"], each["label"]) and shown == " ".join(text.split())
        assert float(probability) == pytest.approx(each["probabilities"][label], abs=1e-4)


def test_standard_input(made):
    path = str(made["class"].path)
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "predict", path, "-", "--json", *OPTIONS]
    done = subprocess.run(command, input="하나\n둘\n".encode(), capture_output=True, check=True, timeout=120)
    assert [each["row"] for each in lines_of(done.stdout.decode())] == [1, 2]
    pairs = '{"text": "하나", "text_2": "둘\\n셋"}\n{"text": "넷", "text_2": "왜"}\n'
    done = invoke("predict", made["pair"].path, "-", *OPTIONS, input=pairs)
    assert [len(line.split("\t")) for line in done.output.splitlines()] == [5, 5]
    bad = invoke("predict", made["pair"].path, "-", *OPTIONS, input="a\tb\na\n")
    assert bad.output == "" and isinstance(bad.exception, DataError)
    assert str(bad.exception).startswith("standard input, line 2: 1 text, and made-pair takes two")


def test_nobody_reads_the_answers(made, tmp_path):
    rows = tmp_path / "rows.txt"
    rows.write_text("왜\n" * 20_000, encoding="utf-8")
    arguments = [sys.executable, "-m", "kogpt2_gluon.cli.main", "predict", str(made["class"].path), str(rows), *OPTIONS]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith(b"1\t")
    process.stdout.close()
    assert "Traceback" not in process.stderr.read().decode()
    process.wait(timeout=60)


def test_notes_and_what_is_refused(made, reviews, tmp_path):
    path = made["number"].path
    cut = invoke("predict", path, reviews, "--seq-length", 6, "--too-long", "cut", "--json", *OPTIONS)
    assert "kogpt2: note: 3 of 6 rows are cut: they are too long" in cut.stderr
    assert all(1 <= each["value"] <= 5 for each in lines_of(cut.stdout))
    before = reviews.read_bytes()
    for arguments, kind, message in (
        ((reviews, "--seq-length", 6), DataError, "reviews.txt, line 1: 8 tokens, more than the 6"),
        ((reviews, "--seq-length", 65), RecipeError, "above the 64 tokens"),
        ((reviews, "--out", reviews), RecipeError, "is INPUT"),
        ((reviews, "--out", tmp_path), RecipeError, "is a folder"),
        ((tmp_path / "none.txt",), DataError, "no such file"),
    ):
        done = invoke("predict", path, *arguments, *OPTIONS)
        assert isinstance(done.exception, kind) and message in str(done.exception) and done.stdout == ""
    assert reviews.read_bytes() == before
    bad = tmp_path / "bad.txt"
    bad.write_text("왜\n" * 3 + "a\tb\n", encoding="utf-8")
    error = predict(made["number"], bad, "--out", tmp_path / "answers.jsonl", code=3).stderr
    assert error.count("\n") == 1 and not (tmp_path / "answers.jsonl").exists()


def test_the_newest_checkpoint_is_not_always_the_best(made, reviews, tmp_path):
    """And a folder of several runs is none."""
    checkpoint, ckpt_dir = made["class"], tmp_path / "runs" / "seed-0" / "checkpoints"
    stored = stored_tokenizer(checkpoint.tokenizer_path)
    for step in (20, 40):
        state = {**checkpoint.state(), "step": step}
        save_checkpoint(ckpt_dir, state, checkpoint.model_arrays(), {}, checkpoint.recipe(), stored)
    name_best(ckpt_dir, 20)
    run = ckpt_dir.parent
    note = f"note: the newest checkpoint is taken; the best on the dev rows is {run / 'best'}"
    assert note in invoke("predict", run, reviews, *OPTIONS).output
    assert "note" not in invoke("predict", run / "best", reviews, *OPTIONS).output
    assert note in invoke("convert", run, tmp_path / "out").output
    error = str(invoke("predict", run.parent, reviews).exception)
    assert f"no checkpoint there, but runs are: seed-0; name one, such as {run}" in error


def test_verbs_for_language_models_say_what_a_fine_tuned_one_is_for(made, reviews, tmp_path, small_tokenizer):
    path = made["class"].path
    verbs = [
        ("generate", path, "왜"),
        ("evaluate", path, reviews, "--documents", "line"),
        ("score", path, "--task", write_task(tmp_path / "task"), "--data", tmp_path / "task"),
    ]
    if importlib.util.find_spec("lm_eval"):
        verbs.append(("lm-eval", path, "--tasks", "made"))
    for verb in verbs:
        error = invoke(*verb, "--device", "cpu").exception
        assert isinstance(error, DataError), (verb, error)
        assert "is fine-tuned for made-class" in str(error) and "kogpt2 predict" in str(error)
    error = kogpt2("generate", path, "왜", code=3).stderr
    assert error.count("\n") == 1 and "is fine-tuned for made-class" in error
    other = make_checkpoint(tmp_path / "checkpoints", small_tokenizer)
    assert "first: kogpt2 finetune" in str(invoke("predict", other.path, reviews).exception)
