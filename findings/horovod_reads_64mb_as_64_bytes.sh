#!/usr/bin/env bash
# Horovod: HOROVOD_FUSION_THRESHOLD=64MB is read as 64 bytes, which all but turns tensor fusion off.
#
# Guess: 64MB is understood, or refused with an error.
# What happens: Horovod 0.28.1 reads the digits and ignores the rest, so the threshold is 64 bytes. Sixteen small gradients
# travel in eight operations, as with a threshold of 64, where one would do. No message says so.
# It matters to whoever tunes training on several hosts. A Transformer has a gradient for each bias and each scale, so
# each update costs many round trips, and it looks as if the network were slow. Write 67108864.
#
# Output on 2026-11-28:
#   horovod 0.28.1, mxnet 1.9.1
#   HOROVOD_FUSION_THRESHOLD=67108864: 16 gradients in 1 operations
#   HOROVOD_FUSION_THRESHOLD=64MB: 16 gradients in 8 operations
#   HOROVOD_FUSION_THRESHOLD=64: 16 gradients in 8 operations
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5 setuptools==80.9.0 wheel==0.48.0 cmake==3.27.9 \
  cffi==2.1.1 cloudpickle==3.1.2 psutil==7.2.2 pyyaml==6.0.3 packaging==26.3

# Horovod compiles against the installed MXNet: it needs g++ and some minutes, the first time.
PATH="$folder/venv/bin:$PATH" HOROVOD_WITH_MXNET=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 \
  HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
  venv/bin/pip install --quiet --disable-pip-version-check --no-build-isolation horovod==0.28.1
export OMP_NUM_THREADS=1

cat > worker.py <<'EOF'
import horovod.mxnet as hvd
import mxnet as mx

hvd.init()
gradients = [mx.nd.ones((100,)) for _ in range(16)]
for number, gradient in enumerate(gradients):
    hvd.allreduce_(gradient, name=f"gradient{number}")
mx.nd.waitall()
EOF
venv/bin/python -W ignore -c 'import horovod, mxnet; print(f"horovod {horovod.__version__}, mxnet {mxnet.__version__}")'

operations() {  # the operations of the first worker, from its log: a cycle of 1 s collects all gradients
  HOROVOD_FUSION_THRESHOLD=$1 HOROVOD_CYCLE_TIME=1000 HOROVOD_LOG_LEVEL=trace \
    timeout 120 venv/bin/horovodrun --gloo -np 2 venv/bin/python -W ignore worker.py > log 2>&1
  grep -c '\[0\]: Performing .*gradient' log
}
for threshold in 67108864 64MB 64; do
  count=$(operations $threshold)
  echo "HOROVOD_FUSION_THRESHOLD=$threshold: 16 gradients in $count operations"
  if [ $threshold = 67108864 ]; then [ "$count" -lt 4 ]; else [ "$count" -ge 8 ]; fi ||
    { echo "the behaviour has changed"; exit 1; }
done
