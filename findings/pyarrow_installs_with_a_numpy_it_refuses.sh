#!/usr/bin/env bash
# pyarrow and MXNet: pip puts pyarrow 26 next to MXNet's NumPy without a complaint, and it refuses to be imported.
#
# Guess: if pyarrow 26 needs a later NumPy than MXNet 1.9.1 can use, pip says so, or takes the newest pyarrow that fits.
# What happens: pyarrow declares no requirement on NumPy. pip installs both, `pip check` finds nothing wrong, and the import
# fails. pyarrow 25.0.0 works with NumPy 1.23.5.
# It matters to whoever reads Korean corpora from Parquet files in an MXNet environment. NumPy 1.24 removed names that
# MXNet 1.9.1 uses, so NumPy cannot be raised: pin pyarrow to 25.0.0.
#
# Output on 2026-11-28:
#   numpy 1.23.5, pyarrow 26.0.1; pip check: No broken requirements found.
#   import: ImportError: pyarrow requires NumPy 2.0 or newer, found 1.23.5
#   pyarrow 25.0.0: [1, 2]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.23.5 pyarrow==26.0.1

echo "numpy 1.23.5, pyarrow 26.0.1; pip check: $(venv/bin/pip check --disable-pip-version-check)"
if venv/bin/python -c 'import pyarrow' 2> error; then
  echo "imported: the behaviour has changed"
  exit 1
fi
echo "import: $(tail -n 1 error)"
grep -qi numpy error
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.23.5 pyarrow==25.0.0
venv/bin/python -c 'import pyarrow; print(f"pyarrow {pyarrow.__version__}:", pyarrow.array([1, 2]).to_pylist())'
