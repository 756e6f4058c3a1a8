#!/usr/bin/env bash
# SentencePiece: the usual normalisation turns typed ㅋㅋ and ㅠㅠ into other characters, which never come back.
#
# Guess: nmt_nfkc, the normalisation that KoGPT-2's tokenizer was trained with, unifies odd spellings and leaves plain
# Korean alone.
# What happens: a keyboard types a lone ㅋ as U+314B, a letter for use alone. SentencePiece makes it U+110F, a letter that
# begins a syllable. decode() returns that one: it looks alike, and is another string. Letters typed one after another
# even become a syllable: ㄱㅏ comes back as 가.
# It matters to whoever trains or evaluates a Korean language model on chats and reviews, where ㅋㅋ and ㅠㅠ are
# everywhere. A search for ㅋㅋ finds nothing in generated text.
#
# Output on 2026-11-28:
#   sentencepiece 0.2.3
#   ㅋㅋ U+314B U+314B -> U+110F U+110F
#   ㅠㅠ U+3160 U+3160 -> U+1172 U+1172
#   ㄱㅏ U+3131 U+314F -> U+AC00
#   가나 U+AC00 U+B098 -> U+AC00 U+B098
#   decode(encode('ㅋㅋ')) == 'ㅋㅋ': False
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
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["가나 ㅋㅋ ㅠㅠ ㄱ ㅏ"] * 20), model_writer=model, model_type="bpe", vocab_size=16,
    normalization_rule_name="nmt_nfkc", hard_vocab_limit=False, minloglevel=2)
processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def codes(text):
    return " ".join(f"U+{ord(character):04X}" for character in text)


back = {text: processor.decode(processor.encode(text)) for text in ("ㅋㅋ", "ㅠㅠ", "ㄱㅏ", "가나")}
for text, returned in back.items():
    print(text, codes(text), "->", codes(returned))
print("decode(encode('ㅋㅋ')) == 'ㅋㅋ':", back["ㅋㅋ"] == "ㅋㅋ")
assert back["가나"] == "가나"
assert back["ㅋㅋ"] == "\u110f\u110f" and back["ㅠㅠ"] == "\u1172\u1172", "the behaviour has changed"
assert back["ㄱㅏ"] == "가", "the behaviour has changed"
EOF
