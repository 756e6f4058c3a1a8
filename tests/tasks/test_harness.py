"""One set of prompts by three roads: kogpt2 score, the harness with MXNet, the harness with the converted folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the metrics of tasks")

from kogpt2_gluon.cli.main import main
from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.generation import generate
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.scoring import Request, Scorer
from kogpt2_gluon.tasks.harness import HarnessModel, evaluate_with_harness
from kogpt2_gluon.tasks.harness_tasks import read_task_file
from kogpt2_gluon.tasks.in_context import LIKELIHOOD, PER_BYTE, InContext, InContextOptions
from tests.convert.convert_helpers import make_checkpoint
from tests.helpers import small_disk
from tests.lazy_modules import needed
from tests.tasks.in_context_helpers import PROMPT, TASK, make_tokenizer, rows

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

needed("lm_eval", reason="lm-evaluation-harness is not installed: the extra harness")

POSITIONS = 256
SHOTS = 5


def enlarge(arrays: dict) -> None:
    """More positions and pieces, and layers that matter more than the last token, which a tied embedding repeats."""
    draw = np.random.RandomState(5)
    for name, array in arrays.items():
        if "_layers" in name and array.ndim == 2:
            arrays[name] = draw.normal(0, 0.25, array.shape).astype(np.float32)
    arrays["_pos_embed.weight"] = draw.normal(0, 0.1, (POSITIONS, 96)).astype(np.float32)
    arrays["_embed.weight"] = arrays["_logits_proj.weight"] = draw.normal(0, 0.3, (501, 96)).astype(np.float32)


class Roads(SimpleNamespace):
    """A checkpoint, its converted folder, and prompts as a task file."""


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Roads:
    folder = tmp_path_factory.mktemp("roads")
    make_tokenizer(folder)
    checkpoint = make_checkpoint(
        folder / "checkpoints", (folder / "tokenizer.model").read_bytes(), enlarge, max_length=POSITIONS
    )
    convert_checkpoint(checkpoint, folder / "converted")
    net, tokenizer, _, ctx = load_checkpoint(checkpoint.path, ops="stock")
    options = InContextOptions(shots=(0, SHOTS), draws=1)
    scored, train_rows = rows(24), rows(40, seed=1)
    context = InContext(Scorer(net, ctx), PromptEncoder(tokenizer), TASK, PROMPT, options, scored, train_rows)
    files = context.export(folder / "tasks")
    return Roads(
        folder=folder, checkpoint=checkpoint, net=net, tokenizer=tokenizer, files=files, context=context, scored=scored
    )


def request(*arguments: object) -> Instance:
    """A request as the harness hands it to a model."""
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, arguments, 0)


def likelihoods(found: dict, task: str) -> np.ndarray:
    """(rows, labels)."""
    return np.array([[each[0][0] for each in row["resps"]] for row in found["samples"][task]])


@pytest.fixture(scope="module")
def by_harness(roads: Roads) -> dict:
    return evaluate_with_harness(HarnessModel(roads.net, roads.tokenizer), list(map(str, roads.files)), samples=True)


def test_score_and_the_harness_agree(roads, by_harness):
    scores = roads.context.run()
    for file, shots in zip(roads.files, (0, SHOTS)):
        results = by_harness["results"][file.stem]
        assert results["acc,none"] == pytest.approx(scores.values(shots, LIKELIHOOD, "accuracy")[0])
        assert results["acc_bytes,none"] == pytest.approx(scores.values(shots, PER_BYTE, "accuracy")[0])
        for row, line in zip(roads.scored, file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()):
            prompt = json.loads(line)
            assert TASK.labels[prompt["gold"]] == row.label and row.texts[0] in prompt["context"]
    for (draw, _), file in zip(roads.context._draws(), roads.files):
        asked = roads.context._asker.ask(roads.scored, draw)
        ours = roads.context.values(asked, draw)[LIKELIHOOD]
        np.testing.assert_allclose(likelihoods(by_harness, file.stem), ours, rtol=0, atol=1e-5)


def test_the_harness_with_transformers_agrees(roads, by_harness, transformers: ModuleType):
    """Its own backend, on the folder that `kogpt2 convert` writes; add_bos_token is what puts <s> in front."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(str(roads.folder / "converted"), device="cpu", dtype="float32", batch_size=8, add_bos_token=True)
    tasks = [read_task_file(file) for file in roads.files]
    found = simple_evaluate(theirs, tasks=tasks, torch_random_seed=None, bootstrap_iters=0)
    for file in roads.files:
        difference = np.abs(likelihoods(by_harness, file.stem) - likelihoods(found, file.stem))
        assert difference.max() < 1e-4
        for metric in ("acc,none", "acc_bytes,none"):
            assert found["results"][file.stem][metric] == by_harness["results"][file.stem][metric]

    # Whole texts, one of them longer than the positions; contexts that are empty, and those that end in a space.
    texts = [row.texts[0] for row in rows(3)] + [" ".join(row.texts[0] for row in rows(120, seed=4)), ""]
    ours = HarnessModel(roads.net, roads.tokenizer)
    pairs = [("", "이 영화는"), ("글: 오늘은 ", "날씨가 맑아서"), ("평가:", " 좋다!"), ("평가:", " 별로"), ("가", ".")]
    requests = [request(*pair) for pair in pairs]
    one, other = (each.loglikelihood(requests) for each in (ours, theirs))
    np.testing.assert_allclose([each[0] for each in one], [each[0] for each in other], rtol=0, atol=1e-4)
    assert [each[1] for each in one] == [each[1] for each in other]
    theirs.add_bos_token = False  # else <s> would be there twice
    whole = [request(text) for text in texts]
    one, other = ours.loglikelihood_rolling(whole), theirs.loglikelihood_rolling(whole)
    assert len(roads.tokenizer.encode(texts[3])) > 2 * POSITIONS and other[-1] == 0
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-4)


# ---- what the harness asks a model for -------------------------------------------------------------------------------


def model_of(roads: Roads) -> tuple[HarnessModel, list[str]]:
    said: list[str] = []
    return HarnessModel(roads.net, roads.tokenizer, say=said.append), said


def test_a_context_that_is_too_long_is_cut_on_its_left_and_keeps_the_beginning(roads):
    model, said = model_of(roads)
    long = " ".join(row.texts[0] for row in rows(120, seed=4))
    ids = roads.tokenizer.encode(long)
    answer = roads.tokenizer.encode(f"{long} 좋다!")[len(ids) :]
    found, short = model.loglikelihood([request(long, " 좋다!"), request("가", " 나")])
    kept = [roads.tokenizer.bos_id, *ids[-(POSITIONS - len(answer)) :]]
    (expected,) = Scorer(roads.net).log_likelihoods([Request(np.array(kept, np.int32), np.array(answer, np.int32))])
    assert found[0] == pytest.approx(expected.log_likelihood, abs=1e-5)
    assert said == ["1 context of 2 cut on the left: the network has room for less"] and short[0] < 0


def test_a_piece_across_the_border_is_said(roads):
    model, said = model_of(roads)
    found = model.loglikelihood([request("이 영화는 龘", "鱻")])  # two <unk> in a row are one
    assert found[0][0] < 0 and said == ["1 answer scored with the end of the context, where a piece crosses into it"]
    with pytest.raises(DataError, match="the answer '' adds no token"):
        model.loglikelihood([request("이 영화는", "")])


@pytest.mark.parametrize("context", ["이 영화는", "", "글: 오늘은 날씨가 "])
def test_generated_texts_are_those_of_kogpt2_generate(roads, context):
    model, said = model_of(roads)
    whole = generate(roads.net, roads.tokenizer, context, Sampling(20, temperature=0))[0]
    before = roads.tokenizer.decode(roads.tokenizer.encode(context))
    expected = whole[len(before) :]

    def generated(**settings: object) -> str:
        return model.generate_until([request(context, settings)])[0]

    assert len(expected) > 5
    assert generated(until=[], max_gen_toks=20) == expected
    stop = expected[3:5]
    assert (
        generated(until=[stop], max_gen_toks=20, do_sample=False, temperature=0.0) == expected[: expected.index(stop)]
    )
    assert generated(until=stop, max_gen_toks=20) == expected[: expected.index(stop)]
    assert not said
    drawn = {"until": ["없다"], "max_gen_toks": 20, "do_sample": True, "temperature": 1.5, "top_k": 5, "num_beams": 3}
    assert generated(**drawn) == generated(**drawn) != expected
    assert set(said) == {"generation_kwargs: num_beams without effect"}


def test_many_texts_at_once_are_those_of_each_alone(roads):
    """More than are written at the same time; they end at different places, and come in the order of the requests."""
    model, _ = model_of(roads)
    asked = [
        request(row.texts[0][: 5 + place], {"until": ["다", " "][: place % 3], "max_gen_toks": 3 + place})
        for place, row in enumerate(rows(12, seed=2))
    ]
    assert model.generate_until(asked) == [model.generate_until([each])[0] for each in asked]


def test_generation_fits_the_positions(roads):
    model, said = model_of(roads)
    long = " ".join(row.texts[0] for row in rows(120, seed=4))
    (text,) = model.generate_until([request(long, {"until": ["\n\n\n"], "max_gen_toks": 1000})])
    assert text and len(said) == 2
    assert said[0] == "at most 128 new tokens, not 1000: the network has 256 positions" and "cut on the left" in said[1]
    for settings in ({"max_gen_toks": 0}, {"top_p": 2, "do_sample": True}, {"max_gen_toks": "many"}):
        with pytest.raises(RecipeError):
            model.generate_until([request("가", settings)])


# ---- task files ------------------------------------------------------------------------------------------------------


def test_whole_texts_as_a_task_file(roads, tmp_path, monkeypatch):
    """JSON lines next to the YAML file, wherever the command is run; </s> is not scored."""
    texts = [row.texts[0] for row in rows(6)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "texts.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "texts.yaml").write_text(
        "task: texts\ndataset_path: json\ndataset_kwargs: {data_files: {test: texts.jsonl}}\ntest_split: test\n"
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n"
        "metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(roads.folder)
    model = model_of(roads)[0]
    found = evaluate_with_harness(model, [str(tmp_path / "texts.yaml")])["results"]["texts"]
    total = sum(model.loglikelihood_rolling([request(text) for text in texts]))
    size = sum(len(text.encode()) for text in texts)
    assert found["bits_per_byte,none"] == pytest.approx(-total / math.log(2) / size, rel=1e-4)


def test_an_error_without_a_formula_starts_no_processes_and_leaves_stdout_alone(roads, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("DISABLE_MULTIPROC", raising=False)
    monkeypatch.setattr("multiprocessing.Pool", None)
    text = roads.files[0].read_text(encoding="utf-8").replace("task: ", "task: mcc-")
    text = text[: text.index("metric_list")] + "metric_list: [{metric: mcc}]\n"
    (tmp_path / "mcc.yaml").write_text(text, encoding="utf-8")
    (tmp_path / roads.files[0].with_suffix(".jsonl").name).write_bytes(
        roads.files[0].with_suffix(".jsonl").read_bytes()
    )
    (results,) = evaluate_with_harness(model_of(roads)[0], [str(tmp_path / "mcc.yaml")])["results"].values()
    out, err = capfd.readouterr()
    assert 0 <= results["mcc_stderr,none"] < 1 and "bootstrapping" in err and not out


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("task: x\nprocess_docs: !function utils.f\n", RecipeError, r"has functions.*--include-path .*, which runs"),
        ("task: x\ninclude: other.yaml\n", RecipeError, "the key `include` needs other files"),
        ("group: x\n", RecipeError, "not a task of lm-evaluation-harness: it has no text `task`"),
        (
            "task: x\ndataset_kwargs: {data_files: none.jsonl}\n",
            DataError,
            r"none\.jsonl: no such file, which the task",
        ),
        ("task: x\n", DataError, "lm-evaluation-harness cannot load it"),
        ("task: x\na: &b [*b]\n", RecipeError, "not readable as YAML"),
    ],
)
def test_task_files_that_cannot_be_used_are_named(roads, tmp_path, text, error, said):
    (tmp_path / "t.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=said):
        evaluate_with_harness(model_of(roads)[0], [str(tmp_path / "t.yaml")])
    with pytest.raises(RecipeError, match="cannot be read"):
        evaluate_with_harness(model_of(roads)[0], [str(tmp_path / "none.yaml")])


def test_the_verb_writes_rows_and_a_table(roads, tmp_path, monkeypatch, capsys):
    """In this process, which has loaded the harness already."""
    samples: Path = tmp_path / "samples.jsonl"
    command = ["lm-eval", roads.checkpoint.path, "--tasks", roads.files[1], "--limit", 5, "--samples", samples]
    monkeypatch.setattr("sys.argv", ["kogpt2", *map(str, command), "--ops", "stock"])
    main()
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 5 and all(len(line["resps"]) == 3 for line in lines)
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == [roads.files[1].stem, "0", "5", "acc"]


def test_scores_are_printed_though_the_disk_of_the_rows_is_full(roads, tmp_path, monkeypatch, capsys):
    with small_disk(tmp_path / "disk", 4096) as disk:
        command = ["lm-eval", roads.checkpoint.path, "--tasks", roads.files[1], "--samples", disk / "samples.jsonl"]
        monkeypatch.setattr("sys.argv", ["kogpt2", *map(str, command), "--ops", "stock"])
        with pytest.raises(SystemExit, match="1"):
            main()
        assert list(disk.iterdir()) == []
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[0] == roads.files[1].stem
    assert err.splitlines()[-1].startswith(f"kogpt2: {disk / 'samples.jsonl'}: the disk is full")
    assert "make room, or name another --samples" in err


def test_no_task_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kogpt2", "lm-eval", str(tmp_path), "--tasks", " , "])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--tasks ' , ': names no task; give YAML files" in capsys.readouterr().err
