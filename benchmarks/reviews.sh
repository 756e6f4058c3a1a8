#!/usr/bin/env bash
# The real-text benchmark: clean to convert over a file of one document a line, an hour of training on two cores
# (recipes/small_cpu.yaml), and Kneser-Ney n-gram models of the same tokens to compare with.
# Usage: benchmarks/reviews.sh TEXT [DIR [key=value ...]]     `kogpt2 train` gets the key=value words.
set -euo pipefail
[ -f "${1:-}" ] || { echo "usage: benchmarks/reviews.sh TEXT [DIR [key=value ...]], TEXT a file of one document a line" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
bin=$here/../.venv/bin
text=$(realpath "$1")
work=${2:-bench-reviews}
shift $(($# < 2 ? $# : 2))
mkdir -p "$work"
cd "$work"

"$bin/kogpt2" clean "$text" --documents line --out corpus --test-share 0.02
"$bin/kogpt2" tokenizer corpus --vocab-size 8000 --out tokenizer.model
"$bin/kogpt2" shard corpus --tokenizer tokenizer.model --out shards
"$bin/python" "$here/ngram_baseline.py" shards/train shards/test --order 2 --order 3
"$bin/kogpt2" train small_cpu tracking.run_dir=run "$@"
"$bin/kogpt2" evaluate run shards/test
for prompt in "이 영화는" "배우들의 연기가" "솔직히"; do
    "$bin/kogpt2" generate run "$prompt" -n 4 --temperature 0.8 --top-p 0.95 --max-new-tokens 40
done
"$bin/kogpt2" convert run huggingface
"$bin/python" "$here/curve.py" run shards/train shards/test --out curve.svg
