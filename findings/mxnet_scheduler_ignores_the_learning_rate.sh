#!/usr/bin/env bash
# MXNet: with PolyScheduler or CosineScheduler, Trainer's learning_rate has no effect, although the log says that it has.
#
# Guess: Trainer(..., {'learning_rate': 0.5, 'lr_scheduler': scheduler}) starts at 0.5. The optimizer even logs that
# learning_rate has replaced the scheduler's.
# What happens: these two schedulers of MXNet 1.9.1 copy their base_lr, 0.01 unless it is given, when they are made. The
# optimizer replaces base_lr later, and they compute from the copy. FactorScheduler has no copy and does start at 0.5.
# It matters to whoever moves from FactorScheduler to the cosine or linear decay that language models are trained with.
# Training runs at a learning rate that no one chose, 50 times lower here. Pass base_lr to the scheduler.
#
# Output on 2026-11-28:
#   mxnet 1.9.1, numpy 1.23.5
#   FactorScheduler: Trainer says 0.5, the first step moved the weight by 0.5
#   PolyScheduler: Trainer says 0.01, the first step moved the weight by 0.009801
#   CosineScheduler: Trainer says 0.01, the first step moved the weight by 0.009998
#   log: learning rate from ``lr_scheduler`` has been overwritten by ``learning_rate`` in optimizer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5

venv/bin/python -W ignore - <<'EOF'
import contextlib
import io

import mxnet as mx
import numpy as np

print(f"mxnet {mx.__version__}, numpy {np.__version__}")
asked, log = 0.5, io.StringIO()


def first_step(scheduler):
    weight = mx.gluon.Parameter("weight", shape=(1,), init="zeros")
    weight.initialize()
    options = {"learning_rate": asked, "lr_scheduler": scheduler}
    with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
        trainer = mx.gluon.Trainer([weight], "sgd", options, kvstore=None)
    says = trainer.learning_rate
    with mx.autograd.record():
        weight.data().sum().backward()
    trainer.step(1)
    moved = abs(weight.data().asscalar())
    print(f"{type(scheduler).__name__}: Trainer says {says}, the first step moved the weight by {moved:.4g}")
    return moved


factor = first_step(mx.lr_scheduler.FactorScheduler(step=1000))
poly = first_step(mx.lr_scheduler.PolyScheduler(max_update=100))
cosine = first_step(mx.lr_scheduler.CosineScheduler(max_update=100))
print("log:", log.getvalue().splitlines()[-1] if log.getvalue() else "nothing")
assert abs(factor - asked) < 1e-6
assert poly < 0.011 and cosine < 0.011, "the behaviour has changed"
EOF
