"""The data of a run on its page: the sets it was trained and scored on, and what cleaning made of the source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from kogpt2_gluon.runs.data_record import DATA_FILE
from kogpt2_gluon.runs.logbook import Entry
from kogpt2_gluon.runs.report_parts import groups, mapping_in, placeholder, remark, section, value_text
from kogpt2_gluon.wording import counted, gigabytes

NAMES = {  # of facts, where the key alone would not do
    "bytes_of_text": "text",
    "unknown": "unknown pieces",
    "name": "task",
    "tokens_a_row": "tokens a row, on average",
    "longest": "tokens of the longest row",
    "cut": "rows cut at the end",
    "most_frequent_label": "most frequent label",
    "share_of_most_frequent_label": "its share of the rows",
}
LEFT_OUT = ("role", "path", "cleaning")  # of a set's facts: they are said elsewhere
OLD_CLEANING = re.compile(r"([\d,]{1,20}) documents read; dropped: (.*)", re.DOTALL)  # a text, in older records
DROPPED = re.compile(r"([\d,]{1,20}) (.+)")
ROWS = re.compile(  # of the start of a fine-tuning; see tasks/encoding.py
    r"(train|dev): ([\d,]+) rows of ([\d.]+) tokens on average, ([\d,]+) at most(?:; ([\d,]+) rows? w)?.*"
)
SHOWN_SOURCES = 12


def sets_of(record: Mapping[str, Any], entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Returns the facts of each set of a run by its data.json; a task's rows by its log where data.json lacks them."""
    found = record.get("sets")
    sets = [dict(one) for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if [one.get("role") for one in sets] != ["task"]:
        return sets
    starts = [entry.text for entry in entries if entry.kind == "start"]
    rows = [match for line in (starts[-1].split("\n") if starts else ()) if (match := ROWS.fullmatch(line))]
    logged = [
        {
            **sets[0],
            "role": "train" if match[1] == "train" else "held-out",
            "rows": int(match[2].replace(",", "")),
            "tokens_a_row": float(match[3]),
            "longest": int(match[4].replace(",", "")),
            "cut": int((match[5] or "0").replace(",", "")),
        }
        for match in rows
        if len(match[2]) < 20 and match[3].count(".") < 2
    ]
    return logged or sets


def in_a_sentence(sets: Sequence[Mapping[str, Any]], epochs: float) -> str:
    """Returns what a run is trained and scored on in a sentence; `epochs` is how often it has read the data."""
    if not sets:
        return f"not on record: there is no {DATA_FILE} in the run folder, or it cannot be read"
    parts = []
    for one in sets:
        facts = [
            _count(one, "rows", "row"),
            _count(one, "documents", "document"),
            _count(one, "tokens", "token"),
            f"{gigabytes(one['bytes_of_text'])} of text" if _is_count(one.get("bytes_of_text")) else "",
        ]
        role = str(one.get("role", "data"))
        name = f"{one['name']}, {role}" if one.get("name") else f"{role} {one.get('path', '')}"
        parts.append(f"{name}: {', '.join(filter(None, facts)) or 'no counts on record'}")
        if role == "train" and epochs > 0 and sum(each.get("role") == "train" for each in sets) == 1:
            parts[-1] += f", read {epochs:.2f} times"
    return "; ".join(parts)


def data_section(record: Mapping[str, Any], sets: Sequence[Mapping[str, Any]]) -> str:
    """Returns a box for each set, and one for each corpus that they were cut from."""
    if not sets:
        text = f"What this run was trained on is not on record: there is no {DATA_FILE} here, or it cannot be read."
        return section("Data", placeholder(text), "data")
    boxes: dict[str, dict[str, Any]] = {}
    for one in sets:
        title = _unique(f"{one.get('role', 'data')}: {one.get('path', '')}", boxes)
        boxes[title] = {_name(key): _shown(key, value) for key, value in one.items() if key not in LEFT_OUT}
    for cleaning, own in _corpora(sets):
        title = _unique("cleaning" + (f": {cleaning.get('corpus')}" if cleaning.get("corpus") else ""), boxes)
        boxes[title] = _cleaning_facts(cleaning, own)
    if record.get("fingerprint"):
        boxes["order of reading"] = {"fingerprint": record["fingerprint"]}
    words = "A fingerprint is a hash: two runs with the same one read the same sequences."
    return section("Data", groups(boxes) + remark(words), "data")


def _corpora(sets: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Returns each cleaning once, with the sets that were made of its corpus."""
    found: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = []
    for one in sets:
        cleaning = _parsed(one.get("cleaning"))
        if cleaning is None:
            continue
        for other, own in found:
            if other == cleaning:
                own.append(one)
                break
        else:
            found.append((cleaning, [one]))
    return found


def _parsed(cleaning: Any) -> Mapping[str, Any] | None:
    """Returns the record of a cleaning; one that is a text, as older runs have it, in the form of today's."""
    if isinstance(cleaning, Mapping):
        return cleaning
    if not isinstance(cleaning, str):
        return None
    if not (match := OLD_CLEANING.fullmatch(cleaning)):
        return {"said": cleaning}
    parts = [DROPPED.fullmatch(part) for part in match[2].split(", ")]
    dropped = {part[2]: int(part[1].replace(",", "")) for part in parts if part and part[1].strip(",")}
    return {"read": int(match[1].replace(",", "") or 0), "dropped": dropped}


def _cleaning_facts(cleaning: Mapping[str, Any], own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the way of the documents, from what was read to what each set has; then sources and filters."""
    if "said" in cleaning:
        return {"documents": cleaning["said"]}
    facts: dict[str, Any] = {"documents read": cleaning.get("read")}
    facts |= {f"dropped, {name}": count for name, count in mapping_in(cleaning, "dropped").items() if count}
    kept = mapping_in(cleaning, "kept")
    if kept:
        facts |= {f"kept, {'held-out' if name == 'test' else name}": count for name, count in kept.items()}
    else:
        facts |= {f"kept, {one.get('role')}": one["documents"] for one in own if "documents" in one}
    if isinstance(share := cleaning.get("test_share"), (int, float)) and share:
        facts["share held out"] = f"{share:.3g}"
    changed = mapping_in(cleaning, "changed")
    facts |= {f"changed by {name.replace('_', ' ')}": count for name, count in changed.items() if count}
    if filters := mapping_in(cleaning, "filters"):
        facts["filters"] = "; ".join(_filter(name, settings) for name, settings in filters.items())
    sources = cleaning.get("sources")
    if isinstance(sources, list) and sources:
        shown = [_source(one) for one in sources[:SHOWN_SOURCES]]
        count = cleaning.get("num_sources")
        more = count - len(shown) if isinstance(count, int) else 0
        facts["source" if len(shown) + more == 1 else "sources"] = "; ".join(shown) + (f"; {more:,} more" * (more > 0))
    return facts


def _filter(name: str, settings: Any) -> str:
    own = [f"{key}={value_text(value)}" for key, value in settings.items()] if isinstance(settings, Mapping) else []
    return f"{name.replace('_', ' ')}{f' ({chr(44).join(own)})' if own else ''}"


def _source(one: Any) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    size = f" ({gigabytes(one['bytes'])})" if _is_count(one.get("bytes")) else ""
    return f"{PurePath(str(one.get('path', ''))).name}{size}"


def _name(key: str) -> str:
    return NAMES.get(key, key.replace("_", " "))


def _shown(key: str, value: Any) -> Any:
    if key == "bytes_of_text" and _is_count(value):
        return gigabytes(value)
    if key.startswith("share") and isinstance(value, float):
        return f"{value:.1%}"
    return value


def _count(one: Mapping[str, Any], key: str, noun: str) -> str:
    return counted(one[key], noun) if _is_count(one.get(key)) else ""


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**18


def _unique(title: str, taken: Mapping[str, Any]) -> str:
    """Returns the title, with a number if there is one like it: a set may be named twice."""
    number = 2
    while title in taken:
        title, number = f"{title.removesuffix(f' ({number - 1})')} ({number})", number + 1
    return title
