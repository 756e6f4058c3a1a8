"""The command: help that costs nothing, and wrong input answered in one line with its exit code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.corpus.formats import KINDS
from kogpt2_gluon.recipe import known_keys
from kogpt2_gluon.recipe_sections import OPTIMIZERS
from tests.helpers import kogpt2, run


def verbs(group: click.Group, *words: str) -> Iterator[tuple[str, ...]]:
    """The words of every verb and of every verb below it."""
    for name, command in group.commands.items():
        yield (*words, name)
        if isinstance(command, click.Group):
            yield from verbs(command, *words, name)


@pytest.fixture
def trained(tiny, tmp_path) -> Path:
    kogpt2("train", "debug_cpu", *tiny, "training.num_steps=2", "data.test=")
    return tmp_path / "run"


def refused(*arguments, code: int) -> str:
    """The one line that answers a wrong call."""
    done = kogpt2(*arguments, code=code)
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("kogpt2: ")
    return done.stderr


def test_help_of_clean_names_every_kind_of_document():
    shown = " ".join(kogpt2("clean", "--help").stdout.split())
    assert all(f"{name}: " in shown for name in KINDS) and "FIELD" in shown


def test_help_of_every_verb_has_an_example():
    def shown(*words: str) -> str:
        return CliRunner().invoke(cli, [*words, "--help"], prog_name="kogpt2").output

    found = list(verbs(cli))
    assert {("ops", "build"), ("profile",), ("train",)} <= set(found)
    for verb in found:
        assert f"  {verb[0]} " in shown()
        _, _, text = shown(*verb).partition("\n")  # without the line of usage
        assert re.search(rf"\bkogpt2 {' '.join(verb)}\b", text), verb


@pytest.mark.parametrize(
    "code", ["import kogpt2_gluon", "import kogpt2_gluon.cli.main", "import kogpt2_gluon.recipe, kogpt2_gluon.estimate"]
)
def test_light_imports_load_no_mxnet(code):
    heavy = ("mxnet", "gluonnlp", "horovod", "torch", "transformers")
    check = f"{code}; import sys; bad = [m for m in {heavy!r} if m in sys.modules]; assert not bad, bad"
    run(sys.executable, "-c", check)


def test_keys_of_a_recipe_are_printed_with_default_bounds_and_meaning():
    whole = kogpt2("train", "--keys").stdout
    keys = [line.split()[0] for line in whole.splitlines() if line.startswith("  ") and line[2] != " "]
    assert keys == list(known_keys())
    for part in (
        "  model.dropout = 0.1  (0 to 0.99)\n      on embeddings, attention, attention output and FFN\n",
        "  training.num_steps = 1000  (1 or more)\n",
        "  training.schedule = linear  (linear, cosine)\n",
        "  tracking.tensorboard = true  (true, false)\n",
        '  data.test = ""\n',
    ):
        assert part in whole, part
    for name, choice in OPTIMIZERS.items():
        assert f"{name}: {choice.meaning}" in " ".join(whole.split())
    section = kogpt2("train", "--keys", "checkpoint").stdout
    assert section.startswith("checkpoint: ") and section.strip() in whole
    of_section = [key for key in known_keys() if key.startswith("checkpoint.")]
    assert "training.num_steps" not in section and section.count(" = ") == len(of_section) >= 5
    message = refused("train", "--keys", "trainin", code=2)
    assert message.startswith(
        "kogpt2: --keys trainin: not a section of a recipe; the sections are model, data, task, training"
    )
    assert kogpt2("train", "--dry-run", code=2).stderr.endswith("Missing argument 'RECIPE'.\n")


def test_missing_and_empty_input(tmp_path):
    assert "nowhere.txt" in refused(
        "clean", tmp_path / "nowhere.txt", "--documents", "line", "--out", tmp_path / "c", code=3
    )
    (tmp_path / "empty.txt").write_text("\n \n\n")
    assert "no document" in refused(
        "clean", tmp_path / "empty.txt", "--documents", "line", "--out", tmp_path / "c", code=3
    )
    assert "nowhere" in refused("tokenizer", tmp_path / "nowhere", "--out", tmp_path / "t.model", code=3)
    coverage = refused("tokenizer", tmp_path, "--character-coverage", 0.95, "--out", tmp_path / "t.model", code=2)
    assert coverage == "kogpt2: --character-coverage 0.95: must be from 0.98 to 1\n"
    assert "nowhere" in refused("evaluate", tmp_path / "nowhere", tmp_path, code=3)
    assert "nowhere" in refused("generate", tmp_path / "nowhere", "가", code=3)
    assert "nowhere" in refused("convert", tmp_path / "nowhere", tmp_path / "out", code=3)
    assert "nowhere" in refused("report", tmp_path / "nowhere", code=3)
    assert refused("train", tmp_path / "nowhere.yaml", code=2)


def test_training_without_or_with_damaged_shards(tiny, shards, tmp_path):
    assert "no manifest.json there" in refused("train", "debug_cpu", *tiny, f"data.train={tmp_path}", code=3)
    assert "data.train is empty" in refused("train", "debug_cpu", *tiny, "data.train=", code=3)
    copy = tmp_path / "copy"
    shutil.copytree(shards / "train", copy)
    (shard,) = copy.glob("*.ktok")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    assert "truncated" in refused("train", "debug_cpu", *tiny, f"data.train={copy}", code=3)
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    message = refused("train", "debug_cpu", *tiny, f"data.train={copy}", "training.num_steps=400", code=3)
    assert "chunk 0 at byte 0 is damaged" in message and shard.name in message
    shard.unlink()
    assert "this shard is missing" in refused("train", "debug_cpu", *tiny, f"data.train={copy}", code=3)


def test_tokenizers_that_do_not_belong(tiny, shards, tmp_path, trained):
    other = tmp_path / "other.model"
    kogpt2("tokenizer", shards / "corpus", "--vocab-size", 1000, "--unused", 4, "--out", other)
    kogpt2("shard", shards / "corpus", "--tokenizer", other, "--out", tmp_path / "shards")
    message = refused("train", "debug_cpu", *tiny, f"data.test={tmp_path / 'shards' / 'test'}", code=3)
    assert "made with another tokenizer" in message
    assert "made with another tokenizer" in refused("evaluate", trained, tmp_path / "shards" / "test", code=3)
    copy = tmp_path / "copy"
    shutil.copytree(shards / "train", copy)
    shutil.copyfile(other, copy / "tokenizer.model")
    assert "not the tokenizer" in refused("train", "debug_cpu", *tiny, f"data.train={copy}", code=3)
    message = refused("train", "debug_cpu", *tiny, "model.vocab_size=1100", code=3)
    assert "its tokenizer has 1200 tokens" in message and "set model.vocab_size=1200 or more" in message


def test_recipes_that_cannot_run(tiny):
    assert "did you mean training.learning_rate?" in refused(
        "train", "debug_cpu", *tiny, "training.learning_rat=1", code=2
    )
    message = refused("train", "debug_cpu", *tiny, "training.total_batch_size=10", code=2)
    assert "the nearest that are: 8 or 12" in message
    assert "device gpu: " in refused("train", "debug_cpu", *tiny, "training.device=gpu", code=2)
    assert "stop_improvement needs held-out data" in refused(
        "train", "debug_cpu", *tiny, "data.test=", "evaluation.stop_improvement=0.1", code=2
    )
    assert "too few for one sequence" in refused(
        "train", "debug_cpu", *tiny, "model.max_length=9999", "data.seq_length=9999", code=3
    )


def test_damaged_checkpoints_are_named(trained, shards, tmp_path):
    checkpoint = trained / "checkpoints" / "step-00000002"
    model = checkpoint / "model.params"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    assert "model.params: missing, truncated or damaged" in refused("generate", trained, "가", code=3)
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "model.params: missing, truncated or damaged" in refused("convert", trained, tmp_path / "out", code=3)
    assert not (tmp_path / "out").exists()


def test_output_that_is_in_the_way_is_kept(shards, tmp_path, trained):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for arguments in (
        ("clean", shards / "text.txt", "--documents", "line", "--out", tmp_path / "out"),
        ("convert", trained, tmp_path / "out"),
        ("demo", "--dir", tmp_path / "out"),
    ):
        assert "out: " in refused(*arguments, code=2)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_dry_run_says_what_it_takes_and_writes_nothing(tiny, tmp_path):
    text = kogpt2("train", "debug_cpu", *tiny, "--dry-run").stdout
    for part in ("parameters ", "batch ", "epochs of", "memory ", "disk ", "time and cost", "V100"):
        assert part in text, part
    assert not (tmp_path / "run").exists()
    assert "the nearest that are" in refused(
        "train", "debug_cpu", *tiny, "training.total_batch_size=9", "--dry-run", code=2
    )


def test_generate_and_report(trained):
    texts = kogpt2("generate", trained, "오늘은", "-n", 3, "--top-k", 5, "--seed", 1).stdout.splitlines()
    assert len(texts) == 3 and all(text.startswith("오늘은") for text in texts)
    assert texts == kogpt2("generate", trained, "오늘은", "-n", 3, "--top-k", 5, "--seed", 1).stdout.splitlines()
    assert "temperature=-1.0" in refused("generate", trained, "가", "--temperature", "-1", code=2)
    assert kogpt2("generate", trained, "오늘은", "--allow-unk", "--max-new-tokens", 3).stdout.startswith("오늘은")
    assert "No such option" in kogpt2("generate", trained, "오늘은", "--top-q", "5", code=2).stderr
    page = Path(kogpt2("report", trained).stdout.strip())
    assert page.read_text(encoding="utf-8").lstrip().startswith("<!")


def test_a_closed_pipe_is_not_a_crash(shards):
    """`kogpt2 ... | head` ends quietly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kogpt2_gluon.cli.main", "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(60)
    assert "Traceback" not in errors


def test_a_vocabulary_with_rows_to_spare_is_remarked_on(tiny, shards, tmp_path):
    remark = "its tokenizer has 1200 tokens, so 100 rows of the model's embedding are never used"
    larger = ["model.vocab_size=1300", "training.num_steps=1"]
    assert remark in kogpt2("train", "debug_cpu", *tiny, *larger, "--dry-run").stdout
    assert remark in kogpt2("train", "debug_cpu", *tiny, *larger, "tracking.sample_prompts=[오늘은]").stdout
    assert "more than model.vocab_size=1100" in refused(
        "train", "debug_cpu", *tiny, "model.vocab_size=1100", "--dry-run", code=3
    )
    assert kogpt2("generate", tmp_path / "run", "오늘은", "--temperature", "5", "--max-new-tokens", "20").stdout


def test_faults_of_the_command_line_are_not_laid_on_the_file(tiny):
    message = refused("train", "debug_cpu", *tiny, "training.num_step=3", code=2)
    assert "training.num_step; did you mean training.num_steps? (on the command line)" in message


def test_text_that_is_not_utf8_is_read_and_the_summary_says_so(tmp_path):
    (tmp_path / "old.txt").write_bytes("오늘은 날씨가 좋다.\n".encode("cp949") * 3)
    arguments = ("clean", tmp_path / "old.txt", "--documents", "line", "--out", tmp_path / "c")
    assert "1 of 1 files read as cp949: " in kogpt2(*arguments).stdout
    assert "it looks like cp949, and is not a text in utf-16" in refused(
        *arguments, "--overwrite", "--encoding", "utf-16", code=3
    )


def test_a_tokenizer_is_not_overwritten_by_chance(shards, tmp_path):
    out = tmp_path / "t.model"
    arguments = ("tokenizer", shards / "corpus", "--vocab-size", 1000, "--unused", 0, "--out", out)
    kogpt2(*arguments)
    assert "exists" in refused(*arguments, code=2)
    kogpt2(*arguments, "--overwrite")
