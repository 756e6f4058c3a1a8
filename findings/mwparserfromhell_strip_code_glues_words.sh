#!/usr/bin/env bash
# mwparserfromhell: strip_code() puts words together that a page shows on two lines or in two cells.
#
# Guess: the plain text of "서울<br>부산" has a space or a line end between the two cities, and so has that of a table's row.
# What happens: strip_code() of mwparserfromhell 0.7.2 removes the tag and puts nothing in its place: 서울부산. The cells of a
# row are joined too. A footnote stays and is glued to the sentence before it.
# It matters to whoever makes a corpus from the Korean Wikipedia. Korean writes compounds without a space, so 서울부산 looks
# like a word, passes every filter and goes into the tokenizer's vocabulary. Replace these tags before stripping.
#
# Output on 2026-11-28:
#   mwparserfromhell 0.7.2
#   '서울<br>부산<br/>대구' -> '서울부산대구'
#   '{|\n|서울||부산\n|}' -> '서울부산'
#   '수도이다.<ref>통계청 자료</ref> 인구는' -> '수도이다.통계청 자료 인구는'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mwparserfromhell==0.7.2

venv/bin/python -W ignore - <<'EOF'
import mwparserfromhell

print("mwparserfromhell", mwparserfromhell.__version__)
found = {}
for text in ("서울<br>부산<br/>대구", "{|\n|서울||부산\n|}", "수도이다.<ref>통계청 자료</ref> 인구는"):
    found[text] = mwparserfromhell.parse(text).strip_code()
    print(f"{text!r} -> {found[text]!r}")
lines, cells, note = found.values()
assert lines == "서울부산대구", "the behaviour has changed"
assert cells.strip() == "서울부산", "the behaviour has changed"
assert "이다.통계청" in note, "the behaviour has changed"
EOF
