"""A fine-tuned checkpoint as a Hugging Face folder: transformers' pipelines give our labels, numbers and spans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.convert.framing import framing_files, padding_of
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.convert.tokenizer_files import read_tokenizer
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tasks.encoding import encode
from kogpt2_gluon.tasks.fine_tuned import load_fine_tuned
from kogpt2_gluon.tasks.prediction import predictions, run_network
from kogpt2_gluon.tasks.task import Row
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.head_helpers import SENTENCES, make_fine_tuned, task_named
from tests.helpers import kogpt2
from tests.lazy_modules import needed
from tests.tokens.json_helpers import byte_level, llama
from tests.tokens.json_helpers import kogpt2 as kogpt2_json

torch = needed("torch", reason="runs the converted network")

PAIRS = tuple(zip(SENTENCES, SENTENCES[1:] + SENTENCES[:1]))


def converted(checkpoint, out: Path, **options) -> Path:
    convert_to("huggingface", checkpoint, out, **options)
    return out


def answers_here(checkpoint, texts, most=0):
    """The network's outputs for rows, (rows, K), and its answers, by the package's own road from texts to answers."""
    tuned = load_fine_tuned(checkpoint.path, "cpu", ops="stock")
    label = tuned.task.labels[0] if tuned.task.labels else ""
    rows = [Row(each if isinstance(each, tuple) else (each,), label, tuned.task.value_range[0]) for each in texts]
    most = most or tuned.recipe.data.seq_length
    examples = encode(tuned.task, rows, tuned.tokenizer, most, cut=True)
    outputs = run_network(tuned.loss_block, examples, 2, most, tuned.ctx)
    return outputs.answers, predictions(tuned.task, examples, outputs)


def softmax(array):
    odds = np.exp(array - array.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


# ---- the same answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 5])
@pytest.mark.parametrize("kind", ["class", "pair"])
def test_the_pipeline_gives_our_labels_and_probabilities(kind, batch_size, small_tokenizer, tmp_path, transformers):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, kind)
    out = converted(checkpoint, tmp_path / "out")
    texts = PAIRS if kind == "pair" else SENTENCES
    given_there = [{"text": one, "text_pair": two} for one, two in PAIRS] if kind == "pair" else list(SENTENCES)
    classify = transformers.pipeline("text-classification", model=str(out), device="cpu")
    found = classify(given_there, batch_size=batch_size, top_k=None)
    outputs, ours = answers_here(checkpoint, texts)
    labels = task_named(kind).labels
    for row, probabilities in zip(found, softmax(outputs)):
        theirs = {each["label"]: each["score"] for each in row}
        assert list(theirs) == [labels[number] for number in np.argsort(-probabilities)]
        assert [theirs[label] for label in labels] == pytest.approx(probabilities, abs=1e-5)
    assert [row[0]["label"] for row in found] == ours.labels and len(set(ours.labels)) > 1


def test_the_pipeline_gives_our_numbers(small_tokenizer, tmp_path, transformers):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "number")
    out = converted(checkpoint, tmp_path / "out")
    rate = transformers.pipeline("text-classification", model=str(out), device="cpu")
    found = rate(list(SENTENCES), batch_size=5)
    outputs, ours = answers_here(checkpoint, SENTENCES)
    assert [each["score"] for each in found] == pytest.approx(outputs[:, 0], abs=1e-5)
    assert {each["label"] for each in found} == {"value"}
    by_the_card = [1 + 4 * min(1, max(0, each["score"])) for each in found]
    assert by_the_card == pytest.approx(ours.values, abs=1e-4)
    assert len({round(value, 3) for value in ours.values}) > 2


def test_the_pipeline_gives_our_spans(small_tokenizer, tmp_path, transformers):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "tags")
    out = converted(checkpoint, tmp_path / "out")
    find = transformers.pipeline("token-classification", model=str(out), aggregation_strategy="simple", device="cpu")
    found = find(list(SENTENCES), batch_size=5)
    _, ours = answers_here(checkpoint, SENTENCES)
    assert sum(map(len, ours.spans)) > 5
    for text, there, here in zip(SENTENCES, found, ours.spans):
        spans = []
        for each in there:
            stretch = text[each["start"] : each["end"]]
            begin = each["start"] + len(stretch) - len(stretch.lstrip())
            if stretch.strip():
                spans.append((begin, begin + len(stretch.strip()), each["entity_group"]))
        assert spans == [tuple(span) for span in here], text


@pytest.mark.parametrize(("part", "kind"), [("class", "text"), ("spans", "token")])
def test_two_heads_become_two_folders(part, kind, small_tokenizer, tmp_path, transformers):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "both")
    out = converted(checkpoint, tmp_path / "out", part=part)
    answer = transformers.pipeline(f"{kind}-classification", model=str(out), device="cpu")
    found = answer(list(SENTENCES), batch_size=5)
    outputs, ours = answers_here(checkpoint, SENTENCES)
    if part == "class":
        assert [each["label"] for each in found] == ours.labels
        assert [each["score"] for each in found] == pytest.approx(softmax(outputs).max(axis=1), abs=1e-5)
    else:
        kinds = {each["entity"][2:] for row in found for each in row}
        assert kinds == {span.kind for spans in ours.spans for span in spans} and kinds


def json_of(folder: Path, name: str = "config.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


# ---- padding: the last token before it is the one that counts --------------------------------------------------------


@pytest.mark.parametrize("spare", [0, 3])
def test_a_tokenizer_without_padding_gets_some(spare, tmp_path, transformers):
    """GPT-2's: one token begins and ends documents. As padding it would hide the token that the head reads."""
    tokenizer = byte_level()
    pieces = tokenizer.get_vocab_size()
    content = tokenizer.to_str().encode()
    checkpoint = make_fine_tuned(tmp_path / "run", content, "class", "tokenizer.json", pieces + spare)
    out = converted(checkpoint, tmp_path / "out")
    config = json_of(out)
    assert config["pad_token_id"] == pieces and config["vocab_size"] == pieces + max(1, spare)
    assert config["eos_token_id"] != config["pad_token_id"]
    classify = transformers.pipeline("text-classification", model=str(out), device="cpu")
    found = classify(list(SENTENCES), batch_size=5, top_k=None, truncation=True)
    outputs, _ = answers_here(checkpoint, SENTENCES)
    for row, probabilities in zip(found, softmax(outputs)):
        assert sorted(each["score"] for each in row) == pytest.approx(sorted(probabilities), abs=1e-5)
    # What a user would do without it gives other answers.
    model = transformers.GPT2ForSequenceClassification.from_pretrained(out).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    theirs.pad_token, model.config.pad_token_id = theirs.eos_token, config["eos_token_id"]
    with torch.no_grad():
        wrong = model(**theirs(list(SENTENCES), padding=True, truncation=True, return_tensors="pt")).logits.numpy()
    assert np.abs(wrong - outputs).max() > 0.01
    assert "It is new" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("make", [kogpt2_json, llama, byte_level])
def test_tokenizers_of_the_tokenizers_library(make, tmp_path, transformers):
    """KoGPT2's newer one drops what it cannot spell, unless its unknown token is named; its emoticons are special."""
    tokenizer = make()
    content, pieces = tokenizer.to_str().encode(), tokenizer.get_vocab_size()
    checkpoint = make_fine_tuned(tmp_path / "run", content, "class", "tokenizer.json", pieces, seq_length=64)
    out = converted(checkpoint, tmp_path / "out")
    texts = ["이 영화는 정말 :-) 재미있다 ^^", "그날 밤", "뷁 쀍 없는 글자", "<s> 안녕 </s><pad>", "  여러   칸 😀 "]
    classify = transformers.pipeline("text-classification", model=str(out), device="cpu", truncation=True)
    found = classify(texts, batch_size=3)
    outputs, ours = answers_here(checkpoint, texts)
    assert [each["label"] for each in found] == ours.labels
    assert [each["score"] for each in found] == pytest.approx(softmax(outputs).max(axis=1), abs=1e-5)
    assert json_of(out, "tokenizer_config.json")["model_input_names"] == ["input_ids", "attention_mask"]


def test_padding_at_the_right_and_no_types_of_tokens(small_tokenizer, tmp_path, transformers):
    out = converted(make_fine_tuned(tmp_path / "run", small_tokenizer, "pair"), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    batch = tokenizer([one for one, _ in PAIRS], [two for _, two in PAIRS], padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    model = transformers.GPT2ForSequenceClassification.from_pretrained(out).eval()
    with torch.no_grad():
        together = model(**batch).logits
        for row, pair in enumerate(PAIRS):
            alone = model(**tokenizer(*pair, return_tensors="pt")).logits[0]
            assert torch.allclose(together[row], alone, atol=1e-5)
    assert (batch["input_ids"][:, 0] == tokenizer.bos_token_id).all()
    lengths = batch["attention_mask"].sum(1)
    assert (batch["input_ids"].gather(1, (lengths - 1)[:, None]) == tokenizer.eos_token_id).all()


def test_the_frame_survives_saving_and_padding_at_the_left_changes_answers(small_tokenizer, tmp_path, transformers):
    out = converted(make_fine_tuned(tmp_path / "run", small_tokenizer, "class"), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    tokenizer.save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    for text in SENTENCES:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.padding_side == "right" and again.pad_token == "<pad>"
    again.padding_side = "left"
    model = transformers.GPT2ForSequenceClassification.from_pretrained(out).eval()
    with torch.no_grad():
        right, left = (
            model(**each(list(SENTENCES), padding=True, return_tensors="pt")).logits for each in (tokenizer, again)
        )
    assert (right - left).abs().max() > 0.01  # as the card says


@given(st.lists(st.text("오늘은 날씨가</s><pad>ab", max_size=20), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_rows_get_the_ids_of_the_fine_tuning(framing, texts):
    """Texts with special tokens spelled out too."""
    ours, theirs = framing
    for text, ids in zip(texts, theirs(texts)["input_ids"]):
        assert ids == [ours.bos_id, *ours.encode(text), ours.eos_id]
    first, second = texts[0], texts[-1]
    if second:  # transformers takes an empty one for none; a task's pairs have none
        pair = [ours.bos_id, *ours.encode(first), ours.eos_id, *ours.encode(second), ours.eos_id]
        assert theirs(first, second)["input_ids"] == pair


@pytest.fixture(scope="module")
def framing(small_tokenizer, tmp_path_factory, transformers):
    folder = tmp_path_factory.mktemp("framing")
    (folder / "source.model").write_bytes(small_tokenizer)
    files = read_tokenizer(folder / "source.model")
    for name, content in framing_files(files, padding_of(files), 512).items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return Tokenizer.load(folder / "source.model"), transformers.AutoTokenizer.from_pretrained(folder)


def test_long_rows_are_cut_as_in_the_fine_tuning(small_tokenizer, tmp_path, transformers):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "class", seq_length=8)
    out = converted(checkpoint, tmp_path / "out")
    classify = transformers.pipeline("text-classification", model=str(out), device="cpu", truncation=True)
    found = classify(list(SENTENCES), batch_size=5)
    outputs, ours = answers_here(checkpoint, SENTENCES)
    assert [each["label"] for each in found] == ours.labels
    assert [each["score"] for each in found] == pytest.approx(softmax(outputs).max(axis=1), abs=1e-5)


# ---- config and card -------------------------------------------------------------------------------------------------


def test_labels_survive_saving_and_the_sizes_are_theirs(small_tokenizer, tmp_path, transformers):
    out = converted(make_fine_tuned(tmp_path / "run", small_tokenizer, "class"), tmp_path / "out")
    model, loading = transformers.GPT2ForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model.save_pretrained(tmp_path / "again")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "again")
    assert config.id2label == {0: "bad", 1: "보통", 2: "good"} and config.label2id["보통"] == 1
    assert config.num_labels == 3 and config.problem_type == "single_label_classification"
    assert config.pad_token_id == 3 and transformers.AutoTokenizer.from_pretrained(out).model_max_length == 48
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert type(auto).__name__ == "GPT2ForSequenceClassification"


def test_the_head_of_labels_of_tokens_has_no_dropout(small_tokenizer, tmp_path, transformers):
    out = converted(make_fine_tuned(tmp_path / "run", small_tokenizer, "tags"), tmp_path / "out")
    model = transformers.AutoModelForTokenClassification.from_pretrained(out)
    assert model.dropout.p == 0
    assert model.config.id2label == {0: "O", 1: "B-PS", 2: "I-PS", 3: "B-LC", 4: "I-LC"}


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("class", ["`0: bad`, `1: 보통`, `2: good`", "`<s> text </s>`", "| accuracy | 0.875 |", "at most 48 tokens"]),
        ("pair", ["`<s> first </s> second </s>`", '"text_pair"']),
        ("number", ["0 for 1 and 1 for 5", "1 + 4 * min(1, max(0, each['score']))"]),
        ("tags", ["one of 5 labels", "`B-` and `I-` of `PS`, `LC`", 'aggregation_strategy="simple"']),
    ],
)
def test_the_card_says_how_rows_are_made_and_what_answers_mean(kind, facts, small_tokenizer, tmp_path):
    out = converted(make_fine_tuned(tmp_path / "run", small_tokenizer, kind), tmp_path / "out")
    card = " ".join((out / "README.md").read_text(encoding="utf-8").split())
    for fact in facts:
        assert fact in card, (fact, card)


@pytest.mark.parametrize("kind", ["class", "pair", "number", "tags"])
def test_the_program_of_the_card_runs(kind, small_tokenizer, tmp_path, monkeypatch, capsys, transformers):
    out = converted(make_fine_tuned(tmp_path / "run", small_tokenizer, kind), tmp_path / "out")
    program = (out / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(out)
    exec(program, {})
    assert capsys.readouterr().out.startswith("[")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounded_and_in_several_files(dtype, small_tokenizer, tmp_path, transformers):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "class")
    out = converted(checkpoint, tmp_path / "out", dtype=dtype)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert model.dtype == getattr(torch, dtype)
    head = torch.from_numpy(checkpoint.model_arrays()["_head.weight"])
    assert torch.equal(model.score.weight, head.to(model.dtype))


# ---- what does not fit -----------------------------------------------------------------------------------------------


def put(name, array):
    return lambda arrays: arrays.update({name: array})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("_head.weight", np.zeros((2, 32), np.float32)), r"_head\.weight is float32 of shape \(2, 32\).*\(3, 32\)"),
        (lambda arrays: arrays.pop("_head.weight"), r"_head\.weight is in one of its arrays and its task made-class"),
        (put("_tag_head.weight", np.zeros((2, 32), np.float32)), r"_tag_head\.weight is in one of its arrays"),
        (lambda arrays: arrays.pop("_ffn_ln.1.beta"), r"_ffn_ln\.1\.beta is missing"),
    ],
)
def test_arrays_that_are_not_the_tasks(change, message, small_tokenizer, tmp_path):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "class", change=change)
    for target in ("huggingface", "checkpoint"):
        with pytest.raises(DataError, match=message):
            convert_to(target, checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "target", "options", "message"),
    [
        ("class", "onnx", {}, "onnx has no place for its head; convert it --to huggingface, or .* --part body"),
        ("class", "gguf", {}, "gguf has no place for its head"),
        ("class", "original", {}, "original has no place for its head"),
        ("both", "huggingface", {}, "no class of transformers has both .* --part class, the other with --part spans"),
        ("class", "huggingface", {"part": "spans"}, "made-class and has class"),
        ("both", "checkpoint", {"part": "class"}, "--part class is for --to huggingface, not for checkpoint"),
        ("class", "huggingface", {"bos": True}, "--bos is for language models"),
        ("class", "huggingface", {"with_optimizer": True}, "--with-optimizer is for language models.*--to checkpoint"),
    ],
)
def test_what_has_no_place_is_refused_with_the_way_out(kind, target, options, message, small_tokenizer, tmp_path):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, kind)
    with pytest.raises(RecipeError, match=message):
        convert_to(target, checkpoint, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_part_is_for_fine_tuned_networks(checkpoint, tmp_path):
    with pytest.raises(RecipeError, match="--part body is for fine-tuned networks"):
        convert_to("huggingface", checkpoint, tmp_path / "out", part="body")


def test_as_a_user_converts_and_verifies(small_tokenizer, tmp_path):
    made = {kind: make_fine_tuned(tmp_path / kind, small_tokenizer, kind) for kind in ("pair", "both")}
    for kind, options, name in (
        ("pair", [], "GPT2ForSequenceClassification"),
        ("both", ["--part", "spans"], "GPT2ForTokenClassification"),
    ):
        arguments = ["convert", str(made[kind].path), str(tmp_path / f"{kind}-out"), "--verify", *options]
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert "verified: " in done.output and name in done.output
    error = kogpt2("convert", made["both"].path, tmp_path / "three", "--to", "gguf", code=2).stderr
    assert error.count("\n") == 1 and "no place for its head" in error


def test_a_difference_is_found(small_tokenizer, tmp_path):
    from kogpt2_gluon.inference.head_comparison import compare_fine_tuned

    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "class")
    out = converted(checkpoint, tmp_path / "out")
    task = task_named("class")
    assert compare_fine_tuned(checkpoint, task, out, "huggingface", "", exact=True).difference < 1e-5
    (out / "config.json").write_text(json.dumps({**json_of(out), "n_head": 2}))
    with pytest.raises(DataError, match="does not compute what"):
        compare_fine_tuned(checkpoint, task, out, "huggingface", "", exact=True)
    config = json_of(out, "tokenizer.json")
    config["post_processor"] = None
    (out / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="does not give rows the ids"):
        compare_fine_tuned(checkpoint, task, out, "huggingface", "", exact=True)
