"""README.md and docs/ name only what exists: commands with their options, recipe keys, files, links, make targets.

Commands are parsed by the command line's own parser and not run; test_commands.py runs some.
"""

from __future__ import annotations

import re

import click
import pytest
import yaml

from kogpt2_gluon.chain.chain_file import load_chain
from kogpt2_gluon.cli.main import cli as kogpt2
from kogpt2_gluon.corpus.cleaning.options import load_options
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.search.space import read_space
from kogpt2_gluon.tasks.own_table import load_own_task
from kogpt2_gluon.tasks.prompts.prompts import open_prompt
from kogpt2_gluon.tasks.public import PUBLIC
from kogpt2_launch.cli.main import main as kogpt2_launch
from tests.chaos import run as chaos
from tests.helpers import ROOT
from tests.words import documents

GROUPS = {"kogpt2": kogpt2, "kogpt2-launch": kogpt2_launch}
COMMANDS = [command for path in documents.DOCUMENTS for command in documents.commands(path)]
OURS = [command for command in COMMANDS if command.words[0] in GROUPS]


class UnknownCommand(Exception):
    """A command of the documents that the command line does not know."""


def parse(words: list[str]) -> tuple[str, dict]:
    """The verb's full name and its parameters, as the command line reads them. Files need not exist."""
    command: click.Command = GROUPS[words[0]]
    name, arguments, context = words[0], words[1:], None
    try:
        while True:
            context = command.make_context(name, list(arguments), parent=context)
            if not isinstance(command, click.Group):
                return context.command_path, context.params
            found, inner, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found and inner
            name, command = found, inner
    except click.UsageError as error:
        raise UnknownCommand(f"{' '.join(words)}: {error.format_message()}") from error


@pytest.fixture(autouse=True)
def any_path_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


def test_there_are_commands_to_check():
    verbs = {parse(command.words)[0] for command in OURS}
    assert {"kogpt2 clean", "kogpt2 tokenizer train", "kogpt2-launch plan", "kogpt2-launch render"} <= verbs
    assert {command.document for command in OURS} >= {"README.md", "docs/data.md", "docs/cluster.md"}


@pytest.mark.parametrize("command", OURS, ids=str)
def test_every_command_is_one_that_the_command_line_takes(command):
    _, parameters = parse(command.words)
    recipe = parameters.get("recipe") or parameters.get("plan_or_recipe")
    if recipe and not recipe.endswith((".json", ".yaml")):
        begun = [f"training.init_from={parameters['checkpoint']}"] if "checkpoint" in parameters else []
        load_recipe(recipe, [*begun, *parameters["overrides"]])


@pytest.mark.parametrize(
    "words",
    [
        "kogpt2 clear reviews.txt",
        "kogpt2 clean reviews.txt --documents line --out corpus --test-part 0.02",
        "kogpt2 shard corpus --tokenizer tokenizer.model",
        "kogpt2 convert runs/small_cpu my-model --to onnx-of-another-kind",
        "kogpt2-launch plan kogpt2_base --hosts",
        "kogpt2 tokenizer rename m.model --token a=b --out n.model --loud",
    ],
)
def test_a_command_that_the_command_line_does_not_take_is_found(words):
    with pytest.raises(UnknownCommand):
        parse(words.split())


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_verbs_and_options_within_sentences_exist(path):
    unknown = []
    for line, span in documents.spans(path):
        words = span.split()
        if words[0] not in GROUPS or len(words) < 2 or not re.fullmatch(r"[a-z]+", words[1]):
            continue
        command: click.Command | None = GROUPS[words[0]]
        for word in words[1:]:
            inner = command.commands.get(word) if isinstance(command, click.Group) else None
            if inner is None:
                break
            command = inner
        else:
            word = ""
        # `tokenizer` without a word of its own trains.
        if command is kogpt2.commands["tokenizer"]:
            command = command.commands["train"]  # type: ignore[union-attr]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        if (isinstance(command, click.Group) and word) or any(w.startswith("--") and w not in known for w in words):
            unknown.append(f"{path.name}:{line}: `{span}`")
    assert not unknown


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    dead = []
    for line, link, anchor in documents.links(path):
        target = path.parent / link if link else path
        if not target.exists() or (anchor and anchor not in documents.anchors(target)):
            dead.append(f"{path.name}:{line}: {link}#{anchor}")
    assert not dead


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_files_named_within_sentences_exist(path):
    """Those with a folder in front, from the root, from the package or from the document's own folder."""
    missing = []
    for line, span in documents.spans(path):
        if re.fullmatch(r"[a-z_][\w./-]*/([\w.-]+\.(py|md|yaml|sh|cc|cu|h)|)", span) and "NAME" not in span:
            bases = (ROOT, ROOT / "kogpt2_gluon", ROOT / "launch", path.parent)
            if not any((base / span).exists() for base in bases) and span not in MADE_BY_A_RUN:
                missing.append(f"{path.name}:{line}: `{span}`")
    assert not missing


# Folders that a run, a plan or a corpus has, and folders of a user's.
MADE_BY_A_RUN = {
    "train/",
    "test/",
    "samples/",
    "tensorboard/",
    "checkpoints/",
    "RUN_DIR/launch/",
    "launch/attempt-NN/",
    "run/",
}


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(path):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [command.words for command in documents.commands(path) if command.words[0] == "make"]
    named += [span.split() for _, span in documents.spans(path) if span.startswith("make ")]
    for words in named:
        plain = [word for word in words[1:] if re.fullmatch(r"[a-z0-9-]+", word) and word not in ("-C", "kogpt2")]
        assert set(plain) <= targets, words


def test_scripts_of_the_benchmarks_have_the_options_that_the_page_gives_them():
    scripts = [command for command in COMMANDS if len(command.words) > 1 and command.words[1].startswith("benchmarks/")]
    scripts += [command for command in COMMANDS if command.words[0].startswith("benchmarks/")]
    assert len(scripts) > 5
    for command in scripts:
        script = next(word for word in command.words if word.startswith("benchmarks/"))
        assert (ROOT / script).is_file(), command
        source = (ROOT / script).read_text()
        for module in re.findall(r"benchmarks(?:\.| import )(\w+)", source):
            source += (ROOT / "benchmarks" / f"{module}.py").read_text()
        for option in command.words:
            assert not option.startswith("--") or f'"{option}"' in source, command


READERS = {  # of the YAML that has this key
    "stages": lambda path: load_chain(str(path)),
    "data": lambda path: load_recipe(str(path), []),
    "base": lambda path: load_options(str(path)),
    "files": load_own_task,
    "training.learning_rate": lambda path: read_space(path, load_recipe("small_cpu")),
    "template": lambda path: open_prompt(PUBLIC["nsmc"], path),
}


def test_yaml_in_the_documents_is_accepted(tmp_path):
    blocks = [text for path in documents.DOCUMENTS for _, text in documents.fenced(path, "yaml")]
    keys = [next(key for key in READERS if key in yaml.safe_load(text)) for text in blocks]
    assert set(keys) >= {"data", "base", "template"}
    for number, (key, text) in enumerate(zip(keys, blocks)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        READERS[key](path)
        path.write_text(text + "no_such_key: {}\n", encoding="utf-8")
        with pytest.raises(KoGPT2Error):
            READERS[key](path)


def test_every_room_is_in_the_table_of_rooms():
    """The rooms are those of the contracts in pyproject.toml."""
    contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = r'type = "layers"\ncontainers = [^\n]*\nexhaustive = true\nlayers = \[(.*?)\]'
    ours, launchers = re.findall(layers, contracts, re.DOTALL)
    named = {span for _, span in documents.spans(ROOT / "docs" / "developing.md")}
    for room in re.findall(r"\w+", ours):
        assert {f"{room}/", f"{room}.py"} & named, room
    for room in re.findall(r"\w+", launchers):
        assert not (ROOT / "launch" / room).is_dir() or f"launch/{room}/" in named, room


def test_tests_and_scenarios_that_promises_name_exist():
    page = ROOT / "docs" / "promises.md"
    spans = [span for _, span in documents.spans(page)]
    tests = [span.split("::") for span in spans if "::" in span]
    assert len(tests) > 20
    for file, name in tests:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), name
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    scenarios = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row.split(" | ")[-1])}
    assert scenarios <= set(chaos.SCENARIOS) and len(scenarios) > 15
