#!/usr/bin/env bash
# MXNet: the float16 softmax over a vocabulary of 50,000 adds up to 24, not to 1.
#
# Guess: a softmax in float16 is rounded, but its probabilities still add up to about 1.
# What happens: MXNet 1.9.1 keeps the sum of the exponentials in float16 too. There 2,048 + 1 is 2,048, so with equal
# logits the sum stops growing at 2,048. With 50,000 classes each probability is 24 times too large, and the cross-entropy
# is log 2,048 = 7.6 instead of 10.8. A line of the log only recommends MXNET_SAFE_ACCUMULATION=1; with it both are right.
# It matters to whoever trains or evaluates a language model in float16 with MXNet. A new network should have a loss of
# log(vocabulary); here it looks far better than it is. Attention over more than 2,048 positions has the same sum.
#
# Output on 2026-11-28:
#   mxnet 1.9.1, numpy 1.23.5
#   plain: sum over 2048 classes 1.00, over 4096 2.00, over 50000 24.41, loss of 50000 equal logits 7.62 (log: 10.82)
#   MXNET_SAFE_ACCUMULATION=1: sum over 2048 classes 1.00, over 4096 1.00, over 50000 1.00, loss of 50000 equal logits 10.82 (log: 10.82)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5

cat > softmax.py <<'EOF'
import math
import sys

import mxnet as mx

sums = {n: float(mx.nd.softmax(mx.nd.zeros((1, n), dtype="float16")).astype("float64").sum().asscalar())
        for n in (2048, 4096, 50000)}
loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
nats = float(loss(mx.nd.zeros((1, 50000), dtype="float16"), mx.nd.array([0], dtype="float16")).asscalar())
print(f"{sys.argv[1]}: sum over 2048 classes {sums[2048]:.2f}, over 4096 {sums[4096]:.2f}, over 50000 {sums[50000]:.2f},"
      f" loss of 50000 equal logits {nats:.2f} (log: {math.log(50000):.2f})")
if sys.argv[1] == "plain":
    assert 24 < sums[50000] < 25 and nats < 7.7, "the behaviour has changed"
else:
    assert abs(sums[50000] - 1) < 0.01 and abs(nats - math.log(50000)) < 0.02, "the behaviour has changed"
EOF
venv/bin/python -W ignore -c 'import mxnet, numpy; print(f"mxnet {mxnet.__version__}, numpy {numpy.__version__}")'
env -u MXNET_SAFE_ACCUMULATION venv/bin/python -W ignore softmax.py plain
MXNET_SAFE_ACCUMULATION=1 venv/bin/python -W ignore softmax.py MXNET_SAFE_ACCUMULATION=1
