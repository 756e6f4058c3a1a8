#!/usr/bin/env bash
# SentencePiece: since 0.2.2 the same seed trains another tokenizer in each process.
#
# Guess: set_random_generator_seed(7), then training on a sample (input_sentence_size), gives the same model each time.
# What happens: up to 0.2.1 it does. From 0.2.2 on each process mixes a value of its own into the generator, so the sample,
# and with it the vocabulary, differ from run to run.
# It matters to whoever wants to build a published tokenizer again, or compares two tokenizers trained "with one seed". A
# corpus of any size is sampled, because training holds all of its text in memory. Draw the sample yourself.
#
# Output on 2026-11-28 (of 0.2.3, three hashes that differ each time):
#   sentencepiece 0.2.1: 72111099a433 72111099a433 72111099a433
#   sentencepiece 0.2.3: ed2926cda92b 6480592ad1bd 730a1128a952
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sentencepiece==0.2.3

"${PYTHON:-python3.11}" -m venv older
older/bin/pip install --quiet --disable-pip-version-check sentencepiece==0.2.1
cat > train.py <<'EOF'
import hashlib
import io

import sentencepiece

syllables = "가나다라마바사아자차카타파하"
lines = [f"문장 {i} " + syllables[i % 14] * (1 + i % 5) for i in range(3000)]
model = io.BytesIO()
sentencepiece.set_random_generator_seed(7)
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=60, hard_vocab_limit=False,
    input_sentence_size=200, shuffle_input_sentence=True, minloglevel=2)
print(hashlib.sha256(model.getvalue()).hexdigest()[:12])
EOF
for environment in older venv; do
  version=$($environment/bin/python -c 'import sentencepiece; print(sentencepiece.__version__)')
  hashes=""
  for _ in 1 2 3; do hashes="$hashes $($environment/bin/python train.py)"; done
  echo "sentencepiece $version:$hashes"
  different=$(printf '%s\n' $hashes | sort -u | wc -l)
  if [ $environment = older ]; then [ "$different" = 1 ]; else [ "$different" -gt 1 ]; fi ||
    { echo "the behaviour has changed"; exit 1; }
done
