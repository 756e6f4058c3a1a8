"""`kogpt2 generate` for one prompt: its settings, notes, streams and searches."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.generate import StreamPrinter, for_terminal
from kogpt2_gluon.cli.generation_options import text_options
from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference import text_settings
from kogpt2_gluon.inference.generation import generate_from_checkpoint
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.text_writer import Text
from tests.convert.convert_helpers import OWN_SENTENCES, make_checkpoint, train

FEW = ("--max-new-tokens", "6")


@pytest.fixture(scope="module")
def path(small_tokenizer, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints"), small_tokenizer).path


def invoke(*arguments: object, **more):
    """The verb in this process, which has MXNet already."""
    return CliRunner().invoke(cli, ["generate", *(str(each) for each in arguments)], **more)


def refused(*arguments: object, error: type[Exception] = RecipeError, **more) -> str:
    done = invoke(*arguments, **more)
    assert isinstance(done.exception, error), done.exception
    return str(done.exception)


def in_json(*arguments: object) -> dict:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def test_the_texts_are_those_of_the_library(path):
    """Drawn, greedy and several: the engine's are those of `generate`."""
    for options, sampling in (
        (("--seed", 3, "--top-k", 20), Sampling(6, top_k=20, seed=3)),
        (("--temperature", 0), Sampling(6, temperature=0)),
        (("--min-p", 0.02, "--typical-p", 0.9), Sampling(6, min_p=0.02, typical_p=0.9)),
        (("--no-repeat-ngram-size", 1), Sampling(6, no_repeat_ngram_size=1)),
    ):
        found = in_json(path, "오늘은", *FEW, "-n", 3, *options)
        assert found["texts"] == generate_from_checkpoint(path, "오늘은", sampling, 3)


def test_json_has_all_that_is_known(path):
    found = in_json(path, "오늘은 날씨가", *FEW, "-n", 2, "--logprobs", 2)
    names = "prompt, texts, notes, continuations, finish_reasons, prompt_tokens, new_tokens, logprobs"
    assert ", ".join(found) == names
    assert [begin + new for begin, new in zip(["오늘은 날씨가"] * 2, found["continuations"])] == found["texts"]
    for text, reason, count, choices in zip(*(found[name] for name in list(found)[3:] if name != "prompt_tokens")):
        assert reason == "length" and count == len(choices) == 6
        assert all(len(choice["likeliest"]) == 2 and choice["logprob"] <= 0 for choice in choices)
        assert "".join(choice["piece"] for choice in choices).replace("▁", " ") == text


def test_a_text_ends_before_a_stop_string(path):
    (free,) = in_json(path, "오늘은", *FEW)["continuations"]
    found = in_json(path, "오늘은", *FEW, "--stop", free[2:5], "--stop", "없는 말")
    assert found["continuations"] == [free[: free.index(free[2:5])]] and found["finish_reasons"] == ["stop"]


def test_bad_words_are_not_written(path):
    (free,) = in_json(path, "오늘은", *FEW, "--temperature", 0)["continuations"]
    word = free.split()[0]
    (other,) = in_json(path, "오늘은", *FEW, "--temperature", 0, "--bad-words", word)["continuations"]
    assert other != free


def test_searches(path):
    beams = in_json(path, "오늘은", *FEW, "--num-beams", 4, "-n", 3)
    assert len(beams["texts"]) == len(set(beams["texts"])) == 3
    assert beams["scores"] == sorted(beams["scores"], reverse=True)
    (free,) = in_json(path, "오늘은", *FEW, "--penalty-alpha", 0.5)["continuations"]
    stopped = in_json(path, "오늘은", *FEW, "--penalty-alpha", 0.5, "--stop", free[3:5])
    assert stopped["continuations"] == [free[: free.index(free[3:5])]] and stopped["finish_reasons"] == ["stop"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--num-beams", 2, "--penalty-alpha", 0.5), "num_beams and penalty_alpha"),
        (("--num-beams", 2, "-n", 3), "num_samples=3: beam search has at most num_beams=2"),
        (("--length-penalty", 2), "length_penalty=2.0: without effect"),
        (("--num-candidates", 8), "num_candidates=8: without effect"),
        (("--penalty-alpha", 0.5, "-n", 2), "num_samples=2: contrastive search draws nothing"),
        (("--num-beams", 2, "--top-k", 5), "top_k=5"),
        (("--penalty-alpha", 2), "penalty_alpha=2.0: it must be from 0 to 1"),
        (("--num-beams", 100_000), "num_beams=100000: it must be a whole number from 1 to 256"),
        (("--stop", ""), "stop=('',)"),
        (("--min-new-tokens", 99), "min_new_tokens=99: it must be at most max_new_tokens=60"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, options, told):
    """Before a checkpoint is loaded, which takes a while."""
    assert told in refused(tmp_path / "nowhere", "오늘은", *options)


def test_a_network_that_computes_no_numbers_is_told(small_tokenizer, tmp_path):
    def break_it(arrays: dict) -> None:
        arrays["_final_ln.gamma"] = arrays["_final_ln.gamma"] * np.nan

    broken = make_checkpoint(tmp_path, small_tokenizer, break_it).path
    for more in ((), ("-n", 2), ("--num-beams", 2), ("--penalty-alpha", 0.5), ("--stream",)):
        error = refused(broken, "오늘은", *FEW, *more, error=DataError)
        assert error.startswith("text 1 of ") and "ends early: " in error and "not finite" in error


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("오늘은", "-i"),
        ("오늘은", "--prompts", "x"),
        ("--prompts", "x", "-i"),
        ("오늘은", "--out", "x"),
        ("오늘은", "--logprobs", 1),
        ("-i", "--json"),
        ("오늘은", "--json", "--stream"),
    ],
)
def test_one_way_at_a_time(path, options):
    assert invoke(path, *options).exit_code == 2


def test_options_and_files_have_the_same_names():
    """Every option that is declared is a setting of files too, and the other way round."""

    @text_options
    def command() -> None: ...

    declared = sorted(option.name for option in command.__click_params__)
    assert declared == sorted(text_settings.NAMES)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_smaller_weights(path):
    for weights in ("bfloat16", "int8"):
        options = (*FEW, "--weights", weights, "--temperature", 0)
        assert in_json(path, "오늘은", *options, "--ops", "fused")["new_tokens"] == [6]
        assert len(in_json(path, "오늘은", *options, "--ops", "fused", "--num-beams", 2)["scores"]) == 1
        assert f"weights={weights}: only the fused operators" in refused(path, "오늘은", *options, "--ops", "stock")
    exact, rounded = (
        in_json(path, "오늘은", *FEW, "--ops", "fused", "--logprobs", 0, *more)["logprobs"][0][0]["logprob"]
        for more in ((), ("--weights", "int8"))
    )
    assert 0 < abs(exact - rounded) < 0.2


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_codes(path):
    """A note says their size; those of a checkpoint without codes are refused."""
    done = invoke(path, "오늘은", *FEW, "--ops", "fused", "--weights", "2bit", "--json")
    assert done.exit_code == 0, done.exception
    assert "12 matrices in 2 bits: " in done.stderr and "not quantised: the embedding" in done.stderr
    assert json.loads(done.stdout)["new_tokens"] == [6]
    assert "weights=codes: the checkpoint has no codes" in refused(
        path, "오늘은", *FEW, "--ops", "fused", "--weights", "codes"
    )
    assert "weights=2bit: only the fused operators" in refused(path, "오늘은", "--ops", "stock", "--weights", "2bit")


# What the network reads


def test_a_prompt_that_does_not_fit(path):
    long = "가 나 " * 40
    error = refused(path, long, *FEW)
    assert error.startswith("the prompt has 1") and "the network 64 positions" in error and "--long-prompts" in error
    done = invoke(path, long, *FEW, "--long-prompts", "slide", "--json")
    found = json.loads(done.stdout)
    assert "it reads <s> and the last 57 of them" in found["notes"][-1] and found["prompt_tokens"] == 58
    assert found["new_tokens"] == [6]


def test_an_empty_prompt_begins_a_document(path):
    assert in_json(path, "", *FEW)["prompt_tokens"] == 1


def test_a_space_at_the_end_is_told(tmp_path):
    kept = make_checkpoint(tmp_path, train(OWN_SENTENCES * 20, 400, profile="lossless", hard_vocab_limit=False)).path
    (note,) = in_json(kept, "오늘은 ", *FEW)["notes"]
    assert note.startswith("the prompt ends with a space: the network reads '▁' there.")
    assert in_json(kept, "오늘은\n", *FEW)["notes"] == []  # a line end is no space


def test_standard_input_is_a_prompt(path):
    done = invoke(path, "-", *FEW, "--json", input="오늘은\n날씨가\n".encode())
    assert json.loads(done.stdout)["prompt"] == "오늘은\n날씨가"
    assert "not UTF-8 (bytes b0 a1), at byte 0" in refused(path, "-", error=DataError, input="가".encode("cp949"))


# Printing


def test_control_characters_do_not_steer_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert for_terminal("가\x1b[2J\x9b2J\x07\r나\t다\n") == "가\ufffd[2J\ufffd2J\ufffd\ufffd나\t다\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert for_terminal("가\x1b[2J") == "가\x1b[2J"


def test_streams_of_several_texts_are_printed_one_after_another(capsys):
    texts = [Text("가 ", "나다"), Text("가 ", "라마")]
    printer = StreamPrinter(2)
    printer.begin("가 ")
    for place, new in ((0, "나"), (1, "라"), (1, "마"), (0, "다")):
        printer.show(place, new)
    assert capsys.readouterr().out.endswith("가 나다")
    printer.finish(texts)
    assert capsys.readouterr().out.replace("-" * 20, "RULE") == "\nRULE 2 of 2 RULE\n가 라마\n"


def test_a_stream_is_the_same_text(path):
    for more in ((), ("-n", 3), ("--num-beams", 2)):
        plain = invoke(path, "오늘은", *FEW, *more).stdout.splitlines()
        streamed = invoke(path, "오늘은", *FEW, *more, "--stream").stdout.splitlines()
        assert [line for line in streamed if not line.startswith("-----")] == plain


def test_a_terminal_shows_a_text_while_it_is_written(path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "generate", path, "오늘은", "--max-new-tokens", "40"]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert process.wait(60) == 0
    process.stderr.close()
    assert len(parts) > 3  # not all at once
    expected = invoke(path, "오늘은", "--max-new-tokens", 40).stdout
    assert b"".join(parts).decode().replace("\r\n", "\n") == expected


def test_a_reader_that_goes_away_ends_it_quietly(path):
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "generate", path, "오늘은", "-n", "500", "--stream"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 1 and "Traceback" not in error
