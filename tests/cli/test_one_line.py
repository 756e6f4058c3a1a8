"""Errors that a user can fix are one line with the command's name, and an exit code, in both commands."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli import main as kogpt2
from kogpt2_gluon.errors import DataError, RecipeError, one_line
from kogpt2_launch.cli import main as launcher

FAULTS = [
    (RecipeError("no such key"), 2, "no such key"),
    (DataError("no shards"), 3, "no shards"),
    (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
    (OSError("the wire is cut"), 1, "system: the wire is cut"),
    (KeyboardInterrupt(), 130, "interrupted"),
]


@pytest.fixture(params=FAULTS, ids=lambda fault: type(fault[0]).__name__)
def fault(request):
    return request.param


def failing(error):
    @click.command()
    def fails():
        raise error

    return fails


def test_of_kogpt2(fault, monkeypatch, capsys):
    error, code, text = fault
    monkeypatch.setattr(kogpt2, "cli", failing(error))
    monkeypatch.setattr("sys.argv", ["kogpt2"])
    with pytest.raises(SystemExit) as ended:
        kogpt2.main()
    assert (ended.value.code, capsys.readouterr().err.lstrip("\n")) == (code, f"kogpt2: {text}\n")


def test_of_kogpt2_launch(fault, monkeypatch):
    error, code, text = fault
    monkeypatch.setitem(launcher.main.commands, "fails", failing(error))
    done = CliRunner().invoke(launcher.main, ["fails"])
    assert (done.exit_code, done.stderr) == (code, f"kogpt2-launch: {text}\n")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), one_line("kogpt2"):
        _ = 1 / 0
    with pytest.raises(BrokenPipeError), one_line("kogpt2"):
        raise BrokenPipeError
