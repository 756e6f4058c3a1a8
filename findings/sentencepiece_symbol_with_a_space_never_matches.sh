#!/usr/bin/env bash
# SentencePiece: a user-defined symbol that contains a space gets an id and never matches.
#
# Guess: user_defined_symbols=['서울 특별시'] makes this text one token wherever it is.
# What happens: the trainer accepts the symbol and gives it an id. Text is searched for symbols after its spaces have become
# U+2581 (▁), and the symbol still has a plain space, so it is never found. Written as 서울▁특별시 it works.
# It matters to whoever reserves tokens for titles, names or markers such as "<질문 1>" in a Korean model. The vocabulary
# lists the token, training never uses it, and its row of the embedding stays as it was made.
#
# Output on 2026-11-28:
#   sentencepiece 0.2.3
#   서울 특별시: id 3, text becomes ▁나는 | ▁서울 | ▁특별시 | ▁에 | ▁산다
#   서울▁특별시: id 3, text becomes ▁나는 | ▁ | 서울▁특별시 | ▁에 | ▁산다
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sentencepiece==0.2.3

venv/bin/python -W ignore - <<'EOF'
import io

import sentencepiece

print("sentencepiece", sentencepiece.__version__)


def encode(symbol):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["나는 서울 특별시 에 산다", "그는 서울 에 왔다"] * 20), model_writer=model, model_type="bpe",
        vocab_size=50, user_defined_symbols=[symbol], hard_vocab_limit=False, minloglevel=2)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = processor.encode("나는 서울 특별시 에 산다", out_type=str)
    print(f"{symbol}: id {processor.piece_to_id(symbol)}, text becomes", " | ".join(pieces))
    assert processor.piece_to_id(symbol) == 3
    return symbol in pieces


with_space, with_sign = encode("서울 특별시"), encode("서울▁특별시")
assert with_sign
assert not with_space, "the behaviour has changed"
EOF
