#!/usr/bin/env bash
# MXNet: SoftmaxCrossEntropyLoss takes the label -100 as class 0, and a label that is too large as the last class.
#
# Guess: -100 means "ignore this position", as other frameworks take it, or is an error.
# What happens: MXNet 1.9.1 clips labels into range without a word. A padded position pulls the network towards class 0,
# which is a special token in most vocabularies, exactly as if the label were 0.
# It matters to whoever feeds labels made for another framework to a Gluon model. The loss is finite and falls: the
# network learns to say token 0 wherever the data was padded. Pass sample_weight with zeros instead.
#
# Output on 2026-11-28:
#   mxnet 1.9.1, numpy 1.23.5
#   label    0: loss 1.0986, gradient [-0.67  0.33  0.33]
#   label -100: loss 1.0986, gradient [-0.67  0.33  0.33]
#   label   -1: loss 1.0986, gradient [-0.67  0.33  0.33]
#   label    2: loss 1.0986, gradient [ 0.33  0.33 -0.67]
#   label 5000: loss 1.0986, gradient [ 0.33  0.33 -0.67]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5

venv/bin/python -W ignore - <<'EOF'
import mxnet as mx
import numpy as np

print(f"mxnet {mx.__version__}, numpy {np.__version__}")
loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def gradient(label):
    logits = mx.nd.zeros((1, 3))
    logits.attach_grad()
    with mx.autograd.record():
        value = loss(logits, mx.nd.array([label]))
    value.backward()
    found = logits.grad.asnumpy()[0].round(2)
    print(f"label {label:4}: loss {value.asscalar():.4f}, gradient {found}")
    return found


first, ignored, minus_one, last, too_large = (gradient(label) for label in (0, -100, -1, 2, 5000))
assert first[0] < 0 and last[2] < 0
assert (ignored == first).all() and (minus_one == first).all(), "the behaviour has changed"
assert (too_large == last).all(), "the behaviour has changed"
EOF
