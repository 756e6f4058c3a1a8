#!/usr/bin/env bash
# SentencePiece: a list of one text takes many times as long to encode as the text, because each list makes threads.
#
# Guess: encode([text]) and encode(text) do the same work, and num_threads=1 means no thread but the caller's.
# What happens: for every list the wrapper makes a pool of num_threads threads (all processors by default), hands the
# texts over, and ends the pool. With SentencePiece 0.2.3 a list of one short sentence takes tens of times as long as
# the sentence itself, with num_threads=1 too; a new thread is seen for each call. A list of a thousand hides it.
# It matters to a service, which gets prompts one at a time: code that "always passes a list" spends more time on making
# threads than on the tokens, and while these wait for the interpreter's lock, other requests wait as well.
# The way out: pass a str where there is one text.
#
# Output on 2026-11-30:
#   sentencepiece 0.2.3
#   the same ids: True
#   a list of one, num_threads=1, takes more than 5 times as long as the text: True
#   threads made by 100 lists of one, num_threads=1: at least 100: True; by 100 texts: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sentencepiece==0.2.3

venv/bin/python - <<'EOF'
import io
import os
import random
import time
from importlib.metadata import version

import sentencepiece

print("sentencepiece", version("sentencepiece"))
draw = random.Random(0)
syllables = [chr(0xAC00 + 28 * 21 * draw.randrange(19) + 28 * draw.randrange(21)) for _ in range(60)]
words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(400)]
lines = [" ".join(draw.choices(words, k=8)) for _ in range(2000)]
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=400, minloglevel=2
)
processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
text = lines[0]


def as_list():
    return processor.encode([text], out_type=int, num_threads=1)


def alone():
    return processor.encode(text, out_type=int)


def seconds(call):
    begin = time.perf_counter()
    for _ in range(1000):
        call()
    return time.perf_counter() - begin


def newest_thread():
    """Returns a number that grows with each process or thread of the machine."""
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    return child


def threads_made(call):
    before = newest_thread()
    for _ in range(100):
        call()
    return newest_thread() - before - 1


print("the same ids:", as_list()[0] == alone())
ratio = min(seconds(as_list) for _ in range(5)) / min(seconds(alone) for _ in range(5))
print("a list of one, num_threads=1, takes more than 5 times as long as the text:", ratio > 5)
lists, texts = threads_made(as_list), min(threads_made(alone) for _ in range(20))
print(f"threads made by 100 lists of one, num_threads=1: at least 100: {lists >= 100}; by 100 texts: {texts}")
assert ratio > 5 and lists >= 100 and texts == 0 and as_list()[0] == alone(), (ratio, lists, texts)
EOF
