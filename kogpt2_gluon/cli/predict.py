"""The verb `kogpt2 predict`: the answers of a fine-tuned network to new texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.group import stdout_named
from kogpt2_gluon.cli.paths import ANY_PATH, check_target
from kogpt2_gluon.machine.interrupts import interruptible

if TYPE_CHECKING:
    from kogpt2_gluon.tasks.answering import Answer

FORMATS, TOO_LONG = ("text", "json-lines"), ("stop", "cut")
LONG = 1_000_000  # bytes of input that are worth a line about progress


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("input", type=ANY_PATH, metavar="INPUT|-")
@click.option(
    "--out", type=ANY_PATH, metavar="FILE", help="Write the answers there, as JSON lines; whole or not at all."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Of INPUT; default: what its name or first line says."
)
@click.option(
    "--too-long",
    default=TOO_LONG[0],
    show_default=True,
    type=click.Choice(TOO_LONG),
    help="What is done with a row of too many tokens: name it and stop; cut its end off.",
)
@click.option("--seq-length", default=0, type=click.IntRange(min=0), help="Most tokens of a row; 0: as in fine-tuning.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(min=1), help="Rows at a time.")
@options.device
@options.precision
@options.operators
@interruptible()
def predict(
    checkpoint: Path,
    input: Path,
    out: Path | None,
    as_json: bool,
    form: str | None,
    too_long: str,
    seq_length: int,
    batch_size: int,
    device: str,
    precision: str,
    operators: str,
) -> None:
    """Answer new texts with a fine-tuned network: a label with its probability, a number, or spans.

    CHECKPOINT is its folder, the run's (its newest one), or RUN/best (the best on the dev rows). INPUT has a row a
    line, with a tab between the texts of a pair, or JSON lines: {"text": ...}, of a pair "text_2" too. All of it is
    checked before the first answer is written, and each row has one: an empty line too.

    Printed are number, answer and text of each row, with tabs between them. JSON lines have row (the line's number),
    and label and probabilities (of all labels), value, or spans (begin, end, kind, text).

    \b
    Example: kogpt2 predict runs/finetune/nsmc/seed-0/best reviews.txt --out answers.jsonl
             echo "정말 재미있었다" | kogpt2 predict runs/finetune/nsmc/seed-0/best -       ("it was great fun")
    """
    from kogpt2_gluon.machine import runtime

    runtime.wait_briefly()  # before the next lines load MXNet
    from kogpt2_gluon.runs.checkpoint_folder import better_one
    from kogpt2_gluon.tasks.answering import AnsweringOptions, answer_rows, check_rows
    from kogpt2_gluon.tasks.fine_tuned import load_fine_tuned
    from kogpt2_gluon.tasks.new_rows import open_rows

    _check_out(out, input)
    if better := better_one(checkpoint):
        click.echo(f"kogpt2: note: the newest checkpoint is taken; the best on the dev rows is {better}", err=True)
    tuned = load_fine_tuned(checkpoint, device, precision, operators)
    wanted = AnsweringOptions(too_long, seq_length, batch_size)
    wanted.longest(tuned)
    with open_rows(input, tuned.task, form or "") as rows:
        found = check_rows(tuned, rows, wanted)
        if found.cut:
            click.echo(f"kogpt2: note: {found.cut:,} of {found.rows:,} rows are cut: they are too long", err=True)
        with _writer(out, as_json) as write, _progress(found.size, bool(out)) as progress:
            for answer in answer_rows(tuned, rows, wanted, progress):
                write(answer)
    if out:
        click.echo(f"{out}: the answers to {found.rows:,} rows, of {tuned.task.name}")


def _check_out(out: Path | None, source: Path) -> None:
    from kogpt2_gluon.errors import RecipeError

    if out is None:
        return
    check_target("--out", out)
    with suppress(OSError):  # one of the two is not there
        if out.samefile(source):
            raise RecipeError(f"--out {out}: is INPUT, which it would replace; name another file")


@contextmanager
def _writer(out: Path | None, as_json: bool) -> Iterator[Callable[[Answer], None]]:
    """Yields what takes each answer: to the file `out`, which appears when all are written, or to stdout."""
    if out:
        from kogpt2_gluon.storage.disk import full_disk_named
        from kogpt2_gluon.storage.files import replace_file

        way = "none of the answers is kept; make room, or name another --out"
        with full_disk_named(out.parent, lambda: way), replace_file(out) as file:

            def to_file(answer: Answer) -> None:
                file.write(f"{_json(answer, False)}\n".encode())

            yield to_file
        return
    stream = sys.stdout  # now: a progress bar puts something else in its place
    escapes = not (stream.encoding or "utf-8").lower().replace("_", "-").startswith("utf-8")

    def write(answer: Answer) -> None:
        line = f"{_json(answer, escapes) if as_json else plain(answer)}\n"
        with stdout_named():
            stream.write(line)

    yield write
    with stdout_named():
        stream.flush()


def _json(answer: Answer, escapes: bool) -> str:
    return json.dumps(answer.to_dict(), ensure_ascii=escapes, allow_nan=False)


def plain(answer: Answer) -> str:
    """Writes an answer as a line: number, answer and text, with tabs between them."""
    found = []
    if answer.probabilities:
        found += [answer.label, f"{answer.probabilities[answer.label]:.4f}"]
    if answer.value is not None:
        found.append(f"{answer.value:.4f}")
    if answer.spans is not None:
        text = answer.texts[0]
        found.append(", ".join(f"{text[span.begin : span.end]} ({span.kind})" for span in answer.spans) or "-")
    # A text of JSON lines can have line ends in it.
    return "\t".join(" ".join(each.split()) for each in (str(answer.number), *found, *answer.texts))


@contextmanager
def _progress(total: int, is_out: bool) -> Iterator[Callable[[float], None]]:
    """Yields what takes the bytes that are done. A bar shows them for long inputs whose answers go elsewhere."""
    if total < LONG or (not is_out and sys.stdout.isatty()):
        yield lambda size: None
        return
    from kogpt2_gluon.cli.progress_bar import progress_bar

    done = 0.0
    with progress_bar("predict") as bar:

        def progress(size: float) -> None:
            nonlocal done
            done += size
            bar.show(round(done), total)

        yield progress
