"""Targets: files of prompts, and the lines that `kogpt2 generate` goes on with."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from kogpt2_gluon.cli.generate_file import Continuation
from kogpt2_gluon.cli.prompt_file import PromptFile
from kogpt2_gluon.storage.growing_lines import GrowingLines
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, train
from tests.fuzz.target import Target
from tests.fuzz.task_files import made, mutate_lines

PROMPTS = '{"prompt": "오늘은", "id": 1, "max_new_tokens": 3}\n\n{"id": "b", "prompt": "", "stop": ["."], "top_p": 1}\n'
LINES = [{"line": 1, "prompt": "가", "texts": ["가 나"], "fingerprint": "0123456789abcdef"}, {"fingerprint": 1}]
OPTIONS: dict[str, Any] = {"long_prompts": "refuse", "precision": "float32", "weights": None}


@functools.cache
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(train(OWN_SENTENCES * 20, 400), Path("small.model"))


def read_prompts(path: Path) -> None:
    """Checks a file of prompts, as before the first text is written."""
    PromptFile(path, str(path), {"bad_words": ["가"]}, tokenizer()).check()


def read_lines(path: Path) -> None:
    """Compares lines that are there with a file of prompts."""
    prompts = path.parent / "prompts.txt"
    prompts.write_text("가\n나\n", encoding="utf-8")
    file = PromptFile(prompts, str(prompts), {}, tokenizer())
    with GrowingLines(path) as lines:
        Continuation(None, file, {}, OPTIONS, "0").compare(lines)


TARGETS = [
    Target("prompts", "prompts", made(PROMPTS, "오늘은\r\n\r\n이 영화는\n"), read_prompts, mutate_lines, share=2),
    Target(
        "texts",
        "texts.jsonl",
        made("".join(f"{json.dumps(line)}\n" for line in LINES), "half"),
        read_lines,
        mutate_lines,
        share=2,
    ),
]
