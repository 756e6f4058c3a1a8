"""llama.cpp itself runs the GGUF file: SentencePiece's ids, the network's probabilities and greedy tokens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from kogpt2_gluon.convert.gguf_folder import write_gguf
from kogpt2_gluon.convert.gguf_vocabulary import GgufVocabulary, gguf_vocabulary
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference import llama_cpp_server
from kogpt2_gluon.inference.llama_cpp import LlamaCpp, compare_gguf, llama_cpp, measured_cost
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, make_checkpoint, train, varied, with_rows
from tests.convert.kinds_of_lines import LINES, TEXTS
from tests.convert.tool_helpers import PROFILES, program, reviews
from tests.helpers import kogpt2

pytest.importorskip("xllamacpp", reason="llama.cpp itself, a peer of the test")
pytest.importorskip("gguf", reason="writes the file")


class Case:
    """A tokenizer in llama.cpp, and here."""

    def __init__(self, running: LlamaCpp, tokenizer: Tokenizer, vocabulary: GgufVocabulary) -> None:
        self.running, self.tokenizer, self.vocabulary = running, tokenizer, vocabulary

    def both(self, line: str) -> tuple[list[int], list[int]]:
        """The ids of a normalised line there and here, without bytes and <unk>."""
        text = self.tokenizer.normalize(line)
        there = [token for token in self.running.tokenize(text) if token < self.vocabulary.pieces]
        return there, [token for token in self.tokenizer.encode(line) if token != self.vocabulary.read_as]


@pytest.fixture(scope="module", params=PROFILES)
def case(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp(request.param)
    run = with_rows(folder / "run", train([*TEXTS, *reviews(0, 5000)], 3000, profile=request.param), 3000)
    write_gguf(run, folder / "out")
    vocabulary = gguf_vocabulary(run.tokenizer_path)
    assert bool(vocabulary.added) == (request.param != "lossless")
    with llama_cpp(folder / "out" / "model-F32.gguf", 64, vocabulary) as running:
        yield Case(running, Tokenizer.load(run.tokenizer_path), vocabulary)


def test_the_ids_of_every_kind_of_line(case):
    """A user-defined piece has no space in front of it and one after it."""
    differing = [line for _, line in LINES for there, here in [case.both(line)] if there != here]
    assert len(differing) > 5 and all("<unused" in line for line in differing)


def test_the_ids_of_reviews(case):
    for line in reviews(20000, 1000):
        there, here = case.both(line)
        assert there == here, line


def test_a_character_without_a_piece_is_one_token_for_each_of_its_bytes(case):
    if not case.vocabulary.added:
        pytest.skip("the model has bytes of its own")
    ids = case.running.tokenize("영화 龘")
    assert [case.vocabulary.tokens[index] for index in ids[-3:]] == ["<0xE9>", "<0xBE>", "<0x98>"]
    assert case.tokenizer.encode("영화 龘")[-1] == case.vocabulary.read_as


# ---- the network -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_tokenizer):
    return make_checkpoint(tmp_path_factory.mktemp("run"), small_tokenizer, varied, vocab_size=400)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 0.01), ("float16", 0.05), ("bfloat16", 0.5)])
def test_probabilities_and_greedy_tokens(run, tmp_path, dtype, tolerance):
    write_gguf(run, tmp_path / "out", dtype)
    found = compare_gguf(run, tmp_path / "out", dtype)
    assert found.startswith("5 texts have the same ids")
    assert float(found.split("by at most ")[1].split(" ")[0]) <= tolerance
    if dtype == "float32":
        assert "56 of 56 greedy tokens are the same" in found


def test_another_network_is_an_error(run, tmp_path, small_tokenizer):
    write_gguf(with_rows(tmp_path / "other", small_tokenizer, 400), tmp_path / "out")
    with pytest.raises(DataError, match=r"llama\.cpp does not compute what"):
        compare_gguf(run, tmp_path / "out", "float32")


def test_a_spelled_special_token_is_what_the_card_says(tmp_path):
    """llama.cpp joins the pieces `</` and `s>` to the token that ends a document."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(train([*OWN_SENTENCES, "< / s >"] * 20, 400))
    spare = [piece for piece in proto.pieces if len(piece.piece) > 2 and piece.type == 1][-2:]
    spare[0].piece, spare[1].piece = "</", "s>"
    run = with_rows(tmp_path / "run", proto.SerializeToString(), 400)
    write_gguf(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "`<s>`, `</s>` can become the special token" in card
    with llama_cpp(tmp_path / "out" / "model-F32.gguf", 64, gguf_vocabulary(run.tokenizer_path)) as running:
        assert 2 in running.tokenize("영화</s>") and 2 not in Tokenizer.load(run.tokenizer_path).encode("영화</s>")


def test_the_cost_is_that_of_the_form_and_of_the_bytes(run, tmp_path, small_tokenizer):
    erf = measured_cost(run)
    assert erf.tokens == 141 and erf.log_prob > 1e-4
    tanh = measured_cost(make_checkpoint(tmp_path, small_tokenizer, varied, vocab_size=400, activation="gelu_tanh"))
    # The bytes alone: each token has a part of its probability less, and a few lie below the 256 rows' own.
    assert tanh.change > 0 and tanh.log_prob > 0 and abs(tanh.change - erf.change) < 0.01


def test_the_verb_verifies_and_warns(run, tmp_path):
    done = kogpt2("convert", run.path, tmp_path / "out", "--to", "gguf", "--verify")
    assert "warning: in llama.cpp the log-probabilities of 141 tokens" in done.stdout
    assert "verified: 5 texts have the same ids" in done.stdout


def test_a_damaged_file_is_refused(run, tmp_path):
    write_gguf(run, tmp_path / "out")
    path = tmp_path / "out" / "model-F32.gguf"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"llama\.cpp does not load it"):
        compare_gguf(run, tmp_path / "out", "float32")


def test_the_program_of_the_page_runs(run, tmp_path):
    write_gguf(run, tmp_path / "my-model-gguf")
    command = [sys.executable, "-c", program("import xllamacpp")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("이 영화는")


def test_a_server_that_is_not_asked_anything_ends(run, tmp_path):
    """xllamacpp's own end of such a server waits for ever, now and then."""
    write_gguf(run, tmp_path / "out")
    for _ in range(3):
        with llama_cpp(tmp_path / "out" / "model-F32.gguf", 64, gguf_vocabulary(run.tokenizer_path)) as running:
            pass
        with pytest.raises(DataError, match=r"llama\.cpp ended: "):
            running.tokenize("영화")


def test_a_server_ends_with_whoever_started_it(run, tmp_path):
    write_gguf(run, tmp_path / "out")
    server = [sys.executable, "-m", llama_cpp_server.__name__, str(tmp_path / "out" / "model-F32.gguf"), "64"]
    done = subprocess.run(server, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith('{"address": "http://127.0.0.1:') and done.stderr == ""
