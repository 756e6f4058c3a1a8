#!/usr/bin/env bash
# peft: the loss of a network with a tuned prompt is a mean over one token more than that of the network alone.
#
# Guess: with the same text and labels, `.loss` is a mean over the same tokens whatever is in front of the text, so the
# loss with prompt tuning, with prefix tuning and without either compare.
# What happens: a causal model shifts labels by one, so a network alone never scores the first token of a text: of T
# tokens it scores T - 1. Prompt tuning puts vectors and as many labels of -100 in front, the last vector predicts the
# first token, and the mean is over T. P-tuning does the same. Prefix tuning puts keys and values in front of each
# layer, where nothing is predicted, and its mean is over T - 1 again.
# It matters to whoever compares perplexities of these methods, or of a tuned prompt with its network, above all on short
# texts: the first token is the hardest one. Labels of -100 for the first token make the numbers compare.
#
# Output on 2026-11-30:
#   peft 0.21.2, transformers 5.23.0
#   alone: the loss is the mean over tokens 2 to 8
#   prompt tuning: the loss is the mean over tokens 1 to 8
#   p-tuning: the loss is the mean over tokens 1 to 8
#   prefix tuning: the loss is the mean over tokens 2 to 8
#   prompt tuning, first label -100: the loss is the mean over tokens 2 to 8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    numpy==1.23.5 torch==2.13.0 transformers==5.23.0 peft==0.21.2

TRANSFORMERS_VERBOSITY=error venv/bin/python -W ignore - <<'EOF'
import peft
import torch
import transformers

print(f"peft {peft.__version__}, transformers {transformers.__version__}")
torch.manual_seed(0)
sizes = {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
config = transformers.GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
ids = torch.randint(0, 50, (1, 8))
found = {}


def show(name, network, labels):
    out = network(input_ids=ids, labels=labels)
    log_probabilities = out.logits.log_softmax(-1)[0]
    # The distribution before each token of the text; the one before the first is there only with vectors in front.
    before = log_probabilities[-9:-1] if len(log_probabilities) > 8 else log_probabilities[:-1]
    scored = ids[0, -len(before):]
    losses = -before.gather(1, scored[:, None])[:, 0]
    means = {f"{8 - count + 1} to 8": losses[-count:].mean().item() for count in (7, len(losses))}
    (found[name],) = (tokens for tokens, mean in means.items() if abs(mean - out.loss.item()) < 1e-5)
    print(f"{name}: the loss is the mean over tokens {found[name]}")


kinds = {
    "prompt tuning": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "p-tuning": peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=16),
    "prefix tuning": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}
show("alone", transformers.GPT2LMHeadModel(config).eval(), ids)
for name, kind in kinds.items():
    show(name, peft.get_peft_model(transformers.GPT2LMHeadModel(config).eval(), kind).eval(), ids)
without_first = ids.clone()
without_first[0, 0] = -100
network = peft.get_peft_model(transformers.GPT2LMHeadModel(config).eval(), kinds["prompt tuning"]).eval()
show("prompt tuning, first label -100", network, without_first)
assert found["alone"] == found["prefix tuning"] == "2 to 8", "the behaviour has changed"
assert found["prompt tuning"] == found["p-tuning"] == "1 to 8", "the behaviour has changed"
EOF
