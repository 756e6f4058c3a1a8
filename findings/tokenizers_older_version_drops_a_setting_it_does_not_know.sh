#!/usr/bin/env bash
# tokenizers: an older version loads a newer tokenizer.json, drops the setting it does not know, and gives other ids.
#
# Guess: tokenizer.json has a version, and a file with a setting that a reader does not know is refused, or at least
# loaded with a warning: an unknown key at the top of the file is an error in every version.
# What happens: below the top, in the model, in a pre-tokenizer or with an added token, unknown keys are skipped without
# a word, and saving the file again loses them. "version" is 1.0 in all of them. ignore_merges, which tokenizers 0.19
# added to BPE, is such a key: 0.15.2 loads a file that has it and divides words that are tokens as a whole.
# It matters to whoever trains or serves with an older image than the one that made the tokenizer (Llama 3 has
# ignore_merges), or writes a key of their own or a misspelt one: text gets ids that the network was not trained on.
# Compare the ids of a known text on both sides; a load without an error says nothing.
#
# Output on 2026-11-30:
#   tokenizers 0.23.3 writes version 1.0: abc is [4]
#   tokenizers 0.15.2 loads it: abc is [3, 2]; ignore_merges is in what it saves: False
#   tokenizers 0.23.3, a misspelt use_regexx=false of ByteLevel: loaded; use_regex is true in what it saves
#   tokenizers 0.23.3, an unknown key at the top: refused
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 0.23.3 0.15.2; do
    "${PYTHON:-python3.11}" -m venv "$version"
    "$version/bin/pip" install --quiet --disable-pip-version-check tokenizers==$version
done

0.23.3/bin/python - <<'EOF'
import json

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers

vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}
tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")], ignore_merges=True))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
plain = json.loads(tokenizer.to_str())
plain["model"]["merges"] = ["a b"]  # as versions before 0.20 write them, which all read
with open("tokenizer.json", "w") as file:
    json.dump(plain, file)
ids = Tokenizer.from_file("tokenizer.json").encode("abc").ids
print(f"tokenizers {tokenizers.__version__} writes version {plain['version']}: abc is {ids}")
assert ids == [4]
EOF
0.15.2/bin/python - <<'EOF'
import json

import tokenizers
from tokenizers import Tokenizer

older = Tokenizer.from_file("tokenizer.json")
ids, kept = older.encode("abc").ids, "ignore_merges" in json.loads(older.to_str())["model"]
print(f"tokenizers {tokenizers.__version__} loads it: abc is {ids}; ignore_merges is in what it saves: {kept}")
assert ids == [3, 2] and not kept, "the behaviour has changed"
EOF
0.23.3/bin/python - <<'EOF'
import json

import tokenizers
from tokenizers import Tokenizer

head = f"tokenizers {tokenizers.__version__}"
with open("tokenizer.json") as file:
    plain = json.load(file)
del plain["pre_tokenizer"]["use_regex"]  # it may be missing, and is then true
plain["pre_tokenizer"]["use_regexx"] = False
saved = json.loads(Tokenizer.from_str(json.dumps(plain)).to_str())["pre_tokenizer"]
assert saved["use_regex"] and "use_regexx" not in saved, "the behaviour has changed"
print(f"{head}, a misspelt use_regexx=false of ByteLevel: loaded; use_regex is true in what it saves")
try:
    Tokenizer.from_str(json.dumps({**plain, "own": 1}))
except Exception:
    print(f"{head}, an unknown key at the top: refused")
else:
    raise AssertionError("the behaviour has changed")
EOF
