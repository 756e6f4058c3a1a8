"""BPE-dropout of our own: SentencePiece's ids without dropout, its spread with it, and the same draws everywhere."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tokens import bpe_dropout
from kogpt2_gluon.tokens.bpe_dropout import BPEDropout
from tests.convert.convert_helpers import OWN_SENTENCES, train
from tests.helpers import REAL_TEXT, run

TEXTS = [
    *OWN_SENTENCES,
    "그 리뷰어는 <unused3>을 ㅋㅋㅋㅋㅋ",
    "",
    " ",
    "漢字漢字 😀😀 漢",
    "<unused1><unused11><unused1>",
    "a\nb\n",
]
OPTIONS = {
    "nmt_nfkc": {"user_defined_symbols": ["<unused1>", "<unused11>", "<unused3>"]},
    "lossless": {
        "normalization_rule_name": "identity",
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["\n", "<unused3>"],
    },
}


@pytest.fixture(scope="module", params=list(OPTIONS))
def model(request: pytest.FixtureRequest) -> bytes:
    return train(OWN_SENTENCES * 20, 620, **OPTIONS[request.param])


def rows(sampler: BPEDropout, texts: list[str], dropout: float, seed: int = 0) -> list[list[int]]:
    ids, lengths = sampler.encode([text.encode() for text in texts], dropout, seed)
    assert ids.dtype == np.int32 and lengths.dtype == np.int64 and len(ids) == lengths.sum()
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if texts else []


def test_without_dropout_the_ids_are_sentencepieces(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    sampler = BPEDropout(model, Path("m"))
    texts = [*TEXTS, "".join(OWN_SENTENCES) * 3, "ㅋ" * 300]
    assert rows(sampler, texts, 0.0) == processor.encode(texts)
    assert rows(sampler, ["", ""], 0.0) == [[], []] == rows(sampler, ["", ""], 0.5)
    monkeypatch.setattr(bpe_dropout, "LONGEST_ROW", 1)  # every segment by the way of long ones
    assert rows(sampler, texts, 0.0) == processor.encode(texts)


def test_any_text_has_sentencepieces_ids(model: bytes) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    sampler = BPEDropout(model, Path("m"))
    letters = st.sampled_from("".join(OWN_SENTENCES) + "\n\u2581漢😀ㅋ") | st.characters(exclude_categories=("Cs",))

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.lists(st.text(letters, max_size=60) | st.sampled_from(TEXTS), max_size=6))
    def check(texts: list[str]) -> None:
        assert rows(sampler, texts, 0.0) == (processor.encode(texts) if texts else [])

    check()


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_the_spread_is_that_of_sentencepieces_own_sampling(
    model: bytes, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    sampler = BPEDropout(model, Path("m"))
    texts = OWN_SENTENCES * 150

    def bag(encoded: list[list[int]]) -> np.ndarray:
        return np.bincount(np.concatenate(encoded).astype(np.int64), minlength=620)

    theirs = bag(processor.encode(texts, enable_sampling=True, alpha=dropout, nbest_size=-1))
    ours = bag(rows(sampler, texts, dropout, seed=5))
    monkeypatch.setattr(bpe_dropout, "LONGEST_ROW", 1)
    long_way = bag(rows(sampler, texts, dropout, seed=5))
    for counts in (ours, long_way):
        # Their draws are another each time: nine standard deviations of a count of independent choices.
        assert (np.abs(counts - theirs) < 9 * np.sqrt(counts + theirs + 1)).all()
        assert abs(counts.sum() / theirs.sum() - 1) < 0.02


def test_text_and_variety_are_kept(model: bytes) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    sampler = BPEDropout(model, Path("m"))
    plain = processor.encode(OWN_SENTENCES)
    dropped = rows(sampler, OWN_SENTENCES * 20, 0.3, seed=1)
    assert [processor.decode(ids) for ids in dropped] == [processor.decode(ids) for ids in plain] * 20
    assert len({tuple(ids) for ids in dropped[:: len(OWN_SENTENCES)]}) > 10  # one text, cut in many ways
    assert dropped != rows(sampler, OWN_SENTENCES * 20, 0.3, seed=2)
    assert dropped != rows(sampler, OWN_SENTENCES * 20, 0.3, seed=1 + (1 << 40))


SCRIPT = """
import hashlib, sys
from pathlib import Path
from kogpt2_gluon.tokens.bpe_dropout import BPEDropout
path = Path(sys.argv[1])
ids, lengths = BPEDropout(path.read_bytes(), path).encode(Path(sys.argv[2]).read_bytes().split(b"|"), 0.4, 7)
print(hashlib.sha256(ids.tobytes() + lengths.tobytes()).hexdigest())
"""


def test_another_process_draws_the_same(model: bytes, tmp_path: Path) -> None:
    """SentencePiece 0.2.3 does not: that is why this module is there."""
    (tmp_path / "m").write_bytes(model)
    text = "|".join(OWN_SENTENCES * 30).encode()
    (tmp_path / "text").write_bytes(text)
    ids, lengths = BPEDropout(model, Path("m")).encode(text.split(b"|"), 0.4, 7)
    mine = hashlib.sha256(ids.tobytes() + lengths.tobytes()).hexdigest()
    done = run(sys.executable, "-c", SCRIPT, tmp_path / "m", tmp_path / "text", PYTHONHASHSEED="1")
    assert done.stdout.strip() == mine


# Ids of abcc, ccc, abxxcababxxcab and b + 9 x abc, at a dropout of 0.5.
PINNED = [
    [4, 9],
    [9, 6],
    [7, 8, 0, 9, 3, 3, 0, 9, 3],
    [8, 3, 9, 4, 7, 8, 9, 7, 8, 9, 7, 8, 9, 3, 9, 3, 9, 3, 9, 4],
]


def handmade() -> bytes:
    """a b c ab bc abc cc: `abc` is ab + c or a + bc, and the second goes before bc could."""
    proto = sentencepiece_model_pb2.ModelProto()
    for piece, score, kind in [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]:
        proto.pieces.add(piece=piece, score=score, type=kind)
    for number, piece in enumerate(["ab", "abc", "bc", "cc", "a", "b", "c"]):
        proto.pieces.add(piece=piece, score=-number, type=1)
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = False
    return proto.SerializeToString()


def test_the_draws_of_a_seed_never_change() -> None:
    """Pinned by value: a checkpoint of an earlier release goes on with the same tokens."""
    sampler = BPEDropout(handmade(), Path("m"))
    texts = ["abcc", "ccc", "abxxcab" * 2, "b" + "abc" * 9]  # the last is longer than LONGEST_ROW
    processor = sentencepiece.SentencePieceProcessor(model_proto=handmade())
    assert rows(sampler, texts, 0.0) == processor.encode(texts)
    assert rows(sampler, texts, 0.5, seed=2**40 + 1) == PINNED


def test_other_models_are_refused() -> None:
    with pytest.raises(RecipeError, match="needs a BPE model without pieces of type UNUSED"):
        BPEDropout(train(OWN_SENTENCES * 20, 300, model_type="unigram"), Path("m"))


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="the real Korean text is not here")
def test_real_lines_have_sentencepieces_ids() -> None:
    lines = (REAL_TEXT / "lm" / "nsmc_raw_reviews.txt").read_text(encoding="utf-8").split("\n")[:6000]
    model = train(lines[:3000], 3000)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert rows(BPEDropout(model, Path("m")), lines, 0.0) == processor.encode(lines)


def test_a_model_without_single_characters_makes_everything_unknown() -> None:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    proto.normalizer_spec.add_dummy_prefix = False
    for piece, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<pad>", 3)):
        proto.pieces.add(piece=piece, type=kind, score=0)
    model = proto.SerializeToString()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    texts = ["가나", "", "a"]
    assert rows(BPEDropout(model, Path("m")), texts, 0.5) == processor.encode(texts) == [[0], [], [0]]


def test_a_piece_of_many_characters_is_refused_before_it_is_cut_at_each() -> None:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    for piece, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<pad>", 3), ("a", 1), ("a" * 3_000_000, 1)):
        proto.pieces.add(piece=piece, type=kind, score=0)
    with pytest.raises(DataError, match=r"m: has a piece of 3,000,000 characters; the most are 1,024"):
        BPEDropout(proto.SerializeToString(), Path("m"))
