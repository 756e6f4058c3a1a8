#!/usr/bin/env bash
# Horovod: `horovodrun -np 1 -H localhost:3` starts three workers.
#
# Guess: -np is the number of workers, and -H says how many each host could take, as with mpirun.
# What happens: with Gloo, horovodrun 0.28.1 starts one worker for every slot of -H and ignores a smaller -np.
# It matters to whoever tries one worker, or half of a node, with the host list of the whole cluster. The total batch, the
# learning rate scaled by it and the bill are those of all slots, and the run looks fine.
#
# Output on 2026-11-28:
#   horovod 0.28.1, mxnet 1.9.1
#   -np 1 -H localhost:3: 3 workers, each says that there are 3
#   -np 2 -H localhost:3: 3 workers, each says that there are 3
#   -np 1 -H localhost:1: 1 workers, each says that there are 1
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

hvd.init()
print(f"worker {hvd.rank()} of {hvd.size()}", flush=True)
hvd.shutdown()
EOF
venv/bin/python -W ignore -c 'import horovod, mxnet; print(f"horovod {horovod.__version__}, mxnet {mxnet.__version__}")'
for case in "1 3" "2 3" "1 1"; do
  read -r asked slots <<< "$case"
  timeout 120 venv/bin/horovodrun --gloo -np "$asked" -H "localhost:$slots" venv/bin/python -W ignore worker.py > log 2>&1
  started=$(grep -c 'worker [0-9]* of' log)
  size=$(grep -o 'worker [0-9]* of [0-9]*' log | cut -d ' ' -f 4 | sort -u)
  echo "-np $asked -H localhost:$slots: $started workers, each says that there are $size"
  [ "$started" = "$slots" ] && [ "$size" = "$slots" ] || { echo "the behaviour has changed"; exit 1; }
done
