"""Runs commands of README.md and docs/ that a laptop can run, in the order in which the documents give them.

The commands come from the documents; SMALLER has what a test adds to each so that it takes seconds. Files that the
documents assume (a user's text, their shards) are made small, under the names that the documents use.
"""

from __future__ import annotations

import bz2
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
from tests.helpers import ROOT, run
from tests.words.documents import Command, commands, fenced

SMALL_RUN = [
    *("model.units=32", "model.num_layers=1", "model.num_heads=2", "model.max_length=32", "model.vocab_size=1200"),
    *("data.seq_length=32", "training.num_steps=2", "training.batch_size=2", "training.total_batch_size=2"),
    *("training.threads=1", "training.ops=stock", "evaluation.max_sequences=4", "tracking.tensorboard=false"),
]
SMALLER = {
    "kogpt2 tokenizer corpus": ["--vocab-size", "1200"],
    "kogpt2 tokenizer train": ["--vocab-size", "1200"],
    "kogpt2 train": SMALL_RUN,
    "kogpt2 evaluate": ["--ops", "stock"],
    "kogpt2 generate": ["--max-new-tokens", "4", "--ops", "stock"],
    "kogpt2 finetune": [
        "task.epochs=0",
        "training.num_steps=2",
        "training.batch_size=2",
        "training.total_batch_size=2",
    ],
}
MODULES = {"kogpt2": "kogpt2_gluon.cli.main", "kogpt2-launch": "kogpt2_launch"}


def execute(command: Command) -> str:
    """Runs one command of a document in the working folder, made smaller; returns what it prints."""
    line = " ".join(command.words)
    smaller = [word for start, words in SMALLER.items() if line.startswith(start) for word in words]
    return run(sys.executable, "-m", MODULES[command.words[0]], *command.words[1:], *smaller).stdout


def commands_of(document: str, *starts: str) -> list[Command]:
    """The commands of a document that begin with one of `starts`."""
    found = [each for each in commands(ROOT / document) if " ".join(each.words).startswith(starts)]
    assert found, (document, starts)
    return found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands of the README, to its conversion, have been run."""
    folder = tmp_path_factory.mktemp("readme")
    write_sample_corpus(folder / "reviews.txt", num_bytes=150_000, seed=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ours = commands_of("README.md", "kogpt2 ")
        verbs = [command.words[1] for command in ours]
        assert verbs == [
            "clean",
            "tokenizer",
            "shard",
            "train",
            "evaluate",
            "generate",
            "report",
            "convert",
            "finetune",
        ]
        _write_nsmc(folder / "nsmc", (folder / "reviews.txt").read_text(encoding="utf-8").splitlines())
        printed = {command.words[1]: execute(command) for command in ours}
    assert "kept: train" in printed["clean"]
    assert "step 2/2" in printed["train"]
    assert "perplexity" in printed["evaluate"] and "bits per byte" in printed["evaluate"]
    assert printed["generate"].count("이 영화는") == 3
    assert re.search(r"the same network, not pretrained +test +20 +accuracy", printed["finetune"])
    return folder


def _write_nsmc(folder: Path, lines: list[str]) -> None:
    """Files in the form of NSMC, with made reviews."""
    folder.mkdir()
    for name, part in (("ratings_train.txt", lines[:60]), ("ratings_test.txt", lines[60:80])):
        rows = [f"{number}\t{line}\t{number % 2}" for number, line in enumerate(part)]
        (folder / name).write_text("\n".join(["id\tdocument\tlabel", *rows]) + "\n", encoding="utf-8")


def test_the_commands_of_the_readme_lead_from_a_text_to_a_pytorch_folder(work):
    for path in ("corpus/cleaning.html", "runs/small_cpu/report.html", "my-model/model.safetensors"):
        assert (work / path).is_file(), path


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_the_python_of_the_readme_loads_what_was_converted(work, monkeypatch):
    monkeypatch.chdir(work)
    [(_, program)] = fenced(ROOT / "README.md", "python")
    assert "my-model" in program and "이 영화는" in program
    program = program.replace("max_new_tokens=60", "max_new_tokens=4")
    printed = run(sys.executable, "-c", program, HF_HUB_OFFLINE="1").stdout
    assert printed.strip().startswith("이 영화는")


def test_the_quickstart_runs(tmp_path, monkeypatch):
    """From the text that the package writes, of which a part is enough here."""
    monkeypatch.chdir(tmp_path)
    [write, *_] = [each for each in commands(ROOT / "docs/quickstart.md") if each.words[:2] == ["python", "-c"]]
    run(sys.executable, *write.words[1:])
    lines = (tmp_path / "text.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) > 10_000
    (tmp_path / "text.txt").write_text("".join(lines[:600]), encoding="utf-8")
    monkeypatch.setitem(SMALLER, "kogpt2 clean", ["--test-share", "0.1"])
    road = commands_of("docs/quickstart.md", "kogpt2 ")
    verbs = [command.words[1] for command in road]
    assert verbs == ["clean", "tokenizer", "shard", "train", "convert", "generate", "evaluate"]
    printed = {command.words[1]: execute(command) for command in road}
    assert printed["generate"].count("오늘은") == 3 and "perplexity" in printed["evaluate"]
    [(_, program)] = fenced(ROOT / "docs/quickstart.md", "python")
    if importlib.util.find_spec("transformers"):
        program = program.replace("max_new_tokens=20", "max_new_tokens=4")
        assert run(sys.executable, "-c", program, HF_HUB_OFFLINE="1").stdout.startswith("오늘은")


def test_the_commands_of_docs_recipes_run(monkeypatch):
    """In this process; none but the dry run, which needs shards, opens data."""
    monkeypatch.chdir(ROOT)
    ours = commands_of("docs/recipes.md", "kogpt2 recipe ")
    assert [command.words[2] for command in ours] == ["show", "diff", "check", "keys"]
    for command in ours:
        words = [word for each in command.words[1:] for word in (sorted(map(str, Path().glob(each))) or [each])]
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0 and done.stdout, (str(command), done.exception)


def test_the_training_commands_of_docs_data_run(work, tmp_path, monkeypatch):
    for name in ("shards", "corpus"):
        (tmp_path / name).symlink_to(work / name)
    monkeypatch.chdir(tmp_path)
    first, second, report = commands_of("docs/data.md", "kogpt2 train small_cpu", "kogpt2 report")
    execute(first)
    assert "num_steps: 2" in execute(second)
    execute(report)
    assert (tmp_path / "runs" / "short" / "report.html").is_file()


def test_the_commands_of_docs_generation_run(work, tmp_path, monkeypatch):
    """In this process, which has MXNet already; the prompts are those of the document."""
    (_, prompts), *_ = fenced(ROOT / "docs" / "generation.md", "json")
    (tmp_path / "prompts.jsonl").write_text(prompts, encoding="utf-8")
    (tmp_path / "runs").symlink_to(work / "runs")
    monkeypatch.chdir(tmp_path)
    for command in commands_of("docs/generation.md", "kogpt2 generate"):
        done = CliRunner().invoke(cli, [*command.words[1:], *SMALLER["kogpt2 generate"]], input="이 영화는")
        assert done.exit_code == 0, (str(command), done.exception)
        assert "이 영화는" in done.stdout or done.stdout == "texts.jsonl: 2 prompts continued\n"
    assert len((tmp_path / "texts.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_the_training_commands_of_docs_training_run(work, tmp_path, monkeypatch):
    """Those with the best checkpoint, then the two that change the length of sequences on purpose."""
    for name in ("shards", "corpus"):
        (tmp_path / name).symlink_to(work / name)
    shutil.copytree(work / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    evaluate, convert, back, mirrored, first, second, *others = commands_of("docs/training.md", "kogpt2 ")
    assert mirrored.words[3].startswith("checkpoint.mirrors=")  # its folder and bucket are not here
    assert "perplexity" in execute(evaluate)
    execute(convert)
    assert "going on from runs/small_cpu/checkpoints/step-0000000" in execute(back)
    shutil.rmtree(tmp_path / "runs")
    longer = [each for each in SMALL_RUN if not each.startswith(("data.seq_length", "training.num_steps"))]
    longer.append("model.max_length=128")
    monkeypatch.setitem(SMALLER, "kogpt2 train", [*longer, "training.num_steps=2"])
    execute(first)
    monkeypatch.setitem(SMALLER, "kogpt2 train", [*longer, "training.num_steps=3"])
    assert "data.seq_length 64 -> 128: needs another order of sequences" in execute(second)
    for name in ("a", "b"):
        shutil.copytree(tmp_path / "runs" / "small_cpu", tmp_path / "runs" / name)
    said = [invoked([word.replace("4000", "3") for word in each.words[1:]]) for each in others]
    assert [text.splitlines()[0] for text in said[:3]] == [
        "asked: training.learning_rate=1e-3",
        "asked: save evaluate",
        "asked: stop",
    ]
    assert "runs/slower: goes on from step 3 of runs/a" in said[6]
    assert (tmp_path / "runs" / "slower" / "recipe.yaml").is_file()


def test_the_walk_of_docs_domain_runs(work, tmp_path, monkeypatch):
    """The domain is made: documents of the sample's sentences with three terms in them."""
    lines = (work / "reviews.txt").read_text(encoding="utf-8").splitlines()
    terms, particles = ("합성곱", "역전파", "하이퍼파라미터"), ("", "을", "의", "에서")
    documents = [
        {"text": f"{line} {terms[number % 3]}{particles[number % 4]} {terms[number % 2]}{particles[number % 3]} 보자"}
        for number, line in enumerate(lines[:600])
    ]
    (tmp_path / "manuals.jsonl").write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    for name in ("corpus", "tokenizer.model", "runs"):
        (tmp_path / name).symlink_to(work / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SMALLER, "kogpt2 train", [*SMALL_RUN, "tracking.run_dir=adapted"])
    walk = commands_of("docs/domain.md", "kogpt2 ")
    printed = [execute(command) for command in walk[:7]]
    assert [command.words[1] for command in walk[:7]] == ["clean", *["tokenizer"] * 3, "shard", "shard", "train"]
    assert all(term in printed[1] for term in terms)
    found = dict(line.split("=▁") for line in (tmp_path / "terms.txt").read_text(encoding="utf-8").splitlines())
    assert set(terms) <= set(found.values()) and "unused left" in printed[2]
    assert f"the row of each of {len(found)} renamed tokens begins as the mean" in printed[6]
    monkeypatch.setitem(SMALLER, "kogpt2 evaluate", ["--ops", "stock", "--json"])
    for command in walk[7:]:
        command.words[2] = command.words[2].replace("runs/adapt", "adapted")
        assert json.loads(execute(command))["bits_per_raw_byte"] > 0
    assert len(walk) == 11


def test_the_commands_of_docs_watching_and_search_run(work, tmp_path, monkeypatch):
    (tmp_path / "shards").symlink_to(work / "shards")
    for name in ("small_cpu", "smaller"):
        shutil.copytree(work / "runs" / "small_cpu", tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    for command in commands_of("docs/watching.md", "kogpt2 report"):
        assert invoked(command.words[1:])
    assert {"comparison.html", "figures.csv"} <= {path.name for path in tmp_path.iterdir()}
    [(_, space)] = fenced(ROOT / "docs" / "search.md", "yaml")
    (tmp_path / "space.yaml").write_text(space, encoding="utf-8")
    monkeypatch.setitem(SMALLER, "kogpt2 search", [*SMALL_RUN, "--trials", "2"])
    [command] = commands_of("docs/search.md", "kogpt2 search")
    assert "runs/small_cpu-search/best.yaml" in execute(command)


def invoked(words: list[str]) -> str:
    """Runs a command in this process, but for a training; returns its output."""
    if words[0] == "train":
        return ""
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.stdout


def test_the_road_of_docs_data_runs_to_the_dry_run(work, tmp_path, monkeypatch):
    """A Wikipedia dump, small: the commands are the document's, up to the training."""
    monkeypatch.chdir(tmp_path)
    lines = (work / "reviews.txt").read_text(encoding="utf-8").splitlines()[:600]
    pages = "".join(
        f"<page><title>{number}</title><ns>0</ns><id>{number}</id><revision><id>1</id>"
        f'<text bytes="1" xml:space="preserve">{" ".join(lines[number : number + 5])}</text></revision></page>\n'
        for number in range(0, 600, 5)
    )
    dump = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">{pages}</mediawiki>\n'
    (tmp_path / "kowiki-latest-pages-articles.xml.bz2").write_bytes(bz2.compress(dump.encode()))
    road = commands_of("docs/data.md", "kogpt2 ")
    last = next(index for index, command in enumerate(road) if "--dry-run" in command.words)
    assert [command.words[1] for command in road[:last]] == ["clean", "tokenizer", "tokenizer", "shard", "verify"]
    monkeypatch.setitem(SMALLER, "kogpt2 clean", ["--test-share", "0.1"])
    assert "parameters" in [execute(command) for command in road[: last + 1]][-1]


def test_the_commands_of_docs_morphemes_run(work, tmp_path, monkeypatch):
    pytest.importorskip("kiwipiepy", reason="cuts at morphemes")
    (tmp_path / "corpus").symlink_to(work / "corpus")
    monkeypatch.chdir(tmp_path)
    for command in commands_of("docs/morphemes.md", "kogpt2 "):
        execute(command)
    assert (tmp_path / "shards" / "train" / "tokenizer.json").is_file()


@pytest.mark.parametrize("document", ["README.md", "docs/cluster.md"])
def test_plans_and_jobs_are_made_as_the_documents_say(document, tmp_path, monkeypatch):
    """Each plan and the jobs made of it have a folder of their own: two of the jobs have a file of the same name."""
    needs_aws = {"--ec2-tag", "--asg", "--placement-group"}
    folders: list[Path] = []
    for command in commands_of(document, "kogpt2-launch plan", "kogpt2-launch render"):
        if command.words[1] == "plan" and not needs_aws & set(command.words):
            folders.append(tmp_path / str(len(folders)))
            folders[-1].mkdir()
            monkeypatch.chdir(folders[-1])
        if not needs_aws & set(command.words):
            execute(command)
    assert folders and all((folder / "plan.json").is_file() for folder in folders)
    if document == "docs/cluster.md":
        made = {path.name for path in tmp_path.glob("*/*")}
        assert made >= {"job.sbatch", "cluster.yaml", "mpijob.yaml", "job-definition.json", "batch-entry.sh"}


def test_the_readme_is_a_path_and_not_a_reference():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 1000
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[:3] == ["The demo", "Your own text", "To PyTorch"]
