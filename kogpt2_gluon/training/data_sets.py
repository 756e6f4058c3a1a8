"""The facts about the data of a run: the sizes of its sets, their tokenizer, and what cleaning dropped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.corpus.store import CORPUS_FILE
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.shards.format import Manifest
from kogpt2_gluon.storage.links import read_file


def facts_of_data(recipe: Recipe) -> list[dict[str, Any]]:
    """Returns the facts of each set that a recipe names, as plain data; less of those that are not shards."""
    if recipe.task.name:
        return [{"role": "task", "path": recipe.task.data, "name": recipe.task.name}]
    data = recipe.data
    weights: Sequence[float | None] = data.train_weights or [None] * len(data.train_sets)
    train = [
        {"role": "train", "path": path, **({"weight": weight} if weight else {}), **_facts(path, data.source)}
        for path, weight in zip(data.train_sets, weights)
    ]
    return train + ([{"role": "held-out", "path": data.test, **_facts(data.test, "shards")}] if data.test else [])


def _facts(path: str, source: str) -> dict[str, Any]:
    if source != "shards":
        return {"kind": "text"}
    with contextlib.suppress(KoGPT2Error, OSError):
        manifest = Manifest.load(Path(path))
        return {
            "documents": manifest.documents,
            "tokens": manifest.tokens,
            "bytes_of_text": manifest.text_bytes,
            "unknown": f"{manifest.unknown / max(manifest.tokens, 1):.3%} of the tokens",
            "tokenizer": f"{manifest.vocab_size:,} tokens, sha256 {manifest.tokenizer_sha256[:16]}",
            "fingerprint": manifest.fingerprint()[:16],
            **_cleaning(Path(manifest.source)),
        }
    return {}


def _cleaning(corpus: Path) -> dict[str, str]:
    """Returns what cleaning read, kept and dropped, if the corpus is still where the shards were made from."""
    try:
        counts = json.loads(read_file(corpus / CORPUS_FILE, 16 << 20))["counts"]["documents"]
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in counts["dropped"].items() if count)
        return {"cleaning": f"{counts['read']:,} documents read; dropped: {dropped or 'none'}"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
