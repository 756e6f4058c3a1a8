"""CTranslate2 runs the converted network: transformers' logits and greedy tokens, at any length that it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.convert import torch_helpers
from tests.convert.kinds_of_lines import LINES
from tests.convert.tool_helpers import MAX_LENGTH, convert_profile, my_model, program, run_command, some_ids
from tests.lazy_modules import needed

ctranslate2 = needed("ctranslate2", reason="a peer of the test")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory):
    return convert_profile(tmp_path_factory.mktemp("ct2") / "converted", "nmt_nfkc_jamo")


@pytest.fixture(scope="module")
def work(converted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the command of the page has been run."""
    with my_model(converted, tmp_path_factory.mktemp("ct2") / "work") as folder:
        run_command("ct2-transformers-converter")
        yield folder


@pytest.fixture(scope="module")
def generator(work: Path):
    return ctranslate2.Generator("my-model-ct2", intra_threads=1)


def test_logits(generator, converted):
    net = torch_helpers.network(converted.folder)
    for ids in some_ids(converted.model):
        theirs, ours = np.array(generator.forward_batch([ids]))[0], torch_helpers.logits_of(net, ids)
        assert np.abs(theirs - ours).max() < 1e-5 * np.abs(ours).max()


def test_greedy_tokens(generator, converted):
    net, tokens = torch_helpers.network(converted.folder), converted.model.id_to_piece
    for ids in some_ids(converted.model)[:-1]:
        theirs = generator.generate_batch(
            [[tokens(index) for index in ids]],
            max_length=20,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
        )
        assert theirs[0].sequences_ids[0] == torch_helpers.greedy(net, ids, 20)


def test_every_piece_has_its_id(generator, converted, work):
    """Tokens go in as texts: those of every line come out as the ids that transformers gives them."""
    for _, line in LINES:
        ids = [1, *converted.model.encode(line)][:MAX_LENGTH]
        scored = generator.score_batch([[converted.model.id_to_piece(index) for index in ids]])[0]
        if len(ids) > 1:
            log_probs = np.array(generator.forward_batch([ids], return_log_probs=True))[0]
            expected = [log_probs[at, index] for at, index in enumerate(ids[1:])]
            assert np.allclose(scored.log_probs, expected, atol=1e-4), line


def test_beyond_max_length_is_an_error(generator):
    with pytest.raises(RuntimeError, match=f"No position encodings are defined for positions >= {MAX_LENGTH}"):
        generator.forward_batch([[5] * (MAX_LENGTH + 1)])


def test_an_unknown_token_becomes_unk_without_a_word(generator):
    results = generator.generate_batch([["<s>", "no such piece"]], max_length=1, sampling_topk=1)
    assert results[0].sequences[0][0] == "<unk>"


def test_the_program_of_the_page_runs(work, capsys):
    exec(compile(program("import ctranslate2"), "docs/after.md", "exec"), {})
    assert capsys.readouterr().out.startswith("이 영화는")
