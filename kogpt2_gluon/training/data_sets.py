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

MOST_SOURCES = 20  # that a record names; it counts all


def facts_of_data(recipe: Recipe) -> list[dict[str, Any]]:
    """Returns the facts of each set of text that a recipe names, as plain data; less of those that are not shards."""
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


def _cleaning(corpus: Path) -> dict[str, Any]:
    """Returns what cleaning read, kept and dropped, if the corpus is still where the shards were made from."""
    try:
        about = json.loads(read_file(corpus / CORPUS_FILE, 16 << 20))
        counts, sources = about["counts"]["documents"], about["sources"]
        cleaning = {
            "corpus": str(corpus),
            "read": counts["read"],
            "dropped": {reason: count for reason, count in counts["dropped"].items() if count},
            "kept": counts["kept"],
            "changed": about["counts"]["changed"],
            "test_share": about.get("test_share"),
            "filters": {name: own for name, each in about["options"].items() if (own := _in_use(each)) is not None},
            "sources": [{key: one.get(key) for key in ("path", "bytes")} for one in sources[:MOST_SOURCES]],
            "num_sources": len(sources),
        }
        return {"cleaning": cleaning}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _in_use(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the settings of a step of cleaning, without long lists of phrases; None if it was switched off."""
    own = {key: value for key, value in settings.items() if key != "enabled" and not isinstance(value, list)}
    return own if settings.get("enabled", bool(own)) else None
