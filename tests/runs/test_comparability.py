"""Which runs compare, said in words, on the page and by `kogpt2 runs`."""

from __future__ import annotations

import json
from pathlib import Path

from kogpt2_gluon.runs.comparability import held_out_of, notes_on, vocabularies_of
from kogpt2_gluon.runs.differences import differences_of
from kogpt2_gluon.runs.names import names_of
from kogpt2_gluon.runs.run_folder import open_run
from kogpt2_gluon.training.leaderboard import rank
from tests.helpers import kogpt2
from tests.runs.report_helpers import add_data, make_run, make_task_run

TEST = "data.test=shards/test"


def notes(*paths: Path) -> dict[str, str]:
    runs = [open_run(path) for path in paths]
    return dict(notes_on(runs, names_of(runs)))


def test_runs_on_the_same_text_compare_whatever_their_tokenizers(tmp_path):
    a = add_data(make_run(tmp_path / "a", settings=(TEST,)), tokenizer="a", prints="1")
    b = add_data(make_run(tmp_path / "b", settings=(TEST,)), tokenizer="b", prints="2")
    assert held_out_of([open_run(a), open_run(b)]) == ["100 documents of 5,000 bytes"] * 2
    (heading,) = found = notes(a, b)
    assert heading.startswith("Different vocabularies: losses and perplexities")
    assert found[heading] == f"4,000 tokens, sha256 {'a' * 16}: a; 4,000 tokens, sha256 {'b' * 16}: b"
    c = add_data(make_run(tmp_path / "c", settings=(TEST,)), tokenizer="a", prints="1")
    assert notes(a, c) == {}


def test_shards_of_one_size_and_tokenizer_with_two_fingerprints_may_be_two_texts(tmp_path):
    paths = [add_data(make_run(tmp_path / name, settings=(TEST,)), prints=name) for name in ("one", "two")]
    (heading,) = found = notes(*paths)
    assert heading == "Different held-out data, so bits per byte does not rank these runs against each other"
    assert found[heading] == (
        "100 documents of 5,000 bytes, fingerprint one: one; 100 documents of 5,000 bytes, fingerprint two: two"
    )


def test_data_that_is_not_on_record_is_said_to_be_unknown(tmp_path):
    a, b = (make_run(tmp_path / name, settings=(TEST,)) for name in ("a", "b"))
    assert notes(a, b) == {}, "the same path"
    add_data(a)
    (heading,) = found = notes(a, b)
    assert heading == "Perhaps different held-out data, so bits per byte may not rank these runs against each other"
    assert found[heading].endswith("shards/test (what was in it is not on record): b")
    assert vocabularies_of([open_run(a), open_run(b)]) == ["4,000 tokens"] * 2
    record = json.loads((a / "data.json").read_text())
    record["sets"][1]["path"] = "another"
    (a / "data.json").write_text(json.dumps(record))
    assert notes(a, b) == {}, "a record of another set is none"
    for damaged in ("[1]", "{", '{"sets": 3}', '{"sets": [{"role": "held-out", "path": "shards/test"}, 5]}'):
        (a / "data.json").write_text(damaged)
        assert notes(a, b) == {}


def test_evaluations_that_are_made_in_different_ways(tmp_path):
    a = make_run(tmp_path / "a", settings=("evaluation.max_sequences=256",))
    b = make_run(tmp_path / "b", settings=("data.seq_length=64",))
    found = notes(a, b)
    assert [text for heading, text in found.items() if "mid-run" in heading] == ["256 sequences: a; all: b"]
    assert [text for heading, text in found.items() if "longer contexts" in heading] == ["128 tokens: a; 64 tokens: b"]


def test_many_runs_are_counted(tmp_path):
    paths = [make_run(tmp_path / f"{number:02}", 20) for number in range(9)]
    task = make_task_run(tmp_path / "task", "nsmc", "accuracy", 0.5, 0.8)
    assert list(notes(*paths, task).values()) == ["bits per byte: 00, 01, 02, 03 and 5 more; accuracy of nsmc: task"]


def test_differences_in_the_order_of_what_matters(tmp_path):
    settings = ("training.learning_rate=0.5", "model.dropout=0.3", "checkpoint.interval=7", TEST)
    a, b = add_data(make_run(tmp_path / "a", settings=(TEST,))), make_run(tmp_path / "b", settings=settings)
    found = differences_of([open_run(a), open_run(b)])
    assert list(found.settings) == ["model.dropout", "training.learning_rate"]
    assert list(found.noise) == ["checkpoint.interval"] and found.data == {"data on record": ["yes", "no"]}
    add_data(b, documents=70, tokenizer="b")
    tokenizers = [f"4,000 tokens, sha256 {letter * 16}" for letter in "ab"]
    assert differences_of([open_run(a), open_run(b)]).data == {
        "train: cleaning": ["100 read", "70 read"],
        "train: tokenizer": tokenizers,
        "held-out: documents": ["100", "70"],
    }
    add_data(b, prints="other")
    assert differences_of([open_run(a), open_run(b)]).data == {"held-out: fingerprint": ["f", "other"]}


def test_the_commands_carry_the_measure_and_the_notes(tmp_path):
    text = add_data(make_run(tmp_path / "text", settings=(TEST,)))
    task = make_task_run(tmp_path / "task", "nsmc", "accuracy", 0.5, 0.85)
    shown = kogpt2("runs", "compare", text, task).stdout
    (best,) = [line for line in shown.splitlines() if line.startswith("best held-out")]
    assert best.split()[2:] == [f"{(3 + 7 / 60) / 3:.4f}", "bits", "per", "byte", "0.8500", "accuracy"]
    assert "Different tasks or figures" in shown and "accuracy of nsmc: task" in shown
    lines = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert lines.index("data.test") < lines.index("best") and "training.init_from" not in lines
    plain = json.loads(kogpt2("runs", "compare", text, task, "--json").stdout)
    assert len(plain["notes"]) == 1 and plain["runs"][1]["best_step"] == 40
    assert plain["data"] == {"data on record": ["yes", "no"]}


def test_a_list_of_runs_says_what_untrained_networks_are(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    untrained = make_run(tmp_path / "untrained", settings=("tracking.run_dir=x",))
    line = {"kind": "evaluation", "step": 0, "time": 1.7e9 + 60, "seconds": 1.5, "bits_per_byte": 2.569, "loss": 9.4}
    (untrained / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    from_another = make_run(tmp_path / "from-another", settings=("training.init_from=x",))
    (from_another / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    make_run(tmp_path / "trained")
    shown = kogpt2("runs", "list", tmp_path).stdout
    head, *rows = [line.split() for line in shown.splitlines()]
    assert head == ["run", "state", "step", "best", "started", "time"]
    words = {Path(row[0]).name: row[3:] for row in rows}
    assert words["untrained"] == ["untrained", "2.5690", "bits", "per", "byte", "2023-11-14", "22:14", "2s"]
    assert words["from-another"][:2] == ["start", "2.5690"]
    assert words["trained"] == [f"{(3 + 7 / 60) / 3:.4f}", "bits", "per", "byte", "2023-11-14", "22:13", "30s"]
    runs = [open_run(tmp_path / name) for name in ("untrained", "trained")]
    assert [[run.path.name for run in ranked] for ranked in rank(runs).values()] == [["trained"]]


def test_a_fork_began_when_it_went_on(tmp_path):
    fork = make_run(tmp_path / "fork")
    assert open_run(fork).started == 1.7e9 + 0.5
    lines = [json.loads(line) for line in (fork / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["time"] += 5000 * (line["step"] > 40)
    (fork / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (fork / "parent.json").write_text(json.dumps({"run": "x", "step": 40}))
    assert open_run(fork).started == 1.7e9 + 5041 - 0.5
