"""`kogpt2 generate --prompts`: files of prompts in, JSON lines out, whatever stops it in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.cli.prompt_file import PromptFile
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.generation import generate_from_checkpoint
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.tasks import line_file
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.convert.convert_helpers import make_checkpoint
from tests.helpers import enlarge, small_disk

FEW = ("--max-new-tokens", "5", "--ops", "stock")
WORDS = ["오늘은", "날씨가", "이 영화는", "배우들의", "연기가", "그 책은", "아직", "값이", "학생들은", "김치를", "왜"]
MANY = [f"{WORDS[place % 11]} {WORDS[place * 7 % 11]} {place}" for place in range(60)]
LONG = "가 나 " * 40


@pytest.fixture(scope="module")
def path(small_tokenizer, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints"), small_tokenizer).path


def invoke(*arguments: object, **more):
    return CliRunner().invoke(cli, ["generate", *(str(each) for each in arguments)], **more)


def refused(*arguments: object, error: type[Exception] = DataError, **more) -> str:
    done = invoke(*arguments, **more)
    assert isinstance(done.exception, error), done.exception
    return str(done.exception)


def write(path: Path, *lines: str | dict) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    return path


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().decode().splitlines()]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "kogpt2_gluon.cli.main", "generate", *(str(each) for each in arguments)]


def test_lines_are_in_the_order_of_the_prompts_and_are_those_of_single_runs(path, tmp_path):
    """Texts that end early wait for their turn; each has settings of its own."""
    records = [{"prompt": word, "id": place, "max_new_tokens": 1 + 7 * place % 20} for place, word in enumerate(WORDS)]
    records[3] |= {"temperature": 0, "num_samples": 2}
    records[5] |= {"num_beams": 3, "num_samples": 2}
    records[6] |= {"stop": ["가", "다"], "top_k": 30}
    records[7] |= {"logprobs": 1}
    prompts, out = write(tmp_path / "prompts.jsonl", *records), tmp_path / "new" / "texts.jsonl"
    done = invoke(path, "--prompts", prompts, "--out", out, "--ops", "stock", "--slots", 3, "--seed", 4)
    assert (done.exit_code, done.stdout) == (0, f"{out}: 11 prompts continued\n")
    found = lines_of(out)
    assert [(each["line"], each["id"], each["prompt"]) for each in found] == [
        (place + 1, place, word) for place, word in enumerate(WORDS)
    ]
    for each, record in zip(found, records):
        if not record.keys() - {"prompt", "id", "max_new_tokens"}:
            sampling = Sampling(record["max_new_tokens"], seed=4)
            assert each["texts"] == generate_from_checkpoint(path, record["prompt"], sampling, ops="stock")
    assert found[3]["texts"] == generate_from_checkpoint(path, WORDS[3], Sampling(2, temperature=0), 2, ops="stock")
    assert len(found[5]["scores"]) == 2 and not {"가", "다"} & set(found[6]["continuations"][0])
    assert "logprobs" in found[7] and "logprobs" not in found[8]


@pytest.mark.parametrize("form", ["txt", "jsonl", "-"])
def test_forms(path, tmp_path, form):
    """Blank lines, a byte-order mark and line ends of Windows are no prompts, nor parts of one."""
    text = "\ufeff오늘은\r\n\r\n이 영화는\r\n   \n"
    if form == "jsonl":
        text = '\ufeff{"prompt": "오늘은"}\r\n\r\n{"prompt": "이 영화는", "id": null}\n\n'
    prompts = tmp_path / f"p.{form}"
    prompts.write_bytes(text.encode())
    done = invoke(path, "--prompts", "-" if form == "-" else prompts, *FEW, input=text.encode())
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["line"], each["prompt"]) for each in found] == [(1, "오늘은"), (3, "이 영화는")]
    assert "2 empty lines left out" in done.stderr and done.exit_code == 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['{"prompt": "가"', "x"], ", line 1: not JSON"),
        (['{"prompt": "가"}', '"나"'], ", line 2: a text, where an object is expected"),
        (['{"text": "가"}'], ", line 1: prompt is missing"),
        (['{"prompt": 3}'], ", line 1: prompt is a number, where a text is expected"),
        (['{"prompt": "가", "prompt": "나"}'], ", line 1: the key 'prompt' twice"),
        (['{"prompt": "가", "max_tokens": 3}'], ", line 1: max_tokens: no such setting; did you mean max_new_tokens?"),
        (['{"prompt": "가", "seed": "3"}'], ", line 1: seed='3': it must be a whole number"),
        (['{"prompt": "가", "top_p": NaN}'], ", line 1: not JSON"),
        (['{"prompt": "가", "stop": 3}'], ", line 1: stop=3: it must be a text or a list of texts"),
        (['{"prompt": "가", "allow_unk": 1}'], ", line 1: allow_unk=1: it must be true or false"),
        (['{"prompt": "가", "num_samples": true}'], ", line 1: num_samples=True: it must be a whole number"),
        (['{"prompt": "\\ud800"}'], ", line 1: half of a surrogate pair"),
        (['{"prompt": "가", "id": [1]}'], ", line 1: id must be a text or a whole number"),
        (['{"prompt": "가", "id": 7}', "", '{"prompt": "나", "id": 7}'], ", line 3: the id 7 is that of line 1 too"),
        (["\u3000"], ": has no prompt"),
        ([""], ": is empty"),
    ],
)
def test_bad_lines_are_named_before_the_first_text(path, tmp_path, lines, told):
    prompts, out = write(tmp_path / "p.jsonl", *lines), tmp_path / "out.jsonl"
    error = refused(path, "--prompts", prompts, "--out", out, *FEW)
    assert error.startswith(f"{prompts}{told}") and not out.exists()


def test_files_that_are_none(path, tmp_path):
    assert "no such file" in refused(path, "--prompts", tmp_path / "none.jsonl", *FEW)
    assert "a folder, where a file is expected" in refused(path, "--prompts", tmp_path, *FEW)
    utf16 = tmp_path / "a.txt"
    utf16.write_text("오늘은\n" * 9, encoding="utf-16")
    assert "UTF-16" in refused(path, "--prompts", utf16, *FEW)
    prompts = write(tmp_path / "p.txt", "가")
    assert "is the file of prompts" in refused(path, "--prompts", prompts, "--out", prompts, *FEW, error=RecipeError)
    assert "is a folder" in refused(path, "--prompts", prompts, "--out", tmp_path, *FEW, error=RecipeError)


def test_prompts_that_do_not_fit_are_told_in_their_lines_and_at_the_end(path, tmp_path):
    prompts, out = write(tmp_path / "p.txt", "오늘은", LONG, "이 영화는"), tmp_path / "out.jsonl"
    command = (path, "--prompts", prompts, "--out", out, *FEW)
    error = refused(*command)
    assert error == f"{out}: 1 of 3 prompts could not be continued; their lines have an error that says why"
    good, bad, other = lines_of(out)
    assert len(good["texts"]) == len(other["texts"]) == 1
    assert "the network 64 positions" in bad["error"] and bad["line"] == 2 and "texts" not in bad
    before = out.read_bytes()
    assert refused(*command) == error and out.read_bytes() == before  # it is not forgotten the next time
    out.unlink()
    assert invoke(*command, "--long-prompts", "slide").exit_code == 0
    assert "it reads <s> and the last" in lines_of(out)[1]["notes"][-1]


# Stopped in the middle


@contextmanager
def started(*arguments: object, at_least: int, out: Path) -> Iterator[subprocess.Popen]:
    """The command as a process, once it has written some lines."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 120
        while not out.exists() or out.read_bytes().count(b"\n") < at_least:
            assert process.poll() is None and time.monotonic() < end, process.communicate()
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def whole(path, tmp_path_factory) -> tuple[Path, bytes]:
    """Many prompts, and the lines of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    prompts = write(folder / "p.txt", *MANY)
    assert invoke(path, "--prompts", prompts, "--out", folder / "out.jsonl", *FEW, "--slots", 2).exit_code == 0
    return prompts, (folder / "out.jsonl").read_bytes()


def test_a_run_that_was_killed_goes_on(path, tmp_path, whole):
    prompts, expected = whole
    out = tmp_path / "out.jsonl"
    arguments = (path, "--prompts", prompts, "--out", out, *FEW, "--slots", "2")
    with started(*arguments, at_least=3, out=out) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = out.read_bytes()
    assert 3 <= kept.count(b"\n") < len(MANY)
    out.write_bytes(kept + b'{"line": 99, "pro')  # a part of a line, as a power cut leaves it
    done = invoke(*arguments, "--slots", 5)  # what is written does not depend on it
    assert done.exit_code == 0 and f"{kept.count(10)} lines there already" in done.stderr
    assert out.read_bytes() == expected and expected.startswith(kept)
    again = invoke(*arguments)
    assert again.exit_code == 0 and out.read_bytes() == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_says_how_it_goes_on(path, tmp_path, whole, number):
    prompts, expected = whole
    out = tmp_path / "out.jsonl"
    arguments = (path, "--prompts", prompts, "--out", out, *FEW, "--slots", "2")
    with started(*arguments, at_least=2, out=out) as process:
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 75, error
    assert error == "kogpt2: stopped; the same command resumes after the last finished prompt\n"
    kept = out.read_bytes()
    assert kept.endswith(b"\n") and expected.startswith(kept) and len(kept) < len(expected)


def test_lines_of_another_run_are_never_mixed_in(path, small_tokenizer, tmp_path):
    prompts, out = write(tmp_path / "p.txt", "오늘은", "이 영화는"), tmp_path / "out.jsonl"
    arguments = (path, "--prompts", prompts, "--out", out, *FEW)
    assert invoke(*arguments).exit_code == 0
    before = out.read_bytes()
    other = make_checkpoint(tmp_path, small_tokenizer, lambda arrays: arrays["_final_ln.gamma"].fill(2)).path
    for changed in ((*arguments, "--seed", 1), (*arguments, "--long-prompts", "slide"), (other, *arguments[1:])):
        error = refused(*changed, error=RecipeError)
        assert error.startswith(f"--out {out}: line 1 was written for another prompt, with other settings or by")
    assert out.read_bytes() == before
    write(prompts, "오늘은", "이 영화는", "값이")  # prompts that are added are continued
    assert invoke(*arguments).exit_code == 0
    assert out.read_bytes().startswith(before) and len(lines_of(out)) == 3
    write(prompts, "오늘은")
    assert "line 2 was written for another prompt" in refused(*arguments, error=RecipeError)
    write(out, "오늘은")
    assert "line 1 is none of this command" in refused(*arguments, error=RecipeError)


def test_a_full_disk_costs_no_finished_line(path, tmp_path, whole):
    prompts, expected = whole
    with small_disk(tmp_path / "disk", 16 << 10) as disk:
        out = disk / "out.jsonl"
        arguments = (path, "--prompts", prompts, "--out", out, *FEW, "--slots", "2")
        done = invoke(*arguments)
        assert isinstance(done.exception, OSError) and done.exception.filename == str(out)
        kept = out.read_bytes()
        assert kept.endswith(b"\n") and expected.startswith(kept) and len(kept) < len(expected)
        enlarge(disk, 1 << 20)
        assert invoke(*arguments).exit_code == 0 and out.read_bytes() == expected


def test_a_reader_that_goes_away(path, whole):
    process = subprocess.Popen(
        command(path, "--prompts", whole[0], *FEW), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert json.loads(process.stdout.readline())["line"] == 1
    process.stdout.close()
    error = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 1 and "Traceback" not in error


def test_controls_of_terminals_are_escaped(path, tmp_path):
    prompts, out = write(tmp_path / "p.jsonl", {"prompt": "가\x9b2J\x1b[2J"}), tmp_path / "out.jsonl"
    assert invoke(path, "--prompts", prompts, "--out", out, *FEW).exit_code == 0
    raw = out.read_text(encoding="utf-8")
    assert "\\u009b2J\\u001b[2J" in raw and not {"\x9b", "\x1b"} & set(raw)
    assert lines_of(out)[0]["prompt"] == "가\x9b2J\x1b[2J"


def test_a_check_reads_the_file_once_and_counts_its_empty_lines(small_tokenizer, tmp_path, monkeypatch):
    passes = []
    read_lines = line_file.read_lines
    monkeypatch.setattr(line_file, "read_lines", lambda path: passes.append(path) or read_lines(path))
    path = write(tmp_path / "prompts.jsonl", {"prompt": "가"}, "", {"prompt": "나", "id": 1}, " ")
    file = PromptFile(path, "", {}, SentencePieceTokenizer(small_tokenizer, Path("small.model")))
    assert file.check() == (2, 2) and passes == [path]
    assert [(prompt.line, prompt.text, prompt.id) for prompt in file] == [(1, "가", None), (3, "나", 1)]
