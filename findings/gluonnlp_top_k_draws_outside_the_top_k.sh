#!/usr/bin/env bash
# GluonNLP: SequenceSampler(top_k=2) draws tokens that are not among the two most likely.
#
# Guess: with top_k=2 only the two most likely tokens are ever drawn.
# What happens: GluonNLP 0.10.0 sorts the token ids by their score and then compares these ids with k, where the rank of each
# token belongs. It keeps the tokens at those places of the vocabulary where the sorted list holds an id below k. Here the
# two likely tokens, 4 and 5, are never drawn; two others are.
# It matters to whoever generates text with GluonNLP's GPT-2 scripts. Text from a good model becomes noise as soon as
# top_k is set, and one blames the model.
#
# Output on 2026-11-28:
#   gluonnlp 0.10.0, mxnet 1.9.1
#   probabilities: 0:0.00 1:0.00 2:0.00 3:0.00 4:0.73 5:0.27
#   top_k=None: drew tokens 4 5
#   top_k=2: drew tokens 2 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gluonnlp==0.10.0 mxnet==1.9.1 numpy==1.23.5

venv/bin/python -W ignore - <<'EOF'
import gluonnlp
import mxnet as mx

print(f"gluonnlp {gluonnlp.__version__}, mxnet {mx.__version__}")
mx.random.seed(1)
logits = mx.nd.array([-9, -9, -9, -9, 9, 8])
print("probabilities:", *(f"{token}:{p:.2f}" for token, p in enumerate(logits.softmax().asnumpy())))


def decoder(tokens, states):
    return logits.reshape((1, -1)).repeat(tokens.shape[0], axis=0), states


def draw(top_k):
    sampler = gluonnlp.model.SequenceSampler(
        beam_size=300, decoder=decoder, eos_id=99, max_length=1, top_k=top_k)
    tokens, _, _ = sampler(mx.nd.array([0]), mx.nd.array([[0.0]]))
    drawn = sorted(set(tokens.asnumpy()[0, :, 1].tolist()))  # column 0 is the input, the last one is eos_id
    print(f"top_k={top_k}: drew tokens", *drawn)
    return drawn


everything, top = draw(None), draw(2)
assert everything == [4, 5]
assert not {4, 5} & set(top), "the behaviour has changed"
EOF
