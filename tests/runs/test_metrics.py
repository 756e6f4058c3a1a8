"""The record of a run: console, metrics.jsonl, TensorBoard events and samples."""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kogpt2_gluon.errors import DataError, PreemptedError, RecipeError
from kogpt2_gluon.runs import metrics
from kogpt2_gluon.runs.metrics import Eta, NullTracker, StepRecord, Tracker, read_metrics, tracker_for
from kogpt2_gluon.wording import duration
from tests.helpers import ROOT
from tests.runs.tracking_helpers import HOSTILE, log


def events(folder: Path) -> list:
    """Every event of a TensorBoard folder, read from the record format itself."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            found.append(event_pb2.Event.FromString(data[place + 12 : place + 12 + length]))
            place += 12 + length + 4
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {(value.tag, event.step): value.simple_value for event in events(folder) for value in event.summary.value}


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 1000.0

        def advance(self, seconds: float) -> None:
            self.now += seconds

    moved = Clock()
    monkeypatch.setattr(metrics.time, "monotonic", lambda: moved.now)
    return moved


class TestTracker:
    def test_one_step_is_recorded_everywhere(self, tmp_path, capsys):
        with Tracker(tmp_path / "run", 200) as tracker:
            tracker.log_step(StepRecord(50, 5.25, 3e-4, 0.75, 12345.6, 2048.0, 0.5, 2500))
            tracker.log_evaluation(50, {"loss": 5.5, "perplexity": 244.69, "bits_per_byte": 1.67})
        console = capsys.readouterr().out
        assert re.search(
            r"^step  50/200 \|  25\.00% \| loss  5\.2500, mean  5\.2500 \| lr 3\.00e-04 \| norm   0\.750 "
            r"\|    12,346 tok/s \|   2,048 MB \| epoch   0\.500 \| eta +\S+$",
            console,
            re.MULTILINE,
        )
        assert "step  50/200 |  25.00% | held-out | loss 5.5000 | perplexity 244.6900 | bits per byte 1.6700" in console
        logged = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
        assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in logged] == [
            *console.splitlines(),
            "ended: done",
        ]
        train, evaluation = read_metrics(tmp_path / "run")
        assert {key: train[key] for key in ("kind", "step", "loss", "learning_rate", "tokens")} == {
            "kind": "train",
            "step": 50,
            "loss": 5.25,
            "learning_rate": 3e-4,
            "tokens": 2500,
        }
        assert evaluation["kind"] == "evaluation" and evaluation["bits_per_byte"] == 1.67
        written = scalars(tmp_path / "run" / "tensorboard")
        assert written["train/loss", 50] == 5.25
        assert written["train/learning_rate", 50] == pytest.approx(3e-4)
        assert written["evaluation/perplexity", 50] == pytest.approx(244.69)

    def test_lines_are_aligned(self, tmp_path, capsys):
        with Tracker(tmp_path, 12000, tensorboard=False) as tracker:
            for step in (1, 50, 999, 12000):
                log(tracker, step, loss=10.8 / step, rate=step * 3.0)
        bars = [
            [place for place, letter in enumerate(line) if letter == "|"]
            for line in capsys.readouterr().out.split("\n")
        ]
        assert len(bars[0]) == 8 and bars[0] == bars[1] == bars[2] == bars[3]

    def test_percent_reaches_100_only_at_the_end(self, tmp_path, capsys):
        with Tracker(tmp_path, 100_000, tensorboard=False) as tracker:
            log(tracker, 99_999)
            log(tracker, 100_000)
        assert re.findall(r"[\d.]+%", capsys.readouterr().out) == ["99.99%", "100.00%"]

    def test_non_finite_numbers_are_null(self, tmp_path):
        with Tracker(tmp_path, 10) as tracker:
            log(tracker, 1, loss=math.nan, grad_norm=math.inf)
            tracker.log_step(StepRecord(2, np.float32(1.5), 1e-4, np.float32("nan"), 1.0, 1.0, 0.1, np.int64(7)))
        text = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
        assert "NaN" not in text and "Infinity" not in text
        first, second = read_metrics(tmp_path)
        assert first["loss"] is None and first["grad_norm"] is None and first["memory_mb"] == 512.0
        assert second["loss"] == 1.5 and second["tokens"] == 7
        assert ("train/loss", 1) not in scalars(tmp_path / "tensorboard")

    def test_plain_output_has_no_control_characters(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich would take it for a terminal
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        with Tracker(tmp_path, 10, tensorboard=False) as tracker:
            log(tracker, 1)
            tracker.message(HOSTILE)
            tracker.log_samples(1, [("prompt", HOSTILE)])
        for text in (stream.getvalue(), (tmp_path / "log.txt").read_text("utf-8")):
            assert "alert" in text and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)

    def test_a_console_without_korean_is_no_reason_to_stop(self, tmp_path, monkeypatch):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
        with Tracker(tmp_path, 10, tensorboard=False) as tracker:
            tracker.message("한국어 step")
        sys.stdout.flush()
        assert raw.getvalue() == b"??? step\n"
        assert "한국어 step" in (tmp_path / "log.txt").read_text("utf-8")

    def test_terminal_shows_a_bar_below_whole_lines(self, tmp_path):
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True, width=60)
        with Tracker(tmp_path, 100, tensorboard=False, console=console) as tracker:
            log(tracker, 50, loss=4.25)
            tracker.message("[bold]not markup[/bold] :smile:")
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        assert "━" in shown and " 50.00%  step 50 of 100" in shown
        assert "loss ▁ 4.2500  1,000 tok/s" in shown
        assert re.search(r"step  50/100 \|  50\.00% \|.*\| eta +\S+", shown)  # not wrapped at 60
        assert "[bold]not markup[/bold] :smile:" in shown
        assert stream.getvalue().endswith("\x1b[?25h")  # the cursor is back

    def test_display_stops_and_files_close_on_an_error(self, tmp_path):
        stream = io.StringIO()
        with (
            pytest.raises(ValueError, match="boom"),
            Tracker(tmp_path, 9, console=Console(file=stream, force_terminal=True)) as tracker,
        ):
            log(tracker, 1)
            raise ValueError("boom")
        assert stream.getvalue().endswith("\x1b[?25h") and len(read_metrics(tmp_path)) == 1
        assert ("train/loss", 1) in scalars(tmp_path / "tensorboard")
        with pytest.raises(AssertionError):
            log(tracker, 2)

    def test_samples(self, tmp_path, capsys):
        with Tracker(tmp_path, 10, tensorboard=False) as tracker:
            tracker.log_samples(3, [("오늘은", "오늘은 날씨가 좋다.\n내일도"), ("", "x" * 500)])
        text = (tmp_path / "samples" / "step-00000003.txt").read_text(encoding="utf-8")
        assert text == "step 3\n\n> 오늘은\n오늘은 날씨가 좋다.\n내일도\n\n> \n" + "x" * 500 + "\n"
        line = capsys.readouterr().out
        assert line.count("\n") == 1 and "오늘은 날씨가 좋다. 내일도" in line and "step-00000003.txt" in line

    def test_an_impossible_run_dir_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with (
            pytest.raises(RecipeError, match=r"run_dir=.*file/run: cannot be made"),
            Tracker(tmp_path / "file" / "run", 1),
        ):
            pass

    def test_other_ranks_do_nothing(self, tmp_path, capsys):
        run = tmp_path / "run"
        with tracker_for(1, run, 10) as tracker:
            log(tracker, 1)
            tracker.log_evaluation(1, {"loss": 1.0})
            tracker.log_samples(1, [("a", "b")])
            tracker.message("text")
        assert not run.exists() and capsys.readouterr().out == ""
        assert isinstance(tracker_for(0, run, 10), Tracker) and not run.exists()
        public = [name for name in vars(Tracker) if not name.startswith("_")]
        assert public and all(
            inspect.signature(getattr(Tracker, name)) == inspect.signature(getattr(NullTracker, name))
            for name in public
        )


class TestResume:
    def run(self, run_dir: Path, first: int, last: int, loss: float, start: int | None) -> None:
        with Tracker(run_dir, 100, step=start) as tracker:
            for step in range(first, last + 1, 10):
                log(tracker, step, loss=loss)
                tracker.log_evaluation(step, {"loss": loss})
                tracker.log_samples(step, [("a", str(loss))])

    def test_what_was_recorded_after_the_checkpoint_is_cut_away(self, tmp_path):
        self.run(tmp_path, 10, 50, loss=1.0, start=None)
        kept = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")[:6]
        with Tracker(tmp_path, 100, step=30):
            assert sorted(path.name for path in (tmp_path / "samples").iterdir())[-1] == "step-00000030.txt"
        self.run(tmp_path, 40, 60, loss=2.0, start=30)
        lines = read_metrics(tmp_path)
        steps = [line["step"] for line in lines if line["kind"] == "train"]
        assert steps == [10, 20, 30, 40, 50, 60]
        assert [line["loss"] for line in lines if line["kind"] == "evaluation"] == [1.0] * 3 + [2.0] * 3
        assert (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")[:6] == kept  # byte for byte
        assert not list(tmp_path.glob(".*")), "no temporary file stays"
        starts = [event.step for event in events(tmp_path / "tensorboard") if event.HasField("session_log")]
        assert starts == [0, 31, 31], "TensorBoard hides what came after step 30"

    def test_the_step_gone_on_from_is_not_recorded_twice(self, tmp_path):
        self.run(tmp_path, 10, 30, loss=1.0, start=None)
        with Tracker(tmp_path, 100, step=30) as tracker:
            tracker.log_evaluation(30, {"loss": 1.0})
        assert [(line["kind"], line["step"]) for line in read_metrics(tmp_path)][-2:] == [
            ("train", 30),
            ("evaluation", 30),
        ]

    def test_a_run_that_died_before_its_first_step_keeps_the_record_of_step_0(self, tmp_path):
        with Tracker(tmp_path, 100) as tracker:
            tracker.log_evaluation(0, {"loss": 9.0})
            tracker.log_samples(0, [("a", "b")])
            log(tracker, 1)
        with Tracker(tmp_path, 100, step=0) as tracker:
            tracker.log_evaluation(0, {"loss": 9.0})  # a resume that makes the evaluation again
        assert [(line["kind"], line["step"]) for line in read_metrics(tmp_path)] == [("evaluation", 0)]
        assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step-00000000.txt"]
        starts = [event.step for event in events(tmp_path / "tensorboard") if event.HasField("session_log")]
        assert starts == [0, 1]

    def test_a_line_of_the_log_that_a_kill_cut_off_stays_a_line_of_its_own(self, tmp_path):
        for text in (None, "", "2026-01-01 00:00:00 whole\n", "2026-01-01 00:00:00 to"):
            if text is not None:
                (tmp_path / "log.txt").write_text(text)
            with Tracker(tmp_path, 100, step=0, tensorboard=False) as tracker:
                tracker.message("goes on")
            lines = (tmp_path / "log.txt").read_text().splitlines()
            assert lines[-2].endswith(" goes on") and lines[:-2] == (text or "").splitlines()
            (tmp_path / "log.txt").unlink()

    def test_what_a_kill_left_of_a_file_goes(self, tmp_path):
        (tmp_path / "samples").mkdir()
        for name in (".recipe.yaml.0123456789ab.partial", "samples/.step-00000001.txt.0123456789ab.partial", ".mine"):
            (tmp_path / name).touch()
        with Tracker(tmp_path, 100, tensorboard=False):
            assert [path.name for path in tmp_path.glob(".*")] == [".mine"] and not list(tmp_path.glob("samples/.*"))

    def test_a_new_run_starts_the_record_again_but_keeps_the_log(self, tmp_path):
        self.run(tmp_path, 10, 30, loss=1.0, start=None)
        with Tracker(tmp_path, 100) as tracker:
            tracker.log_evaluation(0, {"loss": 9.0})
        assert [line["step"] for line in read_metrics(tmp_path)] == [0]
        assert not list((tmp_path / "samples").iterdir())
        assert (tmp_path / "log.txt").read_text(encoding="utf-8").count("held-out") == 4

    @pytest.mark.parametrize("left", [1, 40, -1])
    def test_a_torn_last_line_is_dropped(self, tmp_path, left):
        self.run(tmp_path, 10, 20, loss=1.0, start=None)
        path = tmp_path / "metrics.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole + whole.split(b"\n")[0][:left])
        assert len(read_metrics(tmp_path)) == 4
        self.run(tmp_path, 30, 30, loss=1.0, start=20)
        assert path.read_bytes().startswith(whole) and len(read_metrics(tmp_path)) == 6

    def test_a_last_line_without_its_end_is_whole(self, tmp_path):
        self.run(tmp_path, 10, 20, loss=1.0, start=None)
        path = tmp_path / "metrics.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert len(read_metrics(tmp_path)) == 4
        with Tracker(tmp_path, 100, step=20):
            assert path.read_bytes() == whole

    @pytest.mark.parametrize(
        "bad", [b"{", b"[1]", b"", b"\xff", b'{"kind": "train"}', b'{"kind": 1, "step": 2}', b"[" * 9999]
    )
    def test_other_damage_is_named(self, tmp_path, bad):
        line = b'{"kind": "train", "step": 1}\n'
        (tmp_path / "metrics.jsonl").write_bytes(line + bad + b"\n" + line)
        with pytest.raises(DataError, match=r"metrics\.jsonl: line 2 "):
            read_metrics(tmp_path)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(DataError, match=r"metrics\.jsonl: no record of a run"):
            read_metrics(tmp_path)

    def test_seconds_go_on_where_they_stopped(self, tmp_path, clock):
        with Tracker(tmp_path, 100, tensorboard=False) as tracker:
            clock.advance(50)
            log(tracker, 10)
            clock.advance(50)
            log(tracker, 20)
        clock.advance(10_000)  # the machine was away
        with Tracker(tmp_path, 100, step=10, tensorboard=False) as tracker:
            clock.advance(7)
            log(tracker, 20)
        assert [line["seconds"] for line in read_metrics(tmp_path)] == [50.0, 57.0]


class TestEta:
    def etas(self, text: str) -> list[str]:
        return re.findall(r"eta +(\S+)", text)

    def test_right_after_a_resume_only_this_process_counts(self, tmp_path, clock, capsys):
        with Tracker(tmp_path, 1000, step=900, tensorboard=False) as tracker:
            clock.advance(500)  # building the model, loading the checkpoint
            log(tracker, 910, rate=100.0)  # 50 tokens a step at 100 tokens/s: 90 steps take 45 s
            clock.advance(20)
            log(tracker, 920, rate=1e9)  # now the lines' own 2 s a step count
        assert self.etas(capsys.readouterr().out) == ["45s", "2m40s"]

    def test_the_rate_is_a_recent_one(self):
        eta, now = Eta(window=4), 0.0
        for step in range(1, 101):
            now += 10.0 if step <= 50 else 1.0
            eta.mark(step, now)
        assert eta.seconds(200) == pytest.approx(100.0)
        assert Eta().seconds(10) != Eta().seconds(10), "unknown is NaN"

    def test_unknown_and_done(self, tmp_path, capsys):
        with Tracker(tmp_path, 20, tensorboard=False) as tracker:
            log(tracker, 10, rate=math.nan)
            log(tracker, 20)
        assert self.etas(capsys.readouterr().out) == ["--", "0s"]

    def test_durations(self):
        shown = [duration(seconds) for seconds in (0.4, 59.6, 245, 7500, 86400 * 3 + 4 * 3600, math.inf, math.nan)]
        assert shown == ["0s", "1m00s", "4m05s", "2h05m", "3d04h", "--", "--"]


def test_nothing_heavy_is_imported(tmp_path):
    """Neither MXNet nor, by way of tensorboardX, torch enters a process that tracks."""
    program = (
        "import sys; from pathlib import Path; from kogpt2_gluon.runs import report\n"
        "from kogpt2_gluon.runs.metrics import Tracker\n"
        "assert 'rich' not in sys.modules and 'tensorboardX' not in sys.modules\n"
        "with Tracker(Path(sys.argv[1]), 5) as tracker: tracker.message('hello')\n"
        "assert 'tensorboardX' in sys.modules and 'torch' not in sys.modules and 'mxnet' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello\n" and done.stderr == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (None, "ended: done"),
        (PreemptedError("stopped at step 3,\nsaved in x"), "ended: stopped at step 3, saved in x"),
        (DataError("chunk 0: damaged"), "ended: chunk 0: damaged"),
        (KeyError("x"), "ended: KeyError('x')"),
        (KeyboardInterrupt(), "ended: KeyboardInterrupt()"),
    ],
)
def test_the_log_says_how_a_run_ended(tmp_path, error, line):
    with contextlib.suppress(BaseException), Tracker(tmp_path / "run", 200) as tracker:
        tracker.message("a line")
        if error:
            raise error
    assert (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()[-1][20:] == line
