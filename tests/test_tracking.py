"""The record of a run: console, metrics.jsonl, TensorBoard events, env.json and the report."""

from __future__ import annotations

import inspect
import io
import json
import math
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tracking import NullTracker, Tracker, metrics, read_metrics, tracker_for, write_environment
from kogpt2_gluon.tracking.environment import HIDDEN, hide_secrets, select_variables
from kogpt2_gluon.tracking.metrics import Eta, duration
from kogpt2_gluon.tracking.plot import Series, downsample, line_plot, linear_axis, log_axis, short, smooth, tick_texts
from kogpt2_gluon.tracking.report import write_report

HOSTILE = "</pre><script>alert('x')</script>\x1b[31m&\x00 \"q\" \ud800"


def log(tracker: NullTracker, step: int, loss: float = 5.0, grad_norm: float = 1.0, rate: float = 1000.0) -> None:
    tracker.log_step(step, loss, 1e-4, grad_norm, rate, 512.0, step / 100, step * 50)


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
            tracker.log_step(50, 5.25, 3e-4, 0.75, 12345.6, 2048.0, 0.5, 2500)
            tracker.log_evaluation(50, {"loss": 5.5, "perplexity": 244.69, "bits_per_byte": 1.67})
        console = capsys.readouterr().out
        assert re.search(
            r"^step  50/200 \|  25\.00% \| loss  5\.2500 \| lr 3\.00e-04 \| norm   0\.750 \|    12,346 tok/s "
            r"\|   2,048 MB \| epoch   0\.500 \| eta +\S+$",
            console,
            re.MULTILINE,
        )
        assert "step  50/200 |  25.00% | held-out | loss 5.5000 | perplexity 244.6900 | bits per byte 1.6700" in console
        logged = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
        assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in logged] == console.splitlines()
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
            tracker.log_step(2, np.float32(1.5), 1e-4, np.float32("nan"), 1.0, 1.0, 0.1, np.int64(7))
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
        assert "━" in shown and " 50.00%  loss 4.2500  1,000 tok/s" in shown
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
    def run(self, run_dir: Path, first: int, last: int, loss: float, start: int) -> None:
        with Tracker(run_dir, 100, step=start) as tracker:
            for step in range(first, last + 1, 10):
                log(tracker, step, loss=loss)
                tracker.log_evaluation(step, {"loss": loss})
                tracker.log_samples(step, [("a", str(loss))])

    def test_what_was_recorded_after_the_checkpoint_is_cut_away(self, tmp_path):
        self.run(tmp_path, 10, 50, loss=1.0, start=0)
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
        assert starts == [0, 31, 31], "TensorBoard is told to hide what came after step 30"

    def test_the_step_gone_on_from_is_not_recorded_twice(self, tmp_path):
        self.run(tmp_path, 10, 30, loss=1.0, start=0)
        with Tracker(tmp_path, 100, step=30) as tracker:
            tracker.log_evaluation(30, {"loss": 1.0})
        assert [(line["kind"], line["step"]) for line in read_metrics(tmp_path)][-2:] == [
            ("train", 30),
            ("evaluation", 30),
        ]

    def test_step_0_starts_the_record_anew_but_keeps_the_log(self, tmp_path):
        self.run(tmp_path, 10, 30, loss=1.0, start=0)
        with Tracker(tmp_path, 100) as tracker:
            tracker.log_evaluation(0, {"loss": 9.0})
        assert [line["step"] for line in read_metrics(tmp_path)] == [0]
        assert not list((tmp_path / "samples").iterdir())
        assert (tmp_path / "log.txt").read_text(encoding="utf-8").count("held-out") == 4

    @pytest.mark.parametrize("left", [1, 40, -1])
    def test_a_torn_last_line_is_dropped(self, tmp_path, left):
        self.run(tmp_path, 10, 20, loss=1.0, start=0)
        path = tmp_path / "metrics.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole + whole.split(b"\n")[0][:left])
        assert len(read_metrics(tmp_path)) == 4
        self.run(tmp_path, 30, 30, loss=1.0, start=20)
        assert path.read_bytes().startswith(whole) and len(read_metrics(tmp_path)) == 6

    def test_a_last_line_without_its_end_is_whole(self, tmp_path):
        self.run(tmp_path, 10, 20, loss=1.0, start=0)
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


class TestEnvironment:
    def test_facts(self, tmp_path):
        facts = json.loads(write_environment(tmp_path).read_text(encoding="utf-8"))
        assert facts["packages"]["numpy"] == np.__version__ and facts["host"]["cores"] >= 1
        assert facts["command"][0] == sys.argv[0]

    def test_secrets_stay_out(self):
        variables = {
            "OMP_NUM_THREADS": "2",
            "KOGPT2_TOKEN": "s1",
            "NCCL_secret_x": "s2",
            "HOROVOD_KEY": "s3",
            "MXNET_PASSWORD": "s4",
            "AWS_REGION": "s5",
            "HOME": "s6",
            "KOGPT2_PROXY": "http://me:s7@host/",
        }
        assert select_variables(variables) == {"KOGPT2_PROXY": f"http://{HIDDEN}@host/", "OMP_NUM_THREADS": "2"}
        command = [
            "kogpt2",
            "train",
            "data.tokenizer=a.model",
            "--api-key",
            "s",
            "x.secret=s",
            "--password=s",
            "s3://u:s@b/c",
        ]
        assert hide_secrets(command) == [
            *("kogpt2", "train", "data.tokenizer=a.model", "--api-key", HIDDEN),
            *(f"x.secret={HIDDEN}", f"--password={HIDDEN}", f"s3://{HIDDEN}@b/c"),
        ]


class Page(HTMLParser):
    """Tags, texts and outside references of a page; fails on tags closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def numbers_in_svg(text: str) -> list[str]:
    return re.findall(r'(?: d| cx| cy| x| y| x1| x2| y1| y2)="([^"]*)"', text)


class TestReport:
    def report(self, run_dir: Path) -> tuple[str, Page]:
        text = write_report(run_dir).read_text(encoding="utf-8")
        assert not any(re.search("nan|inf", numbers) for numbers in numbers_in_svg(text))
        return text, Page(text)

    def train(self, run_dir: Path, steps: int, evaluate: bool = True, nan_at: int = -1) -> None:
        with Tracker(run_dir, steps, tensorboard=False) as tracker:
            for step in range(1, steps + 1):
                log(tracker, step, loss=math.nan if step == nan_at else 2 + 8 / step, grad_norm=4 / step)
            if evaluate:
                tracker.log_evaluation(steps // 2, {"loss": 3.0, "perplexity": 20.09, "bits_per_byte": 1.011})
                tracker.log_evaluation(steps, {"loss": 3.5, "perplexity": 33.12, "bits_per_byte": 1.222})

    def test_figures_and_plots(self, tmp_path):
        self.train(tmp_path, 40)
        text, page = self.report(tmp_path)
        assert page.tags.count("svg") == 5 and page.tags.count("title") == 1 + 2  # two marks with tooltips
        assert "script" not in page.tags and "img" not in page.tags and "link" not in page.tags
        assert page.references == [] and "http://" not in text and "https://" not in text
        words = " ".join(page.texts)
        for expected in ("33.12", "best 20.09 at step 20", "1.222", "2k", "nats per token", "prefers-color-scheme"):
            assert expected in words or expected in text, expected

    def test_hostile_text_stays_text(self, tmp_path):
        hostile = HOSTILE.replace("\ud800", "")
        with Tracker(tmp_path, 1, tensorboard=False) as tracker:
            log(tracker, 1)
            tracker.log_evaluation(1, {"loss": 1.0, "<script>name": 2.0})
            tracker.log_samples(1, [(HOSTILE, HOSTILE)])
        recipe = json.dumps({"name": hostile, "about": hostile, "training": {"num_steps": hostile}})
        (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
        (tmp_path / "env.json").write_text(
            json.dumps({hostile: hostile, "host": {hostile: [hostile]}}), encoding="utf-8"
        )
        text, page = self.report(tmp_path)
        assert "script" not in page.tags and "<script" not in text and "\x1b" not in text and "\x00" not in text
        assert "".join(page.texts).count("alert('x')") >= 8

    @pytest.mark.parametrize(
        ("steps", "evaluate", "nan_at"), [(1, False, -1), (1, True, -1), (1, True, 1), (2, False, 2), (3, True, 2)]
    )
    def test_tiny_runs(self, tmp_path, steps, evaluate, nan_at):
        self.train(tmp_path, steps, evaluate, nan_at)
        text, page = self.report(tmp_path)
        assert ("not evaluated" in text) is not evaluate
        assert ("not finite" in text) is (nan_at > 0)
        assert page.tags.count("svg") == (4 if steps == 1 and nan_at == 1 and not evaluate else 5)

    def test_a_run_that_recorded_nothing(self, tmp_path):
        (tmp_path / "metrics.jsonl").touch()
        text, page = self.report(tmp_path)
        assert "nothing recorded yet" in text and "svg" not in page.tags

    def test_wrong_kinds_of_values(self, tmp_path):
        lines = [
            {"kind": "train", "step": 1, "loss": "high", "grad_norm": [], "tokens": None},
            {"kind": "train", "step": 2, "loss": 1e308, "grad_norm": -1.0, "learning_rate": 0, "memory_mb": 10**400},
            {"kind": "evaluation", "step": 2, "loss": {}, "perplexity": True},
        ]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        (tmp_path / "recipe.yaml").write_text("- a\n: [", encoding="utf-8")
        (tmp_path / "env.json").write_text("[1]", encoding="utf-8")
        self.report(tmp_path)

    def test_a_long_run_makes_a_small_page(self, tmp_path):
        rng = np.random.default_rng(0)
        with (tmp_path / "metrics.jsonl").open("w", encoding="utf-8") as file:
            for step, noise in enumerate(rng.standard_normal(200_000), 1):
                file.write(
                    f'{{"kind": "train", "step": {step}, "loss": {4 + noise:.3f}, "grad_norm": {abs(noise):.3f}}}\n'
                )
        text, _ = self.report(tmp_path)
        assert len(text) < 200_000

    def test_damage_is_not_hidden(self, tmp_path):
        with pytest.raises(DataError):
            write_report(tmp_path)
        assert not list(tmp_path.iterdir())


class TestPlot:
    def test_downsampling_keeps_every_spike(self):
        x = np.arange(100_000, dtype=float)
        y = np.random.default_rng(1).standard_normal(len(x))
        y[12_345], y[77_777], y[500:2000] = 99.0, -99.0, np.nan
        few_x, few_y = downsample(x, y, 300)
        assert len(few_x) <= 600 and np.all(np.diff(few_x) > 0)
        assert few_x[np.nanargmax(few_y)] == 12_345 and few_x[np.nanargmin(few_y)] == 77_777
        assert np.isnan(few_y).any(), "a gap stays a gap"

    def test_smoothing_keeps_a_line_and_leaves_nan_out(self):
        line = np.linspace(10.0, 0.0, 101)
        assert smooth(line, 20)[:90] == pytest.approx(line[:90])
        gap = np.array([1.0, np.nan, 3.0])
        assert smooth(gap, 3)[0] == 1.0 and np.isnan(smooth(gap, 3)[1])
        noise = np.random.default_rng(2).standard_normal(10_000)
        assert smooth(noise, 400)[500:-500].std() < 0.1
        assert smooth(np.empty(0), 3).shape == (0,)

    @pytest.mark.parametrize(
        "low, high", [(0, 1), (3.8, 10.9), (-5, 5), (0, 3e-4), (1e9, 3e9), (7, 7), (0, 0), (1e-300, 2e-300)]
    )
    def test_ticks_are_round_few_and_hold_the_range(self, low, high):
        axis = linear_axis(low, high, 6)
        assert axis.low <= low and axis.high >= high and 2 <= len(axis.ticks) <= 10
        assert len(set(tick_texts(axis))) == len(axis.ticks)

    @pytest.mark.parametrize("low, high", [(0.5, 9), (1e-6, 1e6), (1, 1), (0.1, 0.1), (3, 4), (1e-12, 1e12)])
    def test_log_ticks(self, low, high):
        axis = log_axis(low, high)
        assert axis.low <= low and axis.high >= high and axis.low < axis.high and 1 <= len(axis.ticks) <= 8

    def test_tick_texts(self):
        assert tick_texts(linear_axis(0, 3000, 6)) == ["0", "500", "1,000", "1,500", "2,000", "2,500", "3,000"]
        assert tick_texts(linear_axis(0, 200_000, 4)) == ["0", "50k", "100k", "150k", "200k"]
        assert tick_texts(linear_axis(0, 3e-4, 3)) == ["0", "1e-4", "2e-4", "3e-4"]
        assert tick_texts(linear_axis(3, 4, 4)) == ["3.0", "3.5", "4.0"]
        assert [short(value) for value in (124_242_432, 999_999, 1.5e12, 0, math.nan)] == [
            "124M",
            "1M",
            "1.5T",
            "0",
            "–",
        ]

    def test_values_lie_where_they_should(self):
        x, y = np.array([0.0, 5.0, 10.0]), np.array([0.0, 10.0, 5.0])
        svg = line_plot([Series(x, y, "train")], title="T", unit="u", width=324, height=264, from_zero=True)
        assert '<path class="train" d="M58.0 224.0L158.0 24.0L258.0 124.0"/>' in svg

    def test_a_value_between_gaps_is_a_dot(self):
        y = np.array([np.nan, 3.0, np.nan, 4.0, 5.0])
        svg = line_plot([Series(np.arange(5.0), y, "train")], title="T", unit="u")
        assert svg.count("<circle") == 1 and svg.count("M") == 2
        assert line_plot([Series(np.arange(2.0), np.full(2, np.nan), "train")], title="T", unit="u") == ""


def test_nothing_heavy_is_imported(tmp_path):
    """Neither MXNet nor, by way of tensorboardX, torch enters a process that tracks."""
    program = (
        "import sys; from pathlib import Path; from kogpt2_gluon.tracking import Tracker, report\n"
        "assert 'rich' not in sys.modules and 'tensorboardX' not in sys.modules\n"
        "with Tracker(Path(sys.argv[1]), 5) as tracker: tracker.message('hello')\n"
        "assert 'tensorboardX' in sys.modules and 'torch' not in sys.modules and 'mxnet' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello\n" and done.stderr == ""
