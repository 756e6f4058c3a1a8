"""Evaluation: each token once with the context that a stride promises, and bits per byte of raw and normalised text."""

from __future__ import annotations

import json
import math
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.evaluation import EvaluationOptions, evaluate, evaluate_checkpoint
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.reading.text.held_out import TextOptions
from kogpt2_gluon.runs.checkpoint import Checkpoint
from kogpt2_gluon.shards.format import Manifest, ShardWriter
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.tokens.counts import counter_for
from kogpt2_gluon.tokens.tokenizer import SPACE, Tokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, make_checkpoint, train
from tests.helpers import kogpt2
from tests.machine.thread_workers import on_workers
from tests.reading.order_helpers import write_set

LINE = TextOptions("line")


def window_start(label: int, length: int, stride: int) -> int:
    """Where the sequence begins in which the token at `label` is scored: the first one that reaches it."""
    return max(0, -(-(label - length) // stride)) * stride


def place_and_context(tokens):
    """In the place of a network: a "loss" that says which token it is of, and how many came before it in its row."""
    labels = tokens.asnumpy()[:, 1:] - 1000
    return mx.nd.array(labels * 64 + np.arange(1, labels.shape[1] + 1), dtype="float32")


@pytest.mark.parametrize("num_tokens", [2, 16, 17, 18, 23, 170, 349])
@pytest.mark.parametrize(("stride", "batch_size"), [(0, 3), (16, 1), (1, 4), (5, 7), (15, 1000)])
def test_each_token_is_scored_once_with_the_context_that_the_stride_promises(
    tmp_path: Path, num_tokens: int, stride: int, batch_size: int
) -> None:
    write_set(tmp_path / "set", num_tokens)
    labels, step = range(1, num_tokens), stride or 16
    contexts = [label - window_start(label, 16, step) for label in labels]
    assert min(contexts[16:], default=16) >= 16 - step + 1 and max(contexts) <= 16
    expected = sum(label * 64 + context for label, context in zip(labels, contexts))
    options = EvaluationOptions(16, batch_size, stride=stride)
    for size in (1, 3):

        def score(worker):
            with ShardSet(tmp_path / "set") as shards:
                return evaluate(place_and_context, shards, options, mx.cpu(), worker)

        for found in on_workers(size, score):
            assert found.tokens == num_tokens - 1
            assert found.loss * found.tokens == pytest.approx(expected, rel=1e-12)


def brute_force(checkpoint: Checkpoint, tokens: list[int], length: int, stride: int) -> float:
    """The summed loss of all tokens but `<s>`, each by a pass of its own over what comes before it."""
    net, tokenizer, _, ctx = load_checkpoint(checkpoint.path, "cpu", ops="stock")
    block, total = LanguageModelLoss(net), 0.0
    for label in range(1, len(tokens)):
        if tokens[label] != tokenizer.unscored_id:
            row = tokens[window_start(label, length, stride) : label + 1]
            total += float(block(mx.nd.array([row], ctx=ctx, dtype="int32")).asnumpy()[0, -1])
    return total


def framed(tokenizer: Tokenizer, lines: list[str]) -> list[int]:
    """The tokens of the documents as one stream."""
    return [token for line in lines for token in (tokenizer.bos_id, *tokenizer.encode(line), tokenizer.eos_id)]


def write_shards(folder: Path, tokenizer: Tokenizer, lines: list[str]) -> Path:
    """Shards of one line a document."""
    folder.mkdir()
    manifest = Manifest("test", "<u2", 64, tokenizer.vocab_size, tokenizer.sha256, tokenizer.special_ids, "a test")
    manifest.text_bytes = sum(len(tokenizer.normalize(line).encode()) for line in lines)
    manifest.words = sum(len(tokenizer.normalize(line).split()) for line in lines)
    manifest.unknown = sum(tokenizer.encode(line).count(tokenizer.unk_id) for line in lines)
    with ShardWriter(folder, manifest, 256) as writer:
        writer.add(np.array(framed(tokenizer, lines), "<u2"), [len(tokenizer.encode(line)) + 2 for line in lines])
        writer.finish()
    return folder


LINES = [*OWN_SENTENCES[:2], "가", "ㅋㅋㅋ 훩  두 칸", "이 영화는"]


@pytest.mark.parametrize(("length", "stride"), [(24, 24), (24, 7), (64, 1), (24, 0), (0, 0)])
def test_a_sliding_window_is_brute_force(checkpoint: Checkpoint, tmp_path: Path, length: int, stride: int) -> None:
    (tmp_path / "text").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.load(checkpoint.tokenizer_path)
    tokens = framed(tokenizer, LINES)
    shards = write_shards(tmp_path / "shards", tokenizer, LINES)
    total = brute_force(checkpoint, tokens, length or 32, stride or length or 32)
    for data, text, batch_size in ((tmp_path / "text", LINE, 1), (tmp_path / "text", LINE, 100), (shards, None, 3)):
        found = evaluate_checkpoint(
            checkpoint.path, data, batch_size, length, "cpu", ops="stock", text=text, stride=stride
        )
        assert found.tokens == len(tokens) - len(LINES)
        assert found.loss == pytest.approx(total / found.tokens, rel=1e-5)
        assert (found.seq_length, found.stride) == (length or 32, stride or length or 32)
        assert found.normalized_bytes == sum(len(tokenizer.normalize(line).encode()) for line in LINES)
        assert found.bits_per_byte == pytest.approx(total / math.log(2) / found.normalized_bytes, rel=1e-5)
        assert found.documents == len(LINES) and found.unknown_tokens == tokens.count(tokenizer.unk_id) > 0


def test_the_default_is_a_stride_of_a_whole_sequence(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n".join(LINES), encoding="utf-8")
    fixed, default = (
        evaluate_checkpoint(checkpoint.path, tmp_path / "text", seq_length=24, device="cpu", text=LINE, stride=stride)
        for stride in (24, 0)
    )
    assert fixed == default


@pytest.mark.parametrize(("length", "stride", "words"), [(16, 17, "stride=17: it takes 1 to 16"), (65, 0, "1 to 64")])
def test_sequences_that_do_not_fit(
    checkpoint: Checkpoint, tmp_path: Path, length: int, stride: int, words: str
) -> None:
    (tmp_path / "text").write_text("가", encoding="utf-8")
    with pytest.raises(RecipeError, match=words):
        evaluate_checkpoint(checkpoint.path, tmp_path / "text", 8, length, "cpu", text=LINE, stride=stride)


def test_raw_bytes_are_those_of_the_documents_in_utf_8(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """In any encoding, with any line ends and a byte-order mark; those of the left-out documents do not count."""
    lines = [line for line in LINES if "훩" not in line] + ["두  칸 ㅋㅋ", unicodedata.normalize("NFD", "서울에서")]
    spellings = {
        "unix": "\n".join(lines).encode(),
        "marked": b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode(),
        "wide": "\r\n".join(lines).encode("utf-16"),
        "gaps": "\n\n \n".join([*lines, ""]).encode(),
    }
    found = {}
    for name, data in spellings.items():
        (tmp_path / name).write_bytes(data)
        found[name] = evaluate_checkpoint(checkpoint.path, tmp_path / name, device="cpu", text=LINE)
    assert len(set(map(repr, found.values()))) == 1
    score, tokenizer = found["unix"], Tokenizer.load(checkpoint.tokenizer_path)
    assert score.raw_bytes == sum(len(line.encode()) for line in lines)
    assert score.normalized_bytes == sum(len(tokenizer.normalize(line).encode()) for line in lines)
    changed = [line for line in lines if tokenizer.decode(tokenizer.encode(line)) != line]
    assert score.changed_documents == len(changed) == 2 and score.restoring_bits > 0
    bits = score.loss / math.log(2) * score.tokens
    assert score.bits_per_byte == pytest.approx(bits / score.normalized_bytes)
    assert score.bits_per_raw_byte == pytest.approx((bits + score.restoring_bits) / score.raw_bytes)


def test_a_tokenizer_that_loses_text_gains_nothing_by_it(tmp_path: Path) -> None:
    """One that takes all of a text for `<unk>` is certain of it; the text is paid for all the same."""
    draw = random.Random(0)
    strange = ["".join(draw.choices("훩훳훵퓮퓬퓶퓭퀡쿾쿿", k=5)) for _ in range(60)]
    (tmp_path / "text").write_text("\n".join(strange), encoding="utf-8")
    blind = make_checkpoint(tmp_path / "blind", train(OWN_SENTENCES * 20, 400))
    score = evaluate_checkpoint(blind.path, tmp_path / "text", device="cpu", text=LINE)
    assert score.unknown_tokens >= 60 and score.changed_documents == 60 and score.lost_bytes == score.raw_bytes
    assert score.restoring_bits > 60 * 5 * math.log2(10)  # a patch cannot be smaller than what is in it
    assert score.bits_per_raw_byte > score.loss / math.log(2) * score.tokens / score.raw_bytes


def test_the_verb_names_both_kinds_of_bytes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n".join(LINES), encoding="utf-8")
    words = ("evaluate", checkpoint.path, tmp_path / "text", "--documents", "line", "--seq-length", 24, "--stride", 8)
    figures = json.loads(kogpt2(*words, "--json").stdout)
    assert figures["raw_bytes"] == sum(len(line.encode()) for line in LINES) and figures["stride"] == 8
    lines = kogpt2(*words).stdout.splitlines()
    assert "context                         16  tokens at least, of 24; stride 8" in lines
    for name, key, of in (
        ("bits per byte", "bits_per_byte", "normalised text"),
        ("bits per raw byte", "bits_per_raw_byte", "text as it is"),
    ):
        line = next(line for line in lines if line.startswith(f"{name}  "))
        assert f"{figures[key]:.4f}" in line and of in line
    assert lines[-1].startswith(f"{figures['changed_documents']} of 5 documents do not come back from their tokens: ")
    assert f"{figures['lost_bytes']} bytes, {figures['unknown_tokens']} <unk>" in lines[-1]


def test_shards_have_no_raw_text_and_the_verb_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", Tokenizer.load(checkpoint.tokenizer_path), LINES)
    figures = json.loads(kogpt2("evaluate", checkpoint.path, shards, "--json").stdout)
    assert figures["bits_per_raw_byte"] is figures["raw_bytes"] is figures["restoring_bits"] is None
    *_, raw, unknown = kogpt2("evaluate", checkpoint.path, shards).stdout.splitlines()
    assert raw.startswith("bits per raw byte") and "shards keep no raw text" in raw
    assert unknown.startswith(f"{figures['unknown_tokens']} tokens are <unk>")


def test_a_space_of_three_byte_pieces_is_one_byte(tmp_path: Path) -> None:
    """A vocabulary without U+2581 spells a space as the three bytes of that sign (openai/parameter-golf, issue 897)."""
    lossless = {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    proto = model_proto(train(OWN_SENTENCES * 3, 450, **lossless))
    for piece in proto.pieces:
        piece.piece = "\u4e01" if piece.piece == SPACE else piece.piece
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    tokenizer, texts = Tokenizer.load(tmp_path / "tokenizer.model"), [b"  ", "훩  훳 ".encode(), "이 영화는".encode()]
    ids, lengths = tokenizer.encode_flat(texts)
    assert lengths[0] >= 6 and tokenizer.byte_ids[ids[:6]].all()
    text_bytes, _ = counter_for(tokenizer).count(ids, lengths, texts)
    assert text_bytes.tolist() == list(map(len, texts))
