#!/usr/bin/env bash
# The core on other Pythons: installed from setup.py's bounds (no constraints), imported, and trained for a few steps.
# Usage: tests/install/pythons.sh 3.9 3.10     Each Python must be on the PATH or under pyenv.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

find_python() {  # the newest interpreter of a version: pyenv's own, else the PATH's
    local version=$1 found
    found=$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python 2>/dev/null | sort -V | tail -n 1 || true)
    [ -n "$found" ] || found=$(command -v "python$version" || true)
    [ -n "$found" ] || { echo "Python $version is not here" >&2; exit 1; }
    echo "$found"
}

for version in "$@"; do
    python=$(find_python "$version")
    venv=$work/$version
    echo "== Python $version: install"
    "$python" -m venv "$venv"
    # A copy of the source: the build must not leave its traces in the checkout.
    mkdir "$work/source-$version"
    git -C "$root" ls-files -z | tar -C "$root" --null -T - -c | tar -x -C "$work/source-$version"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$work/source-$version[cpu]"
    cd "$work"
    echo "== Python $version: import, then the demo's stages with three training steps"
    w=work-$version
    mkdir "$w"
    "$venv/bin/python" -c "import sys, pathlib; from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
write_sample_corpus(pathlib.Path(sys.argv[1]), num_bytes=300_000)" "$w/text.txt"
    "$venv/bin/kogpt2" clean "$w/text.txt" --documents line --test-share 0.05 --out "$w/corpus"
    "$venv/bin/kogpt2" tokenizer "$w/corpus" --vocab-size 1000 --out "$w/tokenizer.model"
    "$venv/bin/kogpt2" shard "$w/corpus" --tokenizer "$w/tokenizer.model" --out "$w/shards"
    "$venv/bin/kogpt2" train debug_cpu training.num_steps=3 model.vocab_size=1000 evaluation.max_sequences=8 \
        tracking.run_dir="$w/run" data.train="$w/shards/train" data.test="$w/shards/test"
    "$venv/bin/kogpt2" generate "$w/run" 오늘은 --max-new-tokens 8 >/dev/null
    "$venv/bin/kogpt2" convert "$w/run" "$w/converted"
    "$venv/bin/kogpt2-launch" plan debug_cpu --hosts localhost:1 >/dev/null
    echo "== Python $version: as it should be"
done
