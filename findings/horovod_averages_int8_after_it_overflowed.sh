#!/usr/bin/env bash
# Horovod: the average of 100 and 100 is -28, if they are int8.
#
# Guess: allreduce(average=True) of two workers that both hold 100 gives 100, in every type that it accepts.
# What happens: Horovod 0.28.1 adds up in the type of the array. 100 + 100 wraps around to -56 in int8, and half of that is
# -28. No error is raised. In int32 the result is 100.
# It matters to whoever compresses gradients or counts tokens in small integers to save bandwidth. An average looks safe,
# because it is never larger than its largest value; here its sign is wrong. uint8 wraps in the same way.
#
# Output on 2026-11-28:
#   horovod 0.28.1, mxnet 1.9.1
#   two workers hold 100 each: average in int8 -28, in uint8 of 200 each 72, in int32 100
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


def average(value, dtype):
    array = mx.nd.array([value], dtype=dtype)
    return int(hvd.allreduce(array, average=True, name=f"{dtype}").asscalar())


small, unsigned, large = average(100, "int8"), average(200, "uint8"), average(100, "int32")
if hvd.rank() == 0:
    print(f"two workers hold 100 each: average in int8 {small}, in uint8 of 200 each {unsigned}, in int32 {large}")
assert large == 100
assert small == -28 and unsigned == 72, "the behaviour has changed"
EOF
venv/bin/python -W ignore -c 'import horovod, mxnet; print(f"horovod {horovod.__version__}, mxnet {mxnet.__version__}")'
timeout 120 venv/bin/horovodrun --gloo -np 2 venv/bin/python -W ignore worker.py > log 2>&1 || { cat log; exit 1; }
grep -o 'two workers.*' log
