"""`kogpt2 score` as a user runs it: a table, JSON, prompts for the harness, and one line for each mistake."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.cli.main import main
from tests.convert.convert_helpers import make_checkpoint
from tests.helpers import kogpt2, small_disk
from tests.tasks.in_context_helpers import PROMPT, make_tokenizer, rows

pytest.importorskip("sklearn", reason="the metrics of tasks")

POSITIONS = 128


def longer(arrays: dict) -> None:
    arrays["_pos_embed.weight"] = np.random.RandomState(0).normal(0, 0.1, (POSITIONS, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and a person's own task with its data and its prompt."""
    folder = tmp_path_factory.mktemp("score")
    make_tokenizer(folder)
    tokenizer = (folder / "tokenizer.model").read_bytes()
    make_checkpoint(folder / "checkpoints", tokenizer, longer, max_length=POSITIONS)
    for name, count, seed in (("train", 30, 1), ("test", 20, 0)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("comment", "answer"))
            table.writerows((row.texts[0], row.label) for row in rows(count, seed))
    words = "".join(f"  {label}: {word}\n" for label, word in PROMPT.words.items())
    (folder / "prompt.yaml").write_text(
        f'template: "글: {{text}}\\n평가: {{label}}"\nwords:\n{words}', encoding="utf-8"
    )
    (folder / "own.yaml").write_text(
        "name: own\nhead: classification\nlabels: [bad, fair, good]\ntext: comment\nlabel: answer\ndelimiter: comma\n"
        "files: {train: train.csv, test: test.csv}\nmetrics: [accuracy, macro_f1]\n",
        encoding="utf-8",
    )
    return folder


def score(folder: Path, *arguments: object, code: int = 0):
    return kogpt2(
        "score",
        folder / "checkpoints",
        "--task",
        folder / "own.yaml",
        "--data",
        folder,
        "--ops",
        "stock",
        *arguments,
        code=code,
    )


def test_table_and_json(folder, tmp_path):
    options = ("--shots", "0,2", "--draws", 2, "--prompt", folder / "prompt.yaml", "--rows", 12)
    done = score(folder, *options, "--export", tmp_path / "tasks")
    lines = done.stdout.splitlines()
    assert lines[0] == f"own: 12 rows; prompt: {folder / 'prompt.yaml'}"
    assert [line.split()[:3] for line in lines[3:7]] == [
        [shots, draws, metric] for shots, draws in (("0", "1"), ("2", "2")) for metric in ("accuracy", "macro_f1")
    ]
    assert lines[5].count("+-") == 4 and lines[3].count("+-") == 0
    names = {f"own-{shots}-shots-draw-{draw}" for shots, draw in ((0, 1), (2, 1), (2, 2))}
    assert {file.name for file in (tmp_path / "tasks").iterdir()} == {
        f"{name}.{end}" for name in names for end in ("yaml", "jsonl")
    }
    found = json.loads(score(folder, *options, "--json").stdout)
    mean = found["shots"][1]["scores"]["per byte"]["accuracy"]["mean"]
    assert found["rows"] == 12 and f"{mean:.4f}" in lines[5] and f"{found['text']['bits_per_byte']:.4f}" in lines[1]


def test_what_does_not_fit_is_counted(folder):
    done = score(folder, "--shots", "12", "--draws", 1, "--prompt", folder / "prompt.yaml", "--too-long", "fewer-shots")
    assert "12 shots: 20 of 20 prompts had fewer shots, since they did not fit" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--shots", "12"), 3, "with 12 shots it needs"),
        (("--shots", "60"), 3, "60 shots were asked for, and train has 30 rows"),
        (("--shots", "1,x"), 2, "expected numbers with commas between them"),
        (("--shots", "-1"), 2, "expected numbers with commas between them"),
        (("--task", "korsts"), 2, "task korsts: its answers are regression, which no fixed choice of words"),
        (("--task", "nscm"), 2, "did you mean nsmc?"),
        (("--task", "nsmc"), 3, "for test of nsmc"),
        (("--prompt", "none.yaml"), 2, "prompt none.yaml: cannot be read"),
        (("--split", "dev"), 3, "task own: has no dev"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, code, said, monkeypatch, capsys):
    """In this process, which has loaded MXNet already."""
    task = () if "--task" in arguments else ("--task", folder / "own.yaml")
    command = ("kogpt2", "score", folder / "checkpoints", *task, "--data", folder, "--ops", "stock", *arguments)
    monkeypatch.setattr("sys.argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == code and said in err.splitlines()[-1] and not out


@pytest.mark.parametrize(
    ("missing", "ours", "words", "said"),
    [
        ("sklearn", "", ("score", "c", "--task", "nsmc", "--data", "d"), "kogpt2-gluon[tasks]"),
        ("lm_eval", "kogpt2_gluon.tasks.harness", ("lm-eval", "c", "--tasks", "t.yaml"), "kogpt2-gluon[harness]"),
    ],
)
def test_a_library_that_is_missing_is_named_first(missing, ours, words, said, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing or name == ours]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr("sys.argv", ["kogpt2", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_full_disk_under_exported_prompts(folder, tmp_path):
    with small_disk(tmp_path / "disk", 4 << 10) as disk:
        error = score(folder, "--shots", 4, "--export", disk, code=1).stderr.splitlines()[-1]
        assert error.startswith(f"kogpt2: {disk}/own-4-shots-draw-1.jsonl: the disk is full") and "--export" in error
        assert list(disk.iterdir()) == []
