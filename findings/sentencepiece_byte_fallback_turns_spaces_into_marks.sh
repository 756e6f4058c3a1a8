#!/usr/bin/env bash
# SentencePiece: with byte_fallback, a model that has seen no space gives spaces back as U+2581 (▁).
#
# Guess: with byte_fallback every text comes back as it was; a character without a piece goes by its bytes.
# What happens: before anything else a space becomes SentencePiece's own sign U+2581. If that sign is no piece, because
# the training text had one word a line and add_dummy_prefix was off, it is written as its three bytes. Decoding puts
# the bytes together again, after the step that would turn the sign into a space: ▁ stays in the text. A tab or a rare
# letter does come back. Nothing warns, in training or in use.
# It matters to whoever trains on text that is cut already (words or morphemes, one a line) or on writing without
# spaces: name the sign in user_defined_symbols or required_chars, or let one space into the training text.
#
# Output on 2026-11-30:
#   sentencepiece 0.2.3
#   required_chars=''  : "오늘 밤\t漢" comes back as "오늘▁밤\t漢"
#   required_chars='▁' : "오늘 밤\t漢" comes back as "오늘 밤\t漢"
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
TEXT = "오늘 밤\t漢"


def there_and_back(required):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["오늘", "밤", "날씨", "좋다"] * 50), model_writer=model, model_type="bpe", vocab_size=300,
        hard_vocab_limit=False, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, required_chars=required, minloglevel=2)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    back = processor.decode(processor.encode(TEXT))
    shown = [each.replace("\t", "\\t") for each in (TEXT, back)]
    print(f'required_chars={required!r:<4}: "{shown[0]}" comes back as "{shown[1]}"')
    return back


without, with_sign = there_and_back(""), there_and_back("\u2581")
assert with_sign == TEXT
assert without == TEXT.replace(" ", "\u2581"), "the behaviour has changed"
EOF
