"""`kogpt2 generate --prompts`: texts for all prompts of a file, as JSON lines in its order.

Several prompts are continued at once. With --out a command that was stopped goes on after the last line that is there:
each line has a fingerprint of all that it depends on, so lines of other prompts or settings are never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kogpt2_gluon.cli.generate import SLIDE, load_writer, say
from kogpt2_gluon.cli.group import echo_json
from kogpt2_gluon.cli.paths import check_target
from kogpt2_gluon.cli.stopping import stoppable
from kogpt2_gluon.cli.text_json import texts_to_dict
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.wording import counted

if TYPE_CHECKING:
    from kogpt2_gluon.cli.prompt_file import Prompt, PromptFile
    from kogpt2_gluon.inference.text_writer import Job, TextWriter
    from kogpt2_gluon.storage.growing_lines import GrowingLines

AHEAD = 16  # prompts that may be done before their turn, for each slot
_CONTROLS = re.compile("[\x7f-\x9f]")  # JSON may have them as they are, and a terminal would obey some


class Counts(NamedTuple):
    """Counts the lines of a file.

    Attributes
    ----------
    lines : int
    failed : int
        Those of prompts that could not be continued.
    """

    lines: int = 0
    failed: int = 0


def continue_file(
    checkpoint: Path, prompts: Path, out: Path | None, plain: dict[str, Any], values: dict[str, Any]
) -> None:
    """Continues the prompts of a file. DataError, once all others are written, if some could not be continued."""
    from kogpt2_gluon.cli.prompt_file import open_prompts
    from kogpt2_gluon.storage.growing_lines import GrowingLines

    if out:
        check_target("--out", out)
        with suppress(OSError):  # one of the two is not there
            if out.samefile(prompts):
                raise RecipeError(f"--out {out}: is the file of prompts, to which it would add; name another file")
    writer, identity = _load(checkpoint, values)
    with open_prompts(prompts, plain, writer.tokenizer) as file:
        found = file.check()
        if found.empty_lines:
            say(f"{file.name}: {counted(found.empty_lines, 'empty line')} left out")
        continuation = Continuation(writer, file, plain, values, identity)
        if not out:
            counts = _write(continuation, Counts(), echo_json, found.prompts, not sys.stdout.isatty())
        else:
            written = 0

            def add(lines: GrowingLines, line: str) -> None:
                nonlocal written
                lines.add(line.encode())
                written += 1

            with stoppable(lambda: written > 0, "prompt"), GrowingLines(out) as lines:
                there = continuation.compare(lines)
                written = there.lines
                if there.lines:
                    say(f"{out}: {counted(there.lines, 'line')} there already")
                counts = _write(continuation, there, lambda line: add(lines, line), found.prompts, True)
            click.echo(f"{out}: {counted(counts.lines - counts.failed, 'prompt')} continued")
        if counts.failed:
            raise DataError(
                f"{out or 'standard output'}: {counts.failed:,} of {counted(found.prompts, 'prompt')} could not be "
                "continued; their lines have an error that says why"
            )


def _load(checkpoint: Path, values: dict[str, Any]) -> tuple[TextWriter, str]:
    """Loads a checkpoint; returns what writes with it, and a hash that no other checkpoint has."""
    from kogpt2_gluon.machine import runtime

    runtime.wait_briefly()  # before the next lines load MXNet
    from kogpt2_gluon.runs.checkpoint import use_checkpoint
    from kogpt2_gluon.runs.tuned_prompt import prompts_for

    def load(found: Any) -> tuple[TextWriter, str]:
        manifest = (found.path / "manifest.json").read_bytes()
        prompt = prompts_for(found, [values["tuned_prompt"]])[0].tobytes() if values["tuned_prompt"] else b""
        return load_writer(found.path, values), hashlib.sha256(manifest + prompt).hexdigest()

    return use_checkpoint(checkpoint, load)


def _write(
    continuation: Continuation, there: Counts, write: Callable[[str], None], total: int, has_bar: bool
) -> Counts:
    lines, failed = there
    with _bar(total, has_bar) as show:
        show(lines)
        for line, is_failed in continuation.lines(there.lines):
            write(line)
            lines, failed = lines + 1, failed + is_failed
            show(lines)
    return Counts(lines, failed)


@contextmanager
def _bar(total: int, is_wanted: bool) -> Iterator[Callable[[int], None]]:
    """Yields what takes the number of prompts that are done; a terminal shows it."""
    if not is_wanted or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("prompts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("prompts", total=total)
        yield lambda done: bar.update(task, completed=done)


class Continuation:
    """The lines for the prompts of a file."""

    def __init__(
        self, writer: TextWriter, file: PromptFile, plain: dict[str, Any], values: dict[str, Any], identity: str
    ) -> None:
        self._writer, self._file, self._plain = writer, file, plain
        self._slides = values["long_prompts"] == SLIDE
        self._depends_on = [identity, values["precision"], values["weights"], values["long_prompts"]]

    def compare(self, lines: GrowingLines) -> Counts:
        """Counts the lines that are there. RecipeError for one that is not what this command would write."""
        prompts, found = iter(self._file), Counts()
        for number, line in enumerate(lines.lines(), start=1):
            prompt = next(prompts, None)
            try:
                record = json.loads(line)
                fingerprint = record["fingerprint"]
            except (ValueError, RecursionError, TypeError, KeyError):
                raise RecipeError(
                    f"--out {lines.path}: line {number} is none of this command; name another file, or remove it"
                ) from None
            if prompt is None or fingerprint != self._fingerprint(prompt):
                raise RecipeError(
                    f"--out {lines.path}: line {number} was written for another prompt, with other settings or by "
                    "another checkpoint; name another file, or remove it"
                )
            found = Counts(number, found.failed + _is_failed(record))
        return found

    def lines(self, first: int) -> Iterator[tuple[str, bool]]:
        """Yields the line of each prompt from place `first` on, and True if it could not be continued."""
        prompts = islice(iter(self._file), first, None)
        engine, slots = self._writer.engine, self._writer.num_slots
        begun: deque[tuple[dict[str, Any], Job | None, dict[str, Any]]] = deque()
        has_more = True
        while has_more or begun:
            while has_more and len(begun) < AHEAD * slots and engine.waiting < slots:
                prompt = next(prompts, None)
                has_more = prompt is not None
                if prompt:
                    begun.append(self._begin(prompt))
            while begun and (begun[0][1] is None or begun[0][1].is_done):
                record = self._record(*begun.popleft())
                text = json.dumps(record, ensure_ascii=False, allow_nan=False)
                yield _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text), _is_failed(record)
            self._writer.step()

    def _begin(self, prompt: Prompt) -> tuple[dict[str, Any], Job | None, dict[str, Any]]:
        """Hands a prompt to the engine; returns the beginning of its line, its texts, and what ends its line."""
        from kogpt2_gluon.inference.generation import fit_prompt

        record: dict[str, Any] = {"line": prompt.line}
        if prompt.id is not None:
            record["id"] = prompt.id
        record["prompt"] = prompt.text
        last: dict[str, Any] = {"fingerprint": self._fingerprint(prompt)}
        most, tokenizer = prompt.settings.sampling.max_new_tokens, self._writer.tokenizer
        try:
            ids, notes = fit_prompt(tokenizer, prompt.text, self._writer.max_length, most, self._slides)
            job = self._writer.add(ids, prompt.settings)
        except KoGPT2Error as error:
            return {**record, "error": str(error)}, None, last
        has_logprobs = {**self._plain, **prompt.own}.get("logprobs") is not None
        return record, job, {"notes": notes, "ids": ids, "has_logprobs": has_logprobs, **last}

    def _record(self, record: dict[str, Any], job: Job | None, last: dict[str, Any]) -> dict[str, Any]:
        if job is None:
            return {**record, **last}
        ids, has_logprobs = last.pop("ids"), last.pop("has_logprobs")
        return {**record, **texts_to_dict(job.texts, ids, has_logprobs, self._writer.tokenizer), **last}

    def _fingerprint(self, prompt: Prompt) -> str:
        logprobs = {**self._plain, **prompt.own}.get("logprobs")
        facts = [*self._depends_on, prompt.line, prompt.id, prompt.text, asdict(prompt.settings), logprobs]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()


def _is_failed(record: dict[str, Any]) -> bool:
    return "error" in record or "errors" in record
