#!/usr/bin/env bash
# GluonNLP: a BERTVocab read from a SentencePiece model has three tokens more, in another order for each model.
#
# Guess: BERTVocab.from_sentencepiece(file) has the pieces of the file; or it adds [CLS], [SEP] and [MASK] in one fixed order.
# What happens: GluonNLP 0.10.0 adds the three after the last piece, unless each is given as None, and their order depends
# on the pieces: [CLS] of one model has the place of [MASK] or [SEP] in another. MXNet's Embedding clips ids that are too
# large, so a network with a row for each piece looks up the last row for all three, without a word.
# It matters to whoever loads KoGPT-2-style parameters with a vocabulary read this way (masked text is fed as an arbitrary
# syllable), or trains a second tokenizer and keeps the ids of the special tokens.
#
# Output on 2026-11-28:
#   gluonnlp 0.10.0, sentencepiece 0.2.3, mxnet 1.9.1
#   36 pieces, then [MASK] [SEP] [CLS]; vector of the last piece 35, of [MASK] 35
#   48 pieces, then [CLS] [MASK] [SEP]; vector of the last piece 47, of [MASK] 47
#   60 pieces, then [CLS] [SEP] [MASK]; vector of the last piece 59, of [MASK] 59
#   60 pieces, None for each: 60 tokens
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gluonnlp==0.10.0 sentencepiece==0.2.3 mxnet==1.9.1 numpy==1.23.5

venv/bin/python -W ignore - <<'EOF'
import gluonnlp
import mxnet as mx
import sentencepiece

print(f"gluonnlp {gluonnlp.__version__}, sentencepiece {sentencepiece.__version__}, mxnet {mx.__version__}")
lines = ["나는 오늘 학교에 간다", "너는 어제 집에 왔다", "우리는 내일 시장에 간다"] * 20
orders = set()
for pieces in (36, 48, 60):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix="ko", model_type="bpe", vocab_size=pieces, minloglevel=2)
    vocab = gluonnlp.vocab.BERTVocab.from_sentencepiece("ko.model")
    added = tuple(vocab.idx_to_token[pieces:])
    orders.add(added)

    embedding = mx.gluon.nn.Embedding(pieces, 1)
    embedding.initialize()
    embedding.weight.set_data(mx.nd.arange(pieces).reshape((-1, 1)))
    last, mask = embedding(mx.nd.array([pieces - 1, vocab["[MASK]"]])).asnumpy()[:, 0]
    print(f"{pieces} pieces, then {' '.join(added)}; vector of the last piece {last:.0f}, of [MASK] {mask:.0f}")
    assert sorted(added) == ["[CLS]", "[MASK]", "[SEP]"] and last == mask, "the behaviour has changed"
plain = gluonnlp.vocab.BERTVocab.from_sentencepiece("ko.model", mask_token=None, sep_token=None, cls_token=None)
print(f"{pieces} pieces, None for each: {len(plain)} tokens")
assert len(plain) == pieces
assert len(orders) > 1, "the behaviour has changed"
EOF
