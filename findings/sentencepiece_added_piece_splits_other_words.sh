#!/usr/bin/env bash
# SentencePiece: a word added to a BPE model with score 0 splits other words that contain its letters.
#
# Guess: adding the piece 시장 ("market") with the neutral score 0 changes only texts about markets.
# What happens: a BPE model joins the neighbours with the highest score first. Training gives its first piece the score 0 and
# each later one a lower score, so a piece added with 0 is joined before any of them. 동시장애 ("faults at the same time")
# was 동시 + 장애; now 시 and 장 are joined first and both words are lost. With a score below all others it stays whole.
# It matters to whoever adds terms of a domain to a Korean tokenizer. Korean writes compounds without a space, so an added
# word often appears across the border of two others.
#
# Output on 2026-11-28:
#   sentencepiece 0.2.3
#   scores of the trained pieces: 0 to -27
#   before:           ▁동시 장애
#   added with 0:     ▁동 시장 애
#   added below all:  ▁동시 장애
#   시장 alone:        ▁ 시장
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sentencepiece==0.2.3 protobuf==7.36.2

venv/bin/python -W ignore - <<'EOF'
import io

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

print("sentencepiece", sentencepiece.__version__)
written = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["동시 통역", "큰 장애", "장애 동시", "동시 접속", "그장애"] * 50), model_writer=written,
    model_type="bpe", vocab_size=40, hard_vocab_limit=False, minloglevel=2)


def pieces(text, score=None):
    model = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    if score is not None:
        model.pieces.add(piece="시장", score=score)
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).encode(text, out_type=str)


model = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
scores = [piece.score for piece in model.pieces if piece.type == piece.NORMAL]
print(f"scores of the trained pieces: {max(scores) + 0.0:.0f} to {min(scores):.0f}")
before, with_zero, with_lowest = (pieces("동시장애", score) for score in (None, 0, min(scores) - 1))
print("before:          ", *before)
print("added with 0:    ", *with_zero)
print("added below all: ", *with_lowest)
print("시장 alone:       ", *pieces("시장", min(scores) - 1))
assert before == with_lowest == ["▁동시", "장애"]
assert "시장" in with_zero and "장애" not in with_zero, "the behaviour has changed"
EOF
