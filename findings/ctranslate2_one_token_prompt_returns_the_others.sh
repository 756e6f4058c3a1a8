#!/usr/bin/env bash
# CTranslate2: one prompt of a single token in a batch, and the results of the other prompts are these prompts.
#
# Guess: with include_prompt_in_result=False each result has max_length new tokens, whatever other prompts are in the batch.
# What happens: CTranslate2 4.8.5 does that while every prompt of the batch has two tokens or more. If one has a single
# token, such as <s> alone to write without a prompt, the results of all others begin with their own prompts, without <s>,
# and these count in max_length: a long prompt fills the result, and nothing new is generated. No error, no warning.
# It matters to whoever generates for many prompts at once from a GPT-2 and puts an empty one among them: scores and texts of
# the others are wrong, and the more so the longer their prompts are.
#
# Output on 2026-11-29:
#   ctranslate2 4.8.5
#   prompts of 6 and 3 tokens: 4 and 4 new ones, the same as one by one
#   with a prompt of 1 token: of the first 4 of 4 are its prompt's, of the second 2 of 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ctranslate2==4.8.5 numpy==1.23.5 setuptools==69.5.1

OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'EOF'
import os

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

print(f"ctranslate2 {ctranslate2.__version__}")
UNITS, PIECES, LAYERS, HEADS, LENGTH = 32, 40, 2, 2, 64
draw = np.random.RandomState(3)


def fill(linear, out, size):
    linear.weight = draw.normal(0, 0.4, (out, size)).astype(np.float32)
    linear.bias = np.zeros(out, np.float32)


def normal(layer_norm):
    layer_norm.gamma, layer_norm.beta = np.ones(UNITS, np.float32), np.zeros(UNITS, np.float32)


spec = transformer_spec.TransformerDecoderModelSpec.from_config(
    LAYERS, HEADS, pre_norm=True, activation=common_spec.Activation.GELU)
decoder = spec.decoder
decoder.scale_embeddings = False
decoder.embeddings.weight = draw.normal(0, 0.4, (PIECES, UNITS)).astype(np.float32)
decoder.position_encodings.encodings = draw.normal(0, 0.4, (LENGTH, UNITS)).astype(np.float32)
normal(decoder.layer_norm)
fill(decoder.projection, PIECES, UNITS)
for layer in decoder.layer:
    normal(layer.self_attention.layer_norm)
    fill(layer.self_attention.linear[0], 3 * UNITS, UNITS)
    fill(layer.self_attention.linear[1], UNITS, UNITS)
    normal(layer.ffn.layer_norm)
    fill(layer.ffn.linear_0, 4 * UNITS, UNITS)
    fill(layer.ffn.linear_1, UNITS, 4 * UNITS)
pieces = ["<s>", "</s>", "<unk>", *(f"w{number}" for number in range(3, PIECES))]
spec.register_vocabulary(pieces)
spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = pieces[:3]
spec.validate()
os.mkdir("model")
spec.save("model")
generator = ctranslate2.Generator("model", intra_threads=1)


def new_tokens(prompts):
    results = generator.generate_batch(
        prompts, max_length=4, sampling_topk=1, include_prompt_in_result=False, end_token=[])
    return [result.sequences[0] for result in results]


longer, shorter = ["<s>", "w3", "w4", "w5", "w6", "w7"], ["<s>", "w8", "w9"]
alone = [new_tokens([prompt])[0] for prompt in (longer, shorter)]
together = new_tokens([longer, shorter])
print(f"prompts of 6 and 3 tokens: {len(together[0])} and {len(together[1])} new ones, the same as one by one")
assert together == alone, "the behaviour has changed"
first, second = new_tokens([longer, shorter, ["<s>"]])[:2]
returned = [sum(a == b for a, b in zip(result, prompt[1:])) for result, prompt in ((first, longer), (second, shorter))]
print(f"with a prompt of 1 token: of the first {returned[0]} of 4 are its prompt's, of the second {returned[1]} of 4")
assert first == longer[1:5] and second[:2] == shorter[1:], "the behaviour has changed"
EOF
