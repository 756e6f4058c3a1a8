#!/usr/bin/env bash
# llama.cpp: with a SentencePiece vocabulary without byte tokens it refuses every text with a character without a piece.
#
# Guess: a SentencePiece model with <unk>, in a GGUF file with unknown_token_id, gives the ids that SentencePiece gives.
# What happens: SentencePiece's trainer makes no byte tokens (<0x00> to <0xFF>) without byte_fallback=True.
# Without them, llama.cpp gives the same ids while each character has a piece. For one that has none it looks up its
# bytes, does not find them, and never takes <unk>: the server answers "_Map_base::at" to the whole text, prompts
# included. At loading it warns of the newline alone. A line end, a full stop or a rare syllable is enough.
# It matters to whoever converts such a model: short tests in plain words pass, and the first rare character of a user
# fails with a message that names neither it nor the vocabulary. 256 byte tokens more in the file help, with as many
# rows of the embedding.
#
# Output on 2026-11-29:
#   gguf 0.19.0 xllamacpp 2026.10.11549 sentencepiece 0.2.3
#   나는 서울 에 산다: SentencePiece [8, 9, 3, 13], llama.cpp [8, 9, 3, 13]
#   나는 부산 에 산다: SentencePiece [8, 19, 0, 24, 3, 13], llama.cpp _Map_base::at
#   나는 서울 에 산다.: SentencePiece [8, 9, 3, 13, 0], llama.cpp _Map_base::at
#   나는 부산 에, as a prompt: _Map_base::at
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gguf==0.19.0 xllamacpp==2026.10.11549 sentencepiece==0.2.3 \
    numpy==1.23.5

OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'EOF'
import io
import json
from importlib.metadata import version
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import gguf
import numpy as np
import sentencepiece
import xllamacpp

UNITS, LENGTH = 32, 32
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["나는 서울 에 산다", "그는 서울 에 왔다", "나는 산 에 왔다"] * 20), model_writer=model,
    model_type="bpe", vocab_size=40, hard_vocab_limit=False, minloglevel=2)
processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
ids = range(processor.get_piece_size())
draw = np.random.RandomState(3)

writer = gguf.GGUFWriter("model.gguf", "gpt2")
writer.add_context_length(LENGTH)
writer.add_embedding_length(UNITS)
writer.add_feed_forward_length(4 * UNITS)
writer.add_block_count(1)
writer.add_head_count(2)
writer.add_layer_norm_eps(1e-5)
writer.add_tokenizer_model("llama")
writer.add_token_list([processor.id_to_piece(each) for each in ids])
writer.add_token_scores([processor.get_score(each) for each in ids])
writer.add_token_types([2, 3, 3] + [1] * (len(ids) - 3))  # <unk>, <s>, </s> and pieces
writer.add_unk_token_id(processor.unk_id())
writer.add_bos_token_id(processor.bos_id())
writer.add_eos_token_id(processor.eos_id())
shapes = {"token_embd": (len(ids), UNITS), "position_embd": (LENGTH, UNITS), "output_norm": (UNITS,),
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


def answered(path, asked):
    request = Request(server.listening_address + path, json.dumps(asked).encode(), {"Content-Type": "application/json"})
    try:
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)
    except HTTPError as error:
        return json.load(error)


found = {}
print("gguf", version("gguf"), "xllamacpp", version("xllamacpp"), "sentencepiece", version("sentencepiece"))
for text in ("나는 서울 에 산다", "나는 부산 에 산다", "나는 서울 에 산다."):
    answer = answered("/tokenize", {"content": text, "add_special": False, "parse_special": False})
    found[text] = answer.get("tokens", answer.get("error", {}).get("message"))
    print(f"{text}: SentencePiece {processor.encode(text)}, llama.cpp {found[text]}")
prompt = answered("/completion", {"prompt": "나는 부산 에", "n_predict": 1})
print("나는 부산 에, as a prompt:", prompt.get("content", prompt.get("error", {}).get("message")))
del server
known, *rare = found
assert found[known] == processor.encode(known)
assert all(processor.unk_id() in processor.encode(text) for text in rare)
assert all(isinstance(found[text], str) for text in rare) and "error" in prompt, "the behaviour has changed"
EOF
