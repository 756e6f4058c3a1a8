"""Runs a network as llama.cpp does: the cost of its form of GELU, and a comparison with llama.cpp itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.convert.gguf_folder import Cost, file_name
from kogpt2_gluon.convert.gguf_vocabulary import GgufVocabulary, gguf_vocabulary
from kogpt2_gluon.convert.normalizer import SPACE
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.tokenizer_json import NORMAL, SentencePieceBPE
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference import llama_cpp_server
from kogpt2_gluon.inference.comparison import GREEDY, SENTENCES, Logits, logits_of

Floats = NDArray[np.float64]

# Of a log-probability: llama.cpp rounds what goes into GELU and into its cache to float16.
TOLERANCE = 0.02
FLOOR = -80.0  # lower log-probabilities are those of numbers that float32 does not have


def measured_cost(source: Source) -> Cost:
    """Runs a network as it was trained and as llama.cpp runs it, on Korean sentences.

    llama.cpp takes the tanh form of GELU, and the tokens for bytes that the GGUF file adds take a part of the
    probability.
    """
    tokenizer, vocabulary = SentencePieceBPE(source.tokenizer_path), gguf_vocabulary(source.tokenizer_path)
    texts = _texts(tokenizer, source.recipe().model.max_length)
    ours = _scores(logits_of(source), texts)
    there = _as_in_llama_cpp(source)
    theirs = _scores(lambda ids: _with_bytes(there(ids), vocabulary), texts)
    size = sum(len(_normalized(tokenizer, text).encode()) for text in SENTENCES)
    kept = len(ours) / sum(map(len, tokenizer.processor.encode(list(SENTENCES))))  # 1 unless max_length is short
    return Cost(
        tokens=len(ours),
        log_prob=float(np.abs(ours - theirs).max()),
        bits_per_byte=float(-ours.sum() / math.log(2) / (size * kept)),
        change=float(theirs.sum() / ours.sum() - 1),
    )


def _scores(logits: Logits, texts: list[list[int]]) -> Floats:
    """Returns the log-probability of each token of the texts but their first."""
    found = []
    for text in texts:
        ids = np.asarray(text)
        found.append(_log_probs(logits(ids[None])[0])[np.arange(len(ids) - 1), ids[1:]])
    return np.concatenate(found)


def _as_in_llama_cpp(source: Source) -> Logits:
    return logits_of(source, replace(source.recipe().model, activation="gelu_tanh"))


def _texts(tokenizer: SentencePieceBPE, length: int) -> list[list[int]]:
    return [[tokenizer.ids[tokenizer.bos], *ids][:length] for ids in tokenizer.processor.encode(list(SENTENCES))]


def _normalized(tokenizer: SentencePieceBPE, text: str) -> str:
    normalized: str = tokenizer.processor.normalize(text)
    return normalized.replace(SPACE, " ").strip(" ")


def _with_bytes(logits: NDArray[np.float32], vocabulary: GgufVocabulary) -> NDArray[np.float32]:
    """Returns the logits of the GGUF file's tokens: (B, T, rows of the network) -> (B, T, tokens)."""
    columns = [*range(vocabulary.pieces), *[vocabulary.rated_as] * vocabulary.added]
    return logits[..., columns]


def _log_probs(logits: NDArray[np.float32]) -> Floats:
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


class LlamaCpp:
    """llama.cpp itself with a GGUF file: a server in a process of its own, for this machine alone."""

    def __init__(self, address: str, vocabulary: GgufVocabulary) -> None:
        self._address, self._size = address, len(vocabulary.tokens)
        self._plain = vocabulary.types.index(NORMAL)

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Returns the ids of a text; with `special`, the bos token in front."""
        asked = {"content": text, "add_special": special, "parse_special": False}
        found: list[int] = self._ask("/tokenize", asked)["tokens"]
        return found

    def next_log_probs(self, ids: list[int]) -> Floats:
        """Returns the log-probabilities of the token that follows `ids`: (tokens,) natural logarithms."""
        out = np.full(self._size, FLOOR)
        for each in self._likeliest(ids, self._size):
            out[each["id"]] = max(each["logprob"], FLOOR)
        return out

    def next_token(self, ids: list[int]) -> int:
        """Returns the likeliest token to follow `ids`."""
        return int(self._likeliest(ids, 1)[0]["id"])

    def _likeliest(self, ids: list[int], count: int) -> list[dict[str, Any]]:
        # A plain piece is made to follow: with a byte, a part of a character, the answer has no probabilities
        # (findings/llama_cpp_gives_no_probability_of_half_a_character.sh). They are those without the bias.
        asked = {"prompt": ids, "n_predict": 1, "n_probs": count, "samplers": [], "temperature": 0}
        answer = self._ask("/completion", {**asked, "logit_bias": [[self._plain, 1e6]]})
        found: list[dict[str, Any]] = answer["completion_probabilities"][0]["top_logprobs"]
        return found

    def _ask(self, path: str, content: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = Request(self._address + path, json.dumps(content).encode(), headers)
        try:
            with build_opener(ProxyHandler({})).open(request) as answer:  # no proxy knows this machine's own server
                return json.load(answer)
        except HTTPError as error:
            raise DataError(f"llama.cpp answers {error.read().decode(errors='replace')}") from None
        except OSError as error:
            raise DataError(f"llama.cpp ended: {error}") from None


@contextmanager
def llama_cpp(file: Path, max_length: int, vocabulary: GgufVocabulary) -> Iterator[LlamaCpp]:
    """Yields llama.cpp with a file. RecipeError if xllamacpp is missing, DataError if llama.cpp refuses the file."""
    if find_spec("xllamacpp") is None:
        raise RecipeError(f"--verify runs {file} with llama.cpp: pip install xllamacpp")
    program = [sys.executable, "-m", llama_cpp_server.__name__, str(file), str(max_length)]
    server = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        found = json.loads(line) if line else {"error": f"it ended with code {server.wait()}"}
        if "error" in found:
            raise DataError(f"{file}: llama.cpp does not load it: {found['error']}")
        yield LlamaCpp(found["address"], vocabulary)
    finally:
        server.kill()  # it has nothing to lose
        server.communicate()


def compare_gguf(source: Source, out: Path, dtype: str) -> str:
    """Compares llama.cpp with what the network should give there, and returns what was found.

    DataError if an id of a text differs, or, with weights in float32, a log-probability by more than rounding.
    """
    tokenizer, vocabulary = SentencePieceBPE(source.tokenizer_path), gguf_vocabulary(source.tokenizer_path)
    length, there = source.recipe().model.max_length, _as_in_llama_cpp(source)
    texts = _texts(tokenizer, length - 1)  # llama.cpp wants room for one more
    difference, same = 0.0, 0
    with llama_cpp(out / file_name(dtype), length, vocabulary) as running:

        def ours(ids: list[int]) -> Floats:
            return np.maximum(_log_probs(_with_bytes(there(np.asarray([ids])), vocabulary)[0])[-1], FLOOR)

        for text in SENTENCES:
            _check_ids(running, tokenizer, text, out)
        for ids in texts:
            difference = max(difference, float(np.abs(ours(ids) - running.next_log_probs(ids)).max()))
        ids = texts[0][:8]
        greedy = min(GREEDY, length - len(ids))
        while same < greedy:
            following = int(ours(ids).argmax())
            if running.next_token(ids) != following:
                break
            ids, same = [*ids, following], same + 1
    found_out = (
        f"{len(texts)} texts have the same ids; log-probabilities after them differ by at most {difference:.2g} from "
        f"the network's with the tanh form of GELU; {same} of {greedy} greedy tokens are the same"
    )
    if dtype == "float32" and difference > TOLERANCE:
        raise DataError(f"{out}: llama.cpp does not compute what {source.path} does: {found_out}")
    return found_out


def _check_ids(running: LlamaCpp, tokenizer: SentencePieceBPE, text: str, out: Path) -> None:
    """DataError unless a text has the same ids in llama.cpp, without the characters that have no piece."""
    for piece in tokenizer.processor.encode(text, out_type=str):
        text = text if piece in tokenizer.ids else text.replace(piece.strip(SPACE), "")
    text = _normalized(tokenizer, text)
    found = running.tokenize(text, special=True)
    expected = [tokenizer.ids[tokenizer.bos], *tokenizer.processor.encode(text)]
    if found != expected:
        raise DataError(f"{out}: llama.cpp gives {text!r} the ids {found}, not {expected}")
