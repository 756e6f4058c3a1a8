#!/usr/bin/env bash
# llama.cpp: a GPT-2 trained with the erf form of GELU runs with the tanh form, and no key of the file changes it.
#
# Guess: a GPT-2 with the erf form of GELU, activation_function "gelu" in transformers as PAGnol has it, gives the same
# probabilities once its weights are in a GGUF file in float32.
# What happens: the package gguf 0.19.0 has no key for it, and llama.cpp always takes the tanh form, GPT-2's own. A key
# that llama.cpp does know, hidden_activation, changes nothing for GPT-2. On the CPU it looks the tanh form up in a
# table of float16 numbers. The file loads without a word.
# It matters to whoever converts such a model: one GELU is off by 0.0005 at most, which looks like rounding, and the
# log-probabilities are off by what the weights make of it. The network below has large ones, and an attention that adds
# nothing, whose own rounding would blur this. Measure it for yours.
#
# Output on 2026-11-29:
#   gguf 0.19.0 xllamacpp 2026.10.11549
#   log-probabilities of 300 tokens after 8 prompts, largest difference of llama.cpp's
#     from the erf form, which the file asks for: 0.10
#     from the tanh form:                         0.007
#     from the tanh form in a float16 table:      0.0006
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gguf==0.19.0 xllamacpp==2026.10.11549 numpy==1.23.5

OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'EOF'
import json
import math
from importlib.metadata import version
from urllib.request import ProxyHandler, Request, build_opener

import gguf
import numpy as np
import xllamacpp

UNITS, LAYERS, HEADS, LENGTH = 64, 2, 2, 32
WORDS = [f"w{number}" for number in range(41)]
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
TYPES = [2, 3, 3] + [6] * 256 + [1] * len(WORDS)
draw = np.random.RandomState(3)
weights = {}


def fill(name, scale, *shape):
    weights[name] = draw.normal(0, scale, shape).astype(np.float32)


fill("token_embd.weight", 0.2, len(PIECES), UNITS)
fill("position_embd.weight", 0.2, LENGTH, UNITS)
for layer in range(LAYERS):
    for name, out, size, scale in (("attn_qkv", 3 * UNITS, UNITS, 0), ("attn_output", UNITS, UNITS, 0),
                                   ("ffn_up", 4 * UNITS, UNITS, 0.05), ("ffn_down", UNITS, 4 * UNITS, 2)):
        fill(f"blk.{layer}.{name}.weight", scale, out, size)
        fill(f"blk.{layer}.{name}.bias", 0.05, out)
    weights[f"blk.{layer}.ffn_up.bias"] -= np.float32(2.7)  # here both forms differ most
for name in ("output_norm", *(f"blk.{layer}.{part}_norm" for layer in range(LAYERS) for part in ("attn", "ffn"))):
    weights[f"{name}.weight"], weights[f"{name}.bias"] = np.ones(UNITS, np.float32), np.zeros(UNITS, np.float32)

writer = gguf.GGUFWriter("model.gguf", "gpt2")
writer.add_context_length(LENGTH)
writer.add_embedding_length(UNITS)
writer.add_feed_forward_length(4 * UNITS)
writer.add_block_count(LAYERS)
writer.add_head_count(HEADS)
writer.add_layer_norm_eps(1e-5)
writer.add_string("gpt2.hidden_activation", "gelu")
writer.add_tokenizer_model("llama")
writer.add_token_list(PIECES)
writer.add_token_scores([0.0] * len(PIECES))
writer.add_token_types(TYPES)
for name, array in weights.items():
    writer.add_tensor(name, array)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


def erf_form(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def tanh_form(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def normal(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def linear(x, name):
    return x @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def log_probs(ids, gelu):
    x = weights["token_embd.weight"][ids].astype(np.float64) + weights["position_embd.weight"][:len(ids)]
    for layer in range(LAYERS):
        x = x + weights[f"blk.{layer}.attn_output.bias"]  # attention adds nothing else
        x = x + linear(gelu(linear(normal(x), f"blk.{layer}.ffn_up")), f"blk.{layer}.ffn_down")
    return log_softmax(normal(x[-1]) @ weights["token_embd.weight"].T)


params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = "model.gguf", LENGTH, 1
params.warmup, params.verbosity, params.hostnames, params.port = False, -1, ["127.0.0.1"], 0
server = xllamacpp.Server(params)
opener = build_opener(ProxyHandler({}))


def answered(ids):
    asked = {"prompt": ids, "n_predict": 1, "temperature": 0, "samplers": [], "n_probs": len(PIECES),
             "logit_bias": [[PIECES.index("w0"), 1e6]]}  # which token is drawn; the probabilities are without it
    request = Request(f"{server.listening_address}/completion", json.dumps(asked).encode(),
                      {"Content-Type": "application/json"})
    with opener.open(request, timeout=30) as answer:
        found = json.load(answer)["completion_probabilities"][0]["top_logprobs"]
    return np.array([each["logprob"] for each in sorted(found, key=lambda each: each["id"])])


prompts = [draw.randint(PIECES.index("w0"), len(PIECES), 12).tolist() for _ in range(8)]
answers = [answered(prompt) for prompt in prompts]
del server
print("gguf", version("gguf"), "xllamacpp", version("xllamacpp"))
print(f"log-probabilities of {len(PIECES)} tokens after {len(prompts)} prompts, largest difference of llama.cpp's")


def difference(gelu):
    return max(float(np.abs(answer - log_probs(ids, gelu)).max()) for ids, answer in zip(prompts, answers))


erf, tanh = difference(erf_form), difference(tanh_form)
print(f"  from the erf form, which the file asks for: {erf:.2f}")
print(f"  from the tanh form:                         {tanh:.3f}")


def rounded(x):
    return x.astype(np.float16).astype(np.float64)


table = difference(lambda x: rounded(tanh_form(rounded(x))))
print(f"  from the tanh form in a float16 table:      {table:.4f}")
assert erf > 0.05 and table < tanh < 0.02, "the behaviour has changed"
EOF
