"""The report of a run: one page of whole HTML that refers to nothing outside, whatever was recorded."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs.logbook import read_logbook
from kogpt2_gluon.runs.metrics import Tracker
from kogpt2_gluon.runs.report import write_report
from kogpt2_gluon.runs.report_health import health_of
from kogpt2_gluon.runs.report_plots import _places_of
from tests.runs.report_helpers import Page, numbers_in_svg
from tests.runs.tracking_helpers import HOSTILE, log


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
        assert page.tags.count("svg") == 2 * 5  # for wide windows and for narrow ones
        assert page.tags.count("title") == 1 + 2  # two marks with tooltips, in the wide one
        assert "script" not in page.tags and "img" not in page.tags and "link" not in page.tags
        assert all(reference.startswith("#") for reference in page.references)
        assert {reference[1:] for reference in page.references} <= set(page.places)
        assert "http://" not in text and "https://" not in text
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
        assert page.tags.count("svg") == 2 * (4 if steps == 1 and nan_at == 1 and not evaluate else 5)

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
        assert len(text) < 300_000

    def test_restarts_are_marked_wherever_the_page_is_made(self, tmp_path, monkeypatch):
        """The times of the log are those of the host that trained, in another time zone than this one."""
        self.train(tmp_path, 40)
        (tmp_path / "log.txt").write_text(
            "2020-01-01 00:00:00 demo: 5 parameters; 1 worker(s) on cpu(0)\n"
            "2020-01-01 00:00:30 step 30/40 |  75.00% | loss  2.5\n"
            "2020-01-01 00:01:00 demo: 5 parameters; 1 worker(s) on cpu(0)\n"
            "going on from run/checkpoints/step-00000020\n"
            "2020-01-01 00:01:30 step 35/40 |  87.50% | loss  2.5\n"
            "2020-01-01 00:02:00 demo: 5 parameters; 1 worker(s) on cpu(0)\ngoing on from elsewhere/kept\n"
        )
        marks = []
        for zone in ("UTC", "Asia/Seoul"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            text, _ = self.report(tmp_path)
            assert "2 restarts" in text
            marks.append(re.findall(r'class="event"[^>]*>', text))
        monkeypatch.undo()
        time.tzset()
        assert marks[0] == marks[1]
        assert _places_of(health_of(read_logbook(tmp_path)).restarts) == [
            (20.0, "started again 2020-01-01 00:01:00"),
            (35.0, "started again 2020-01-01 00:02:00"),
        ]

    def test_damage_is_not_hidden(self, tmp_path):
        with pytest.raises(DataError):
            write_report(tmp_path)
        assert not list(tmp_path.iterdir())
