#!/usr/bin/env bash
# MXNet: a Dense layer whose weight is frozen does not train its bias either.
#
# Guess: with grad_req='null' on the weight alone, the bias still gets its gradient, the sum over the batch.
# What happens: on the CPU MXNet 1.9.1 does not write the bias's gradient if nobody asks for the weight's. The gradient keeps
# what was in it before: zeros at first, so the bias never moves, and nothing is reported.
# It matters to whoever fine-tunes only the biases of a network (as in BitFit), or freezes weights layer by layer. The loss
# does not fall, and it looks as if the method did not work.
#
# Output on 2026-11-28:
#   mxnet 1.9.1, numpy 1.23.5
#   weight trained: gradient of the bias [4. 4.]
#   weight frozen:  gradient of the bias [0. 0.]
#   gradient that held 7 before: [7. 7.]
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
data = mx.nd.ones((4, 3))


def bias_gradient(weight_grad_req, before=0):
    layer = mx.gluon.nn.Dense(2, in_units=3)
    layer.initialize(ctx=mx.cpu())
    layer.weight.grad_req = weight_grad_req
    layer.bias.grad()[:] = before
    with mx.autograd.record():
        result = layer(data)
    result.backward()
    return layer.bias.grad().asnumpy()


trained, frozen, stale = bias_gradient("write"), bias_gradient("null"), bias_gradient("null", before=7)
print("weight trained: gradient of the bias", trained)
print("weight frozen:  gradient of the bias", frozen)
print("gradient that held 7 before:", stale)
assert (trained == 4).all()
assert (frozen == 0).all() and (stale == 7).all(), "the behaviour has changed"
EOF
