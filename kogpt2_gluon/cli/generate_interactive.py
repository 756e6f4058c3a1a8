"""`kogpt2 generate -i`: a prompt a line, each answered while it is written.

Ctrl-C ends the text that is being written, or clears the line; Ctrl-D ends the program.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from kogpt2_gluon.cli.generate import StreamPrinter, say
from kogpt2_gluon.errors import KoGPT2Error

if TYPE_CHECKING:
    from kogpt2_gluon.inference.text_settings import TextSettings
    from kogpt2_gluon.inference.text_writer import TextWriter

ASK = "> "


class Stop:
    """Is asked between two tokens whether a text should end."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self) -> bool:
        return self.wanted


def converse(writer: TextWriter, settings: TextSettings, slides: bool) -> None:
    """Continues the lines of standard input, one after another, until it ends."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - `input` has history and editing by it
        click.echo("kogpt2: a prompt a line; Ctrl-C ends a text, Ctrl-D the program", err=True)
    while True:
        try:
            prompt = input(ASK) if is_terminal else _next_line()
        except EOFError:
            if is_terminal:
                click.echo()
            return
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            click.echo()
            continue
        except UnicodeDecodeError:
            click.echo("kogpt2: that line is not UTF-8", err=True)
            continue
        if prompt:
            _answer(writer, settings, slides, prompt)


def _next_line() -> str:
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    return line.decode("utf-8").rstrip("\r\n")


def _answer(writer: TextWriter, settings: TextSettings, slides: bool, prompt: str) -> None:
    from kogpt2_gluon.inference.generation import fit_prompt

    try:
        ids, notes = fit_prompt(writer.tokenizer, prompt, writer.max_length, settings.sampling.max_new_tokens, slides)
    except KoGPT2Error as error:
        click.echo(f"kogpt2: {error}", err=True)
        return
    for note in notes:
        say(note)
    printer = StreamPrinter(settings.num_samples)
    with _ctrl_c_is_heard() as stop:
        printer.begin(writer.prompt_text(ids))
        texts = writer.write(ids, settings, printer.show, stop)
        printer.finish(texts)
    for text in texts:
        if text.error:
            click.echo(f"kogpt2: the text ends early: {text.error}", err=True)


@contextmanager
def _ctrl_c_is_heard() -> Iterator[Stop]:
    """Yields what Ctrl-C sets while the block runs: between two tokens, so that the engine stays whole."""
    stop = Stop()

    def interrupt(number: int, frame: Any) -> None:
        stop.wanted = True

    if threading.current_thread() is not threading.main_thread():  # where Python admits no handlers
        yield stop
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
