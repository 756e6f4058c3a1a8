"""The record of a run: lines for people, lines for programs, and what its followers get.

Rank 0 owns a `Tracker`; the other ranks get a `NullTracker`, so that the training loop needs no ``if rank == 0``.
``RUN_DIR/metrics.jsonl`` is the truth (the report is made from it): one JSON object per line, each with ``kind``
("train", "evaluation", or "change" for a setting that a resume changed by permission), ``step``, ``time`` (Unix
seconds) and ``seconds`` (spent so far, over all restarts).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.runs.display import Display
from kogpt2_gluon.runs.environment import write_environment
from kogpt2_gluon.runs.eta import Eta
from kogpt2_gluon.runs.followers.background import Background, Figures, close_all
from kogpt2_gluon.runs.followers.tensorboard import TensorBoard
from kogpt2_gluon.runs.step_record import StepRecord
from kogpt2_gluon.storage.files import remove_partials, replace_file
from kogpt2_gluon.storage.links import read_file

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Eta", "NullTracker", "StepRecord", "Tracker", "read_metrics", "tracker_for", "write_environment"]

CHANGE = "change"  # the kind of a record that is about a setting
SEQUENCES = ("sequences", "sequences_in_all")  # of an evaluation: those that it is over, and the whole held-out set's
SMOOTHED = 20  # records, whose mean is the smoothed loss
ENDED = "ended: "  # begins the last line of log.txt, after the time

# Text that a model wrote may hold anything. It must not steer a terminal or break a UTF-8 file.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class NullTracker:
    """The tracker of every rank except 0: it has the whole interface and does nothing."""

    def __enter__(self) -> NullTracker:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        pass

    def log_step(self, record: StepRecord) -> None:
        """Records training after ``record.step`` updates."""

    def log_evaluation(self, step: int, metrics: Mapping[str, float], sequences: tuple[int, int] | None = None) -> None:
        """Records held-out figures at `step`, by name: loss (nats per token), perplexity, bits_per_byte, ...

        `sequences` is how many they were measured over, and how many the whole held-out set has.
        """

    def log_changes(self, step: int, changes: Sequence[Mapping[str, Any]]) -> None:
        """Records the settings, {step, key, from, to}, that the run changed at `step` when it resumed."""

    def log_samples(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
        """Keeps generated (prompt, text) pairs in RUN_DIR/samples/step-NNNNNNNN.txt."""

    def message(self, text: str) -> None:
        """Writes `text` to the console and to log.txt."""


class Tracker(NullTracker):
    """Writes RUN_DIR/metrics.jsonl, log.txt, samples/ and tensorboard/, and the same lines to the console.

    `step` is the step to go on from. Records that a killed run made after it are removed, so that no step is recorded
    twice; None starts the record again from nothing (log.txt is only ever appended to). A terminal shows live progress
    below the lines, other outputs get plain lines only. Use it as a context manager, which starts `followers`.

    RecipeError if RUN_DIR cannot be made, DataError if its metrics.jsonl is damaged.
    """

    def __init__(
        self,
        run_dir: Path,
        num_steps: int,
        step: int | None = None,
        tensorboard: bool = True,
        console: Console | None = None,
        followers: Callable[[], Sequence[Background]] = tuple,
    ) -> None:
        self.run_dir, self.num_steps = Path(run_dir), num_steps
        self._is_new, self._start_step = step is None, step or 0
        self._tensorboard, self._console = tensorboard, console
        self._start_followers, self._followers = followers, list[Background]()
        self._eta = Eta()
        self._seconds_before = 0.0
        self._recorded: set[tuple[str, int]] = set()  # records that the file has already of the step to go on from
        self._metrics: IO[str] | None = None
        self._log: IO[str] | None = None
        self._losses: deque[float] = deque(maxlen=SMOOTHED)
        self._display: Display | None = None

    def __enter__(self) -> Tracker:
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(f"tracking.run_dir={self.run_dir}: cannot be made ({error.strerror})") from None
        self._rewind()
        self._metrics = (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self._log = _open_log(self.run_dir / "log.txt")
        self._display = Display(self._console, self.num_steps, self._start_step)
        self._began = time.monotonic()
        # Last, since a run that some server got to know must be closed there.
        self._followers += self._start_followers()
        if self._tensorboard:
            folder, begun = self.run_dir / "tensorboard", None if self._is_new else self._start_step
            self._followers.append(Background("tracking.tensorboard", lambda _: TensorBoard(folder, begun)))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        how = " ".join(str(error).split()) if isinstance(error, KoGPT2Error) else repr(error) if error else "done"
        with contextlib.suppress(OSError):  # a full disk may be the reason
            for note in close_all(self._followers, error is None):
                self._say(note)
            self._note(f"{ENDED}{printable(how)}")
        for part in (self._display, self._metrics, self._log):
            if part is not None:
                part.close()
        self._display = self._metrics = self._log = None

    def log_step(self, record: StepRecord) -> None:
        step, tokens_per_second = record.step, record.tokens_per_second
        self._eta.mark(step, time.monotonic())
        eta = self._eta.seconds(self.num_steps)
        if math.isnan(eta) and step > 0 and tokens_per_second > 0:  # the first line: believe the caller's rate
            eta = (self.num_steps - step) * record.tokens / step / tokens_per_second
        self._losses += [record.loss] if math.isfinite(record.loss) else []
        smoothed = sum(self._losses) / len(self._losses) if self._losses else math.nan
        self._record("train", step, {**record.measured(), "smoothed_loss": smoothed}, **record.counted())
        self._say(f"{self._place(step)} | {record.line(smoothed, eta)}")
        assert self._display is not None
        figures = " | ".join(filter(None, [" ".join(record.speed().split()), record.waits()]))
        self._display.update(step, smoothed, figures, eta)

    def log_evaluation(self, step: int, metrics: Mapping[str, float], sequences: tuple[int, int] | None = None) -> None:
        self._record("evaluation", step, metrics, **dict(zip(SEQUENCES, sequences or ())))
        figures = [f"{name.replace('_', ' ')} {value:,.4f}" for name, value in metrics.items()]
        self._say(" | ".join([self._place(step), "held-out", *figures]))

    def log_changes(self, step: int, changes: Sequence[Mapping[str, Any]]) -> None:
        for change in changes:
            if change["step"] == step:
                self._write(CHANGE, step, {name: value for name, value in change.items() if name != "step"})

    def log_samples(self, step: int, samples: Sequence[tuple[str, str]]) -> None:
        path = self.run_dir / "samples" / f"step-{step:08d}.txt"
        path.parent.mkdir(exist_ok=True)
        blocks = [f"> {' '.join(prompt.split())}\n{text.strip()}\n" for prompt, text in samples]
        with replace_file(path) as file:
            file.write(printable("\n".join([f"step {step}\n", *blocks])).encode("utf-8"))
        shown = " ".join(samples[0][1].split()) if samples else ""
        shown = shown if len(shown) <= 80 else shown[:79] + "…"
        self._say(f"{self._place(step)} | samples | {shown} | {path}")
        assert self._display is not None
        self._display.show_sample(printable(shown))

    def message(self, text: str) -> None:
        self._say(text)

    def _place(self, step: int) -> str:
        width = len(str(self.num_steps))
        percent = math.floor(10000 * step / max(self.num_steps, 1)) / 100  # rounded down: 100% is the end
        return f"step {step:>{width}}/{self.num_steps} | {percent:6.2f}%"

    def _say(self, text: str) -> None:
        assert self._log is not None and self._display is not None, "a Tracker is used inside its with block"
        line = printable(text)
        self._note(line)
        self._display.print(line)

    def _note(self, line: str) -> None:
        """Writes a line into log.txt alone."""
        if self._log is not None:
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            self._log.flush()

    def _record(self, kind: str, step: int, values: Mapping[str, float], **counts: int) -> None:
        """One line of metrics.jsonl, which the followers get too."""
        step, numbers = int(step), {name: float(value) for name, value in values.items()}
        if (kind, step) in self._recorded:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._write(kind, step, {**finite, **counts})
        told = Figures(
            kind, step, time.time(), {name: value for name, value in numbers.items() if math.isfinite(value)}
        )
        for follower in self._followers:
            follower.put(told)
            for note in follower.take_notes():
                self._say(note)

    def _write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        assert self._metrics is not None, "a Tracker is used inside its with block"
        line = {
            "kind": kind,
            "step": step,
            "time": round(time.time(), 3),
            "seconds": round(self._seconds_before + time.monotonic() - self._began, 3),
            **values,
        }
        self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
        self._metrics.flush()

    def _rewind(self) -> None:
        """Removes records made after the step to go on from, and all that a kill left unfinished.

        Changes at that step go too: they are recorded again, or another resume made others.
        """
        remove_partials(self.run_dir)
        remove_partials(self.run_dir / "samples")
        for sample in (self.run_dir / "samples").glob("step-*.txt"):
            number = sample.stem[5:]
            if number.isdigit() and (int(number) > self._start_step or self._is_new):
                sample.unlink()
        path = self.run_dir / "metrics.jsonl"
        if not path.exists():
            return
        kept = [(raw, line) for raw, line in _parse(path) if self._is_before(line)]
        content = b"".join(raw + b"\n" for raw, _ in kept)
        if len(content) != path.stat().st_size:
            with replace_file(path) as file:
                file.write(content)
        self._recorded = {(line["kind"], line["step"]) for _, line in kept if line["step"] == self._start_step}
        losses = [line.get("loss") for _, line in kept if line["kind"] == "train"][-SMOOTHED:]
        self._losses.extend(float(loss) for loss in losses if isinstance(loss, (int, float)))
        seconds = kept[-1][1].get("seconds") if kept else None
        self._seconds_before = float(seconds) if isinstance(seconds, (int, float)) else 0.0

    def _is_before(self, line: Mapping[str, Any]) -> bool:
        """Returns True for a record that stays when the run goes on from its step."""
        last = self._start_step - (line["kind"] == CHANGE)
        return not self._is_new and bool(line["step"] <= last)


def tracker_for(
    rank: int,
    run_dir: Path,
    num_steps: int,
    step: int | None = None,
    tensorboard: bool = True,
    console: Console | None = None,
    followers: Callable[[], Sequence[Background]] = tuple,
) -> NullTracker:
    """The tracker of worker `rank`: a `Tracker` for rank 0, which alone writes files, else a `NullTracker`."""
    return Tracker(run_dir, num_steps, step, tensorboard, console, followers) if rank == 0 else NullTracker()


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The records in RUN_DIR/metrics.jsonl, in order; each has at least a text `kind` and an integer `step`.

    Skips a last line that a kill left unfinished. DataError for a missing file or any other damage.
    """
    return [line for _, line in _parse(Path(run_dir) / "metrics.jsonl")]


def check_record(run_dir: Path) -> None:
    """Raises the DataError that a Tracker would raise for a damaged RUN_DIR/metrics.jsonl; there need not be one."""
    path = Path(run_dir) / "metrics.jsonl"
    if path.exists():
        for _ in _parse(path):
            pass


def _parse(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields each line of `path`: its bytes without the line end, and the object that it holds."""
    try:
        lines = read_file(path).split(b"\n")
    except OSError as error:
        raise DataError(
            f"{path}: no record of a run can be read here ({error.strerror}); is this a run folder?"
        ) from None
    last = len(lines) - 1  # the text after the last line end is empty, unless the writer was killed
    for number, raw in enumerate(lines):
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and isinstance(line.get("kind"), str) and type(line.get("step")) is int:
            yield raw, line
        elif number != last:
            raise DataError(f"{path}: line {number + 1} is not a JSON object with kind and step; fix or delete it")


def _open_log(path: Path) -> IO[str]:
    """Opens a log to go on with it; a last line that a kill left unfinished gets its end."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return path.open("a", encoding="utf-8")


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates shown as U+FFFD; line ends and tabs stay."""
    return UNPRINTABLE.sub("\ufffd", text)
