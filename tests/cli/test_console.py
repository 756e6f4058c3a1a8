"""Output on a console that lacks characters, and paths that begin with ~."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from kogpt2_gluon.cli.generate import print_texts
from kogpt2_gluon.cli.group import to_json
from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.inference.text_writer import Text
from tests.helpers import kogpt2, run

KOREAN = "오늘 값은 ㎏ 😀"  # today's value is kg, and an emoji, which CP949 lacks

# (click itself prints UTF-8 where the console is said to be ASCII, as with LANG=C.)


def text_in(encoding: str, *argv: object, code: int = 0) -> str:
    """The output of a command on a console with an encoding, decoded."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([str(each) for each in argv], capture_output=True, env=environment, check=False, timeout=300)
    assert done.returncode == code and b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["cp949", "latin-1", "utf-8"])
@pytest.mark.parametrize("module", ["kogpt2_gluon.cli.main", "kogpt2_launch.cli.main"])
def test_help_is_printed_in_any_encoding(encoding, module):
    shown = text_in(encoding, sys.executable, "-m", module, "--help")
    assert "Usage: " in shown
    verb = ["tokenizer", "rename"] if module.startswith("kogpt2_gluon") else ["run"]
    assert "Example" in text_in(encoding, sys.executable, "-m", module, *verb, "--help")


@pytest.mark.parametrize("encoding", ["cp949", "latin-1", "iso2022_kr"])
def test_a_recipe_that_the_console_lacks_is_printed(encoding, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(f"about: {KOREAN}\n", encoding="utf-8")
    shown = text_in(encoding, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", path, "--dry-run")
    assert "about: " in shown and "?" in shown and "parameters" in shown


@pytest.mark.parametrize("encoding", ["cp949", "latin-1", "ascii"])
def test_json_for_programs_is_escaped_not_replaced(encoding, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"about": KOREAN}), encoding="utf-8")
    launch = [sys.executable, "-m", "kogpt2_launch.cli.main", "plan", path, f"name={KOREAN}", "--json"]
    plan = json.loads(text_in(encoding, *launch))
    assert plan["recipe"]["overrides"] == [f"name={KOREAN}"]
    assert plan == json.loads(text_in("utf-8", *launch))


def test_an_option_with_a_home_is_no_folder_named_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "a.txt").write_text("가 나 다\n라 마 바\n", encoding="utf-8")
    kogpt2("clean", "a.txt", "--documents", "line", "--out=~/corpus", "--test-share=0", HOME=str(home))
    assert (home / "corpus" / "corpus.json").is_file()
    launch = [sys.executable, "-m", "kogpt2_launch.cli.main", "plan", "debug_cpu", "--out=~/plan.json"]
    run(*launch, HOME=str(home))
    assert (home / "plan.json").is_file()
    done = kogpt2("clean", "a.txt", "--documents", "line", "--out=~nobody-here/x", code=2)
    assert "~nobody-here/x: no such user here" in done.stderr
    assert sorted(each.name for each in Path().iterdir()) == ["a.txt", "home"]


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["가", "나"], ["가", "나"]),
        (["가\n나"], ["가", "나"]),
        (["가\n나", "다"], ["RULE 1 of 2 RULE", "가", "나", "RULE 2 of 2 RULE", "다"]),
        (["", "\n", "가"], ["RULE 1 of 3 RULE", "", "RULE 2 of 3 RULE", "", "", "RULE 3 of 3 RULE", "가"]),
    ],
)
def test_samples_with_line_breaks_have_a_rule_between_them(texts, shown, capsys):
    print_texts([Text("", text) for text in texts])
    assert capsys.readouterr().out.replace("-" * 20, "RULE").splitlines() == shown


def test_notes_are_on_stderr_and_in_json(checkpoint):
    arguments = ["generate", str(checkpoint.path), "오늘 龘 <s>", "--max-new-tokens", "2", "--temperature", "0"]
    done = CliRunner().invoke(cli, arguments)
    notes = [line.removeprefix("kogpt2: note: ") for line in done.stderr.splitlines()]
    assert ["'龘'" in notes[0], "<s> in the prompt" in notes[1], len(notes)] == [True, True, 2]
    found = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert found["notes"] == notes and found["prompt"] == "오늘 龘 <s>"
    assert done.stdout == found["texts"][0] + "\n"


@pytest.mark.parametrize("encoding", ["cp949", "latin-1", "cp1252"])
def test_generate_prints_on_any_console(encoding, checkpoint):
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "generate", checkpoint.path, f"{KOREAN} 龘", "-n", "2"]
    shown = text_in(encoding, *command, "--max-new-tokens", "3")
    assert shown.count("?") >= 2  # ⁇ at least
    found = json.loads(text_in(encoding, *command, "--max-new-tokens", "3", "--json"))
    assert found["prompt"] == f"{KOREAN} 龘" and len(found["texts"]) == 2 and "cannot spell" in found["notes"][0]


def test_json_has_numbers_and_null_alone():
    """Programs in other languages refuse NaN and Infinity, which Python would write."""
    data = {"a": float("nan"), "b": [np.float32("inf"), np.int64(7), (0.5, -np.inf)], "c": Path("x"), "d": "NaN"}
    assert json.loads(to_json(data)) == {"a": None, "b": [None, 7, [0.5, None]], "c": "x", "d": "NaN"}
    assert "NaN" not in to_json({"perplexity": float("nan")})
