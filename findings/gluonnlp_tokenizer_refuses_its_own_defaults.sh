#!/usr/bin/env bash
# GluonNLP and SentencePiece: SentencepieceTokenizer(file) refuses every text with its own default options.
#
# Guess: the default, num_best=0, means no sampling, as GluonNLP 0.10.0 documents it, and gives the usual pieces.
# What happens: GluonNLP calls SentencePiece's sampling in any case, and SentencePiece refuses 0 there with a ValueError. The
# error advises nbest_size = -1; with that and the default alpha=1.0 a BPE model drops all merges and gives single
# characters. Only num_best=-1 with alpha=0 gives the usual pieces.
# It matters to whoever runs old GluonNLP or KoGPT-2 code on a present SentencePiece. Following the error's advice runs,
# and feeds the network characters where it was trained on words.
#
# Output on 2026-11-28:
#   gluonnlp 0.10.0, sentencepiece 0.2.3
#   SentencePiece itself:      ▁나는 ▁오늘 ▁학교에 ▁간다
#   default options:           ValueError
#   num_best=-1:               ▁ 나 는 ▁ 오 늘 ▁ 학 교 에 ▁ 간 다
#   num_best=-1, alpha=0:      ▁나는 ▁오늘 ▁학교에 ▁간다
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gluonnlp==0.10.0 sentencepiece==0.2.3 mxnet==1.9.1 numpy==1.23.5

venv/bin/python -W ignore - <<'EOF'
import gluonnlp
import sentencepiece

print(f"gluonnlp {gluonnlp.__version__}, sentencepiece {sentencepiece.__version__}")
text = "나는 오늘 학교에 간다"
lines = [text, "너는 어제 집에 왔다", "우리는 내일 시장에 간다"] * 20
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_prefix="ko", model_type="bpe", vocab_size=60, minloglevel=2)
pieces = sentencepiece.SentencePieceProcessor(model_file="ko.model").encode(text, out_type=str)
print("SentencePiece itself:     ", *pieces)
try:
    gluonnlp.data.SentencepieceTokenizer("ko.model")(text)
    refused = False
except ValueError as error:
    print("default options:          ", type(error).__name__)
    refused = "nbest_size = -1" in str(error)
advised = gluonnlp.data.SentencepieceTokenizer("ko.model", num_best=-1)(text)
print("num_best=-1:              ", *advised)
usual = gluonnlp.data.SentencepieceTokenizer("ko.model", num_best=-1, alpha=0)(text)
print("num_best=-1, alpha=0:     ", *usual)
assert usual == pieces
assert refused and max(map(len, advised)) == 1, "the behaviour has changed"
EOF
