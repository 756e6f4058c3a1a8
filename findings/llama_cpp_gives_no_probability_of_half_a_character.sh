#!/usr/bin/env bash
# llama.cpp: of a character that takes three tokens, its server gives the probability of the last token alone.
#
# Guess: /completion with n_probs has one entry of completion_probabilities for each token that it generated.
# What happens: a token after which the text ends within a character has no entry. Of a syllable written with three byte
# tokens the last has one, whose text is the whole syllable. If generation ends within the character, the answer has no
# completion_probabilities at all. "tokens" and tokens_predicted count all. /v1/completions with logprobs does the same.
# It matters to whoever scores Korean with it, where rare syllables are byte tokens: the sum of the log-probabilities
# leaves out most of such a syllable and makes it look likely. To read a whole distribution, n_predict=1 fails after
# some prompts and not after others; a logit_bias towards a plain token avoids that, as below.
#
# Output on 2026-11-29:
#   gguf 0.19.0 xllamacpp 2026.10.11549
#   3 tokens of abc: log-probability -16.99; the answer has 3 of 3, sum -16.99
#   3 tokens of 가: log-probability -16.61; the answer has 1 of 3, sum -5.49
#   2 tokens of 가: log-probability -11.12; the answer has no probabilities
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gguf==0.19.0 xllamacpp==2026.10.11549 numpy==1.23.5

OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'EOF'
import json
from importlib.metadata import version
from urllib.request import ProxyHandler, Request, build_opener

import gguf
import numpy as np
import xllamacpp

UNITS, LENGTH = 32, 32
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "나"]
PLAIN = PIECES.index("나")
draw = np.random.RandomState(3)

writer = gguf.GGUFWriter("model.gguf", "gpt2")
writer.add_context_length(LENGTH)
writer.add_embedding_length(UNITS)
writer.add_feed_forward_length(4 * UNITS)
writer.add_block_count(1)
writer.add_head_count(2)
writer.add_layer_norm_eps(1e-5)
writer.add_tokenizer_model("llama")
writer.add_token_list(PIECES)
writer.add_token_scores([0.0] * len(PIECES))
writer.add_token_types([2, 3, 3] + [6] * 256 + [1])
shapes = {"token_embd": (len(PIECES), UNITS), "position_embd": (LENGTH, UNITS), "output_norm": (UNITS,),
          "blk.0.attn_norm": (UNITS,), "blk.0.attn_qkv": (3 * UNITS, UNITS), "blk.0.attn_output": (UNITS, UNITS),
          "blk.0.ffn_norm": (UNITS,), "blk.0.ffn_up": (4 * UNITS, UNITS), "blk.0.ffn_down": (UNITS, 4 * UNITS)}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", draw.normal(0, 0.2, shape).astype(np.float32))
    if not name.endswith("embd"):
        writer.add_tensor(f"{name}.bias", np.zeros(shape[0], np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = "model.gguf", LENGTH, 1
params.warmup, params.verbosity, params.hostnames, params.port = False, -1, ["127.0.0.1"], 0
server = xllamacpp.Server(params)
opener = build_opener(ProxyHandler({}))


def answered(prompt, count, **more):
    asked = {"prompt": prompt, "n_predict": count, "n_probs": len(PIECES), "return_tokens": True, **more}
    request = Request(f"{server.listening_address}/completion", json.dumps(asked).encode(),
                      {"Content-Type": "application/json"})
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)


def log_prob(prompt, token):
    answer = answered(prompt, 1, samplers=[], temperature=0, logit_bias=[[PLAIN, 1e6]])  # a plain token is drawn
    return {each["id"]: each["logprob"] for each in answer["completion_probabilities"][0]["top_logprobs"]}[token]


START = [PLAIN, PLAIN]
counts = {}
print("gguf", version("gguf"), "xllamacpp", version("xllamacpp"))
for text, count in (("abc", 3), ("가", 3), ("가", 2)):
    answer = answered(START, count, grammar=f'root ::= "{text}"')
    tokens = answer["tokens"]
    assert tokens == [PIECES.index(f"<0x{byte:02X}>") for byte in text.encode()[:count]]
    true = sum(log_prob(START + tokens[:at], token) for at, token in enumerate(tokens))
    entries = answer.get("completion_probabilities", [])
    counts[text, count] = len(entries)
    total = sum(each["logprob"] for each in entries)
    has = f"{len(entries)} of {count}, sum {total:.2f}" if entries else "no probabilities"
    print(f"{count} tokens of {text}: log-probability {true:.2f}; the answer has {has}")
del server
assert counts["abc", 3] == 3
assert counts["가", 3] == 1 and counts["가", 2] == 0, "the behaviour has changed"
EOF
