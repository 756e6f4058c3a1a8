"""Prompts as a task of lm-evaluation-harness: a YAML file and a file of JSON lines, which work without a network.

The harness then computes from the same prompts what `kogpt2 score` computes: acc is "likelihood", acc_bytes "per byte".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kogpt2_gluon.options import to_yaml
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.tasks.shots import Asked


def write_harness_task(folder: Path, name: str, delimiter: str, asked: Sequence[Asked], gold: Sequence[int]) -> Path:
    """Writes the prompts of one draw, `delimiter` being between prompt and answer; returns the YAML file.

    `gold` are the places of the right answers. The data file is named without its folder: `kogpt2 lm-eval` finds it
    next to the YAML file, lm-eval itself in the working folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"context": each.context.rstrip(), "choices": each.answers, "gold": place} for each, place in zip(asked, gold)
    ]
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_file(folder / f"{name}.jsonl", data.encode())
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": delimiter,
        "num_fewshot": 0,
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_bytes")
        ],
    }
    write_file(folder / f"{name}.yaml", to_yaml(task).encode())
    return folder / f"{name}.yaml"
