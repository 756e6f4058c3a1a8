"""Targets: files of tasks: tables, CSV, labels of characters, JSON, and a person's own description of a table."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from kogpt2_gluon.runs.checkpoint import Checkpoint
from kogpt2_gluon.runs.saved_task import saved_task
from kogpt2_gluon.tasks.loading import check_row, open_task
from kogpt2_gluon.tasks.new_rows import NewRows
from kogpt2_gluon.tasks.public import PUBLIC
from tests.fuzz.mutate import mutate_json, text_mutator
from tests.fuzz.target import Target

WORDS = ["\t", "\n", "\r\n", '"', '""', "\ufeff", "\0", "0", "1", "5.0", "-1", "nan", "NS", "neutral", "none", "hate"]
WORDS += [
    "B-PS",
    "I-PS",
    "O",
    "##",
    "[",
    "]",
    " : ",
    "[date : 내일]",
    "question1",
    "document",
    "label",
    "score",
    "가 나",
]
SENTENCE = "비행기가 이륙하고 있다."
TABLES = {
    "nsmc": "id\tdocument\tlabel\n1\t재미있어요\t1\n2\t\t0\n",
    "korsts": f"genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\na\tb\tc\td\t4.5\t{SENTENCE}\t{SENTENCE}\n",
    "pawsx": f"id\tsentence1\tsentence2\tlabel\n1\t{SENTENCE}\tNS\t1\n2\t{SENTENCE}\t가\t0\n",
    "3i4k": "0\t만화\r\n6\t누가 너 알고 있어",
    "klue-ner": "## 주석 : ##\n서\tB-LC\n울\tI-LC\n \tO\n#\tO\n\n1\tB-QT\n",
}
UTTERANCE = {
    "locale": "ko-KR",
    "partition": "train",
    "intent": "alarm_set",
    "utt": "내일 깨워",
    "annot_utt": "[date : 내일] 깨워",
}
SESSIONS = [[{"guid": f"a-S{n}", "memory": ["가"] * (n - 1), "summary": ["나"]} for n in (1, 2, 3)]]
STATE = {
    "step": 4,
    "task": {
        "name": "massive",
        "head": "joint",
        "labels": ["alarm_set", "news_query"],
        "kinds": ["date"],
        "is_pair": False,
        "value_range": [0.0, 0.0],
    },
}
OWN = (
    "name: a\nhead: classification\nlabels: [0, 1]\nwords: [가, 나]\ntext: 글\nlabel: 답\nfiles: {train: b.tsv}\n",
    "name: a\nhead: regression\nlowest: -1\nhighest: 1e0\nheader: false\ntext: 1\nlabel: 2\nfiles: {train: b}\n",
    "name: a\nhead: token labels\nformat: words\ndelimiter: space\nlabels: [PS]\nfiles: {train: b, dev: c}\n",
)


def reader(name: str) -> Callable[[Path], None]:
    """Returns a reader of a task's rows, which checks them."""
    task = PUBLIC[name]

    def read(path: Path) -> None:
        for row in task.read(path, len):
            check_row(task, row)

    return read


def read_saved_task(path: Path) -> None:
    """Reads the task in the state of a checkpoint."""
    task = saved_task(Checkpoint(path.parent, {}).state(), path)
    assert task is None or len({*task.labels, *task.tag_names}) >= 0


def made(*texts: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [text.encode() for text in texts]


def mutate_lines(draw: random.Random, data: bytes) -> bytes:
    """Changes the values of one of the objects, each in a line, or their text."""
    lines = data.split(b"\n")
    if not draw.randrange(3):
        return text_mutator(WORDS)(draw, data)
    at = draw.randrange(len(lines))
    lines[at] = mutate_json(draw, lines[at]).replace(b"\n", b" ")
    return b"\n".join(lines)


TARGETS = [
    *(
        Target(f"task-{name}", "rows.tsv", made(text), reader(name), text_mutator(WORDS), share=2)
        for name, text in TABLES.items()
    ),
    Target(
        "task-csv",
        "rows.csv",
        made('\ufeffid,question1,question2,is_duplicate,\r\n1,"4월, 이별",가,1,\r\n2,나,"다""라",0,\r\n'),
        reader("question-pair"),
        text_mutator([*WORDS, ",", ";"]),
        share=2,
    ),
    Target(
        "task-json",
        "rows.json",
        made(json.dumps([{"sentence1": "가", "sentence2": "나", "labels": {"real-label": 4.5}}])),
        reader("klue-sts"),
        mutate_json,
        share=2,
    ),
    Target("task-sessions", "rows.json", made(json.dumps(SESSIONS)), reader("carecall-memory"), mutate_json, share=2),
    Target("task-lines", "rows.jsonl", made(json.dumps(UTTERANCE)), reader("massive"), mutate_lines, share=2),
    Target(
        "new-rows",
        "rows",
        made("가\t나\n다\t라\r\n", '{"text": "가", "text_2": "나\\t"}\n\n{"text": "다", "text_2": "라"}\n'),
        lambda path: sum(1 for _ in NewRows(path, PUBLIC["korsts"])),
        mutate_lines,
        share=2,
    ),
    Target("saved-task", "state.json", made(json.dumps(STATE)), read_saved_task, mutate_json),
    Target("own-task", "own.yaml", made(*OWN), lambda path: open_task(str(path)), text_mutator([*WORDS, ": ", "- "])),
]
