#!/usr/bin/env bash
# tokenizers and SentencePiece: the same table of characters joins Korean letters in one library and not in the other.
#
# Guess: tokenizers' Precompiled normalizer applies the table in a SentencePiece model as SentencePiece does.
# What happens: SentencePiece searches the text for the longest entry of the table, which may be several characters long.
# Precompiled looks up one character at a time where letters follow one another, so it never sees the entry ㄱㅏ -> 가. An
# NFC normalizer after it restores the syllable.
# It matters to whoever converts a Korean SentencePiece model to a tokenizer.json. Both agree on nearly all text, so a
# short test passes, and chats with letters typed one by one then get other ids than in training.
#
# Output on 2026-11-28:
#   sentencepiece 0.2.3, tokenizers 0.23.3
#   ㄱㅏ: SentencePiece U+AC00, Precompiled U+1100 U+1161, then NFC U+AC00
#   ㅋㅋ: SentencePiece U+110F U+110F, Precompiled U+110F U+110F, then NFC U+110F U+110F
#   가나: SentencePiece U+AC00 U+B098, Precompiled U+AC00 U+B098, then NFC U+AC00 U+B098
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sentencepiece==0.2.3 tokenizers==0.23.3 protobuf==7.36.2

venv/bin/python -W ignore - <<'EOF'
import io

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers

print(f"sentencepiece {sentencepiece.__version__}, tokenizers {tokenizers.__version__}")
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["가나 다라"] * 20), model_writer=model, model_type="bpe", vocab_size=16,
    normalization_rule_name="nmt_nfkc", add_dummy_prefix=False, hard_vocab_limit=False, minloglevel=2)
processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
table = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap
precompiled = normalizers.Precompiled(table)
then_nfc = normalizers.Sequence([precompiled, normalizers.NFC()])


def codes(text):
    return " ".join(f"U+{ord(character):04X}" for character in text)


found = {}
for text in ("ㄱㅏ", "ㅋㅋ", "가나"):
    found[text] = processor.normalize(text), precompiled.normalize_str(text), then_nfc.normalize_str(text)
    joined, apart, repaired = map(codes, found[text])
    print(f"{text}: SentencePiece {joined}, Precompiled {apart}, then NFC {repaired}")
    assert found[text][0] == found[text][2]
assert found["가나"][0] == found["가나"][1]
assert found["ㄱㅏ"][:2] == ("가", "\u1100\u1161"), "the behaviour has changed"
EOF
