"""The verb `kogpt2 generate`: continues texts, those of a prompt, of a file of prompts, or one after another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.generation_options import text_options, text_values
from kogpt2_gluon.cli.group import echo, echo_json, stdout_named
from kogpt2_gluon.cli.paths import ANY_PATH
from kogpt2_gluon.storage.read_again import STANDARD_INPUT

if TYPE_CHECKING:
    from kogpt2_gluon.inference.text_settings import TextSettings
    from kogpt2_gluon.inference.text_writer import Text, TextWriter

RULE = "-" * 20
REFUSE, SLIDE = LONG_PROMPTS = ("refuse", "slide")


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("prompt", required=False, metavar="[PROMPT|-]")
@text_options
@click.option("--prompts", type=ANY_PATH, metavar="FILE|-", help="Continue each prompt of a file: JSON lines or text.")
@click.option(
    "--out", type=ANY_PATH, metavar="FILE", help="With --prompts: add JSON lines there; a stopped command goes on."
)
@click.option(
    "--tuned-prompt",
    type=ANY_PATH,
    metavar="FOLDER",
    help="A prompt that was tuned on CHECKPOINT (convert --to peft), in front of each text.",
)
@click.option("--interactive", "-i", is_flag=True, help="Ask for prompts, one a line.")
@click.option("--stream", is_flag=True, help="Print a text while it is written; on a terminal one text always is.")
@click.option(
    "--long-prompts",
    default=REFUSE,
    show_default=True,
    type=click.Choice(LONG_PROMPTS),
    help="What is done with a prompt that does not fit: refuse it; read its last tokens.",
)
@click.option("--slots", default=8, show_default=True, type=click.IntRange(1, 1024), help="Texts written at once.")
@options.json_output
@options.device
@options.precision
@options.weights
@options.operators
def generate(checkpoint: Path, prompt: str | None, as_json: bool, **values: Any) -> None:
    """Continue PROMPT with a checkpoint; each text ends at </s>, a stop string or its most new tokens.

    CHECKPOINT is its folder, the run's (its newest one), or RUN/best (of the lowest held-out loss). PROMPT - is all
    of standard input. Several texts of which one has a line break are separated by a rule. Notes on stderr say what
    of the prompt the network does not read as it is written.

    --json has prompt, texts (with the prompt), notes, continuations (without it), finish_reasons and token counts.
    --prompts reads JSON lines, {"prompt": ...} with "id" and settings of its own if it has some, or a prompt a line.
    With -i, Ctrl-C ends a text and Ctrl-D the program.

    \b
    Example: kogpt2 generate runs/demo "오늘 날씨는" --top-k 40 -n 3        (prompt: "today's weather is")
             kogpt2 generate runs/demo --prompts prompts.jsonl --out texts.jsonl
             kogpt2 generate runs/demo -i --top-p 0.9
    """
    plain = text_values(values)
    prompts, out, interactive = values["prompts"], values["out"], values["interactive"]
    _check_uses(prompt, as_json, plain, values)
    _settings(None, plain)
    if prompts:
        from kogpt2_gluon.cli.generate_file import continue_file

        continue_file(checkpoint, prompts, out, plain, values)
        return
    if interactive:
        from kogpt2_gluon.cli.generate_interactive import converse

        writer = load_writer(checkpoint, values)
        converse(writer, _settings(writer, plain), values["long_prompts"] == SLIDE)
        return
    assert prompt is not None
    text = _standard_input() if prompt == STANDARD_INPUT else prompt
    continue_one(load_writer(checkpoint, values), text, plain, as_json, values)


def _check_uses(prompt: str | None, as_json: bool, plain: dict[str, Any], values: dict[str, Any]) -> None:
    ways = (prompt is not None) + (values["prompts"] is not None) + values["interactive"]
    if ways != 1:
        raise click.UsageError("name PROMPT, --prompts FILE or -i: one of them")
    if values["out"] and not values["prompts"]:
        raise click.UsageError("--out: goes with --prompts; a text of PROMPT is printed")
    if as_json and values["interactive"]:
        raise click.UsageError("--json: not with -i")
    if plain["logprobs"] is not None and not as_json and not values["prompts"]:
        raise click.UsageError("--logprobs: they are in the JSON of --json or --prompts")
    if values["stream"] and (as_json or values["prompts"]):
        raise click.UsageError("--stream: not with JSON; a text is whole there")


def load_writer(checkpoint: Path, values: dict[str, Any]) -> TextWriter:
    """Loads a checkpoint to write texts with."""
    from kogpt2_gluon.machine import runtime

    runtime.wait_briefly()  # before the next lines load MXNet
    from kogpt2_gluon.inference.loading import load_checkpoint
    from kogpt2_gluon.inference.text_writer import TextWriter
    from kogpt2_gluon.model.decoding import weights_note

    how, weights = (values["device"], values["precision"], values["operators"]), values["weights"] or ""
    net, tokenizer, _, ctx = load_checkpoint(checkpoint, *how, values["tuned_prompt"], weights)
    if note := weights_note(net, weights):
        say(note)
    return TextWriter(net, tokenizer, ctx, values["slots"], weights)


def _settings(writer: TextWriter | None, plain: dict[str, Any]) -> TextSettings:
    from kogpt2_gluon.inference.text_settings import text_settings

    return text_settings(plain, writer.tokenizer if writer else None)


def say(note: str) -> None:
    """Prints a note on stderr."""
    click.echo(f"kogpt2: note: {note}", err=True)


def continue_one(writer: TextWriter, prompt: str, plain: dict[str, Any], as_json: bool, values: dict[str, Any]) -> None:
    """Prints the texts of one prompt. DataError, after those that are whole, if one was not written to its end."""
    from kogpt2_gluon.inference.generation import fit_prompt

    settings = _settings(writer, plain)
    most = settings.sampling.max_new_tokens
    ids, notes = fit_prompt(writer.tokenizer, prompt, writer.max_length, most, values["long_prompts"] == SLIDE)
    for note in notes:
        say(note)
    count = settings.num_samples
    if values["stream"] or (count == 1 and not as_json and not settings.is_search and sys.stdout.isatty()):
        printer = StreamPrinter(count)
        printer.begin(writer.prompt_text(ids))
        texts = writer.write(ids, settings, printer.show)
        printer.finish(texts)
    else:
        texts = writer.write(ids, settings)
        if as_json:
            from kogpt2_gluon.cli.text_json import texts_to_dict

            found = texts_to_dict(texts, ids, plain["logprobs"] is not None, writer.tokenizer)
            echo_json({"prompt": prompt, "texts": found.pop("texts"), "notes": notes, **found})
        else:
            print_texts(texts)
    _refuse_failed(texts)


def print_texts(texts: list[Text]) -> None:
    """Prints texts with their prompts, each on lines of its own."""
    shown = [for_terminal(text.whole) for text in texts]
    has_lines = any("\n" in text for text in shown)
    for number, text in enumerate(shown, start=1):
        if has_lines and len(texts) > 1:
            echo(_rule(number, len(texts)))
        echo(text)


def _refuse_failed(texts: list[Text]) -> None:
    from kogpt2_gluon.errors import DataError

    for number, text in enumerate(texts, start=1):
        if text.error:
            raise DataError(f"text {number} of {len(texts)} ends early: {text.error}")


def _rule(number: int, count: int) -> str:
    return f"{RULE} {number} of {count} {RULE}"


def for_terminal(text: str) -> str:
    """Returns a text without what a terminal would obey, if one shows it: a network can write anything."""
    from kogpt2_gluon.runs.metrics import printable

    return printable(text) if sys.stdout.isatty() else text


class StreamPrinter:
    """Prints texts while they are written: one at a time, the others when it is their turn.

    Parameters
    ----------
    count : int
        How many texts there are; a rule is between them.
    """

    def __init__(self, count: int = 1) -> None:
        self._count, self._place = count, 0
        self._waiting: dict[int, str] = {}

    def begin(self, prompt: str) -> None:
        """Prints what is in front of the present text."""
        if self._count > 1:
            echo(_rule(self._place + 1, self._count))
        self._print(prompt)

    def show(self, place: int, new: str) -> None:
        """Takes what is new of a text."""
        self._waiting[place] = self._waiting.get(place, "") + new
        if place == self._place:
            self._print(self._waiting.pop(place))

    def finish(self, texts: list[Text]) -> None:
        """Prints what was not printed yet."""
        for place, text in enumerate(texts):
            self._place = place
            if place:
                self.begin(text.prompt)
            self._print(self._waiting.pop(place, ""))
            self._print("\n")

    def _print(self, text: str) -> None:
        with stdout_named():
            click.echo(for_terminal(text), nl=False)


def _standard_input() -> str:
    from kogpt2_gluon.errors import DataError

    raw = sys.stdin.buffer.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = raw[error.start : error.start + 3].hex(" ")
        raise DataError(f"standard input: not UTF-8 (bytes {bad}), at byte {error.start}") from None
    return text.replace("\r\n", "\n").removesuffix("\n")  # that of the last line, which `echo` adds
