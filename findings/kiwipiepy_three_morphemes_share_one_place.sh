#!/usr/bin/env bash
# kiwipiepy: three morphemes of a contracted word can have the same start, and their places overlap.
#
# Guess: the morphemes of a sentence lie one after another: start and len of each cut the text into pieces.
# What happens: in 뭔데 (뭐 + 이 + ㄴ데, "what is it then") all three morphemes start at 0, and 뭐 and 이 both lie on 뭔. In
# 너야 the copula 이 has no length at all.
# It matters to whoever labels tokens of a Korean corpus by position (names, parts of speech, highlighting): text[start:
# start + len] gives the same syllable two or three times, and sorting by start does not keep the order.
#
# Output on 2026-11-28:
#   kiwipiepy 0.24.1, kiwipiepy_model 0.24.0
#   뭔데: 뭐/NP = text[0:1] '뭔', 이/VCP = text[0:1] '뭔', ㄴ데/EF = text[0:2] '뭔데'
#   접니다: 저/NP = text[0:1] '접', 이/VCP = text[0:1] '접', ㅂ니다/EF = text[0:3] '접니다'
#   너야: 너/NP = text[0:1] '너', 이/VCP = text[1:1] '', 야/EF = text[1:2] '야'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check kiwipiepy==0.24.1 kiwipiepy_model==0.24.0

venv/bin/python -W ignore - <<'EOF'
from importlib.metadata import version

from kiwipiepy import Kiwi

print(f"kiwipiepy {version('kiwipiepy')}, kiwipiepy_model {version('kiwipiepy_model')}")
kiwi = Kiwi()
starts, lengths = {}, {}
for text in ("뭔데", "접니다", "너야"):
    tokens = kiwi.tokenize(text)
    shown = [f"{t.form}/{t.tag} = text[{t.start}:{t.start + t.len}] {text[t.start:t.start + t.len]!r}" for t in tokens]
    print(f"{text}: " + ", ".join(shown))
    starts[text], lengths[text] = [t.start for t in tokens], [t.len for t in tokens]
assert starts["뭔데"] == starts["접니다"] == [0, 0, 0], "the behaviour has changed"
assert 0 in lengths["너야"], "the behaviour has changed"
EOF
