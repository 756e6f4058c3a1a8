#!/usr/bin/env bash
# SentencePiece: one U+2585 (▅) in a line keeps the whole line out of training.
#
# Guess: a rare character becomes <unk>, and the rest of its line is learned.
# What happens: SentencePiece uses U+2585 inside as its sign for the unknown. The trainer skips every line that has it. Its
# log says so at the level INFO only, so with minloglevel=1 or higher nothing is said, and training ends well.
# It matters to whoever trains on Korean web text, where ▁▂▃▄▅▆▇ draw bars and frames in posts and signatures. A document
# a line is a usual layout, and there one such bar costs the whole document. Cut the character out of the input.
#
# Output on 2026-11-28:
#   sentencepiece 0.2.3
#   50 lines "가나다 ▅ 라마바", 50 lines "하하하": the model knows 하, not 가
#   the same lines with ▄ (U+2584): the model knows 하, and 가
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


def train(block):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"가나다 {block} 라마바"] * 50 + ["하하하"] * 50), model_writer=model, model_type="bpe",
        vocab_size=40, character_coverage=1.0, hard_vocab_limit=False, minloglevel=2)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert processor.piece_to_id("하") != processor.unk_id()
    return processor.piece_to_id("가") != processor.unk_id()


reserved, neighbour = train("\u2585"), train("\u2584")
known = {True: "and 가", False: "not 가"}
print(f'50 lines "가나다 ▅ 라마바", 50 lines "하하하": the model knows 하, {known[reserved]}')
print(f"the same lines with ▄ (U+2584): the model knows 하, {known[neighbour]}")
assert neighbour
assert not reserved, "the behaviour has changed"
EOF
