#!/usr/bin/env bash
# MXNet: a score of PearsonCorrelation and of F1 depends on the batch size.
#
# Guess: after update() with all batches, get() returns the score of all rows. Accuracy does, and so do the metrics of the
# same names in scikit-learn and SciPy, where average='macro' means the mean over classes.
# What happens: in MXNet 1.9.1 both metrics take average='macro' unless it is given, and that is the mean of the
# batches' own scores. Here rows come sorted by length, as rows of a task do when batches are made of similar lengths, and
# longer pairs have higher labels: within a batch there is little to correlate. With average='micro' both are right.
# It matters to whoever evaluates sentence similarity (KorSTS, STS-B) or F1 with these classes: scores change with the batch
# size and the order of the rows, and do not compare with those of others.
#
# Output on 2026-11-30:
#   mxnet 1.9.1, numpy 1.23.5
#   batches of 8:    Pearson 0.5634, F1 0.5499
#   batches of 64:   Pearson 0.5855, F1 0.5748
#   batches of 1024: Pearson 0.8295, F1 0.8184
#   NumPy over all rows: 0.8295; micro, batches of 8: Pearson 0.8295, F1 0.8184
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
ROWS = 1024
draw = np.random.RandomState(0)
labels = np.linspace(0, 4, ROWS) + draw.normal(0, 0.6, ROWS)  # in the order of the rows' lengths
found = labels + draw.normal(0, 0.9, ROWS)


def scores(batch_size, **average):
    pearson, f1 = mx.metric.PearsonCorrelation(**average), mx.metric.F1(**average)
    for begin in range(0, ROWS, batch_size):
        rows = slice(begin, begin + batch_size)
        pearson.update([mx.nd.array(labels[rows])], [mx.nd.array(found[rows])])
        yes = (found[rows] > 2).astype(float)
        f1.update([mx.nd.array(labels[rows] > 2)], [mx.nd.array(np.stack([1 - yes, yes], 1))])
    return pearson.get()[1], f1.get()[1]


results = {size: scores(size) for size in (8, 64, ROWS)}
for size, (pearson, f1) in results.items():
    print(f"{f'batches of {size}:':<17}Pearson {pearson:.4f}, F1 {f1:.4f}")
truth, (pearson, f1) = np.corrcoef(labels, found)[0, 1], scores(8, average="micro")
print(f"NumPy over all rows: {truth:.4f}; micro, batches of 8: Pearson {pearson:.4f}, F1 {f1:.4f}")
assert abs(results[ROWS][0] - truth) < 1e-4 and abs(pearson - truth) < 1e-4, "the behaviour has changed"
assert results[8][0] < 0.75 * truth and results[8][1] < results[ROWS][1] - 0.1, "the behaviour has changed"
EOF
