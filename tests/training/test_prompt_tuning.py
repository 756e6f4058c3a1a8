"""Runs that tune a prompt: what changes, exact resume, what every tool makes of the run, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe, parse_recipe
from kogpt2_gluon.runs.checkpoint import newest_checkpoint, open_checkpoint
from kogpt2_gluon.runs.tuned_prompt import body_fingerprint, read_tuned_prompt
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.training.dry_run import check
from kogpt2_gluon.training.initial_weights import prompt_tokens
from kogpt2_gluon.training.loop import train
from tests.helpers import kogpt2, run, tiny_settings
from tests.training.run_helpers import FILES, assert_resumes_exactly, assert_two_workers_agree, pretrain
from tests.training.task_helpers import write_task

PROMPT, LENGTH = "_prompt.weight", 4
ENCODERS = ("none", "mlp", "lstm")


@pytest.fixture(scope="module")
def pretrained(shards, tmp_path_factory):
    """The folder of a run of 60 steps."""
    return pretrain(shards, tmp_path_factory.mktemp("pretrained") / "run", "data.seq_length=28")


def tuned(tiny, pretrained, encoder, *more):
    own = ["adaptation.method=prompt", f"adaptation.prompt_length={LENGTH}", f"adaptation.encoder={encoder}"]
    size = ["adaptation.encoder_size=6"] if encoder != "none" else []
    start = [f"training.init_from={pretrained}", "training.learning_rate=2e-2", "data.seq_length=28"]
    return [*tiny, *start, *own, *size, *more]


@pytest.fixture(scope="module")
def done(shards, pretrained, tmp_path_factory):
    """The folder of a tuned run, at a rate that makes the prompt matter for a network that has hardly learned."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    settings = tuned(tiny_settings(shards, folder), pretrained, "none", "adaptation.prompt_text=오늘은 날씨가")
    train(load_recipe("demo", [*settings, "training.learning_rate=0.3", "evaluation.max_sequences=0"]))
    return folder


@pytest.mark.parametrize(("encoder", "accumulate"), [("none", 1), ("none", 2), ("mlp", 2), ("lstm", 1)])
def test_resume_is_exact_and_only_the_prompt_changes(tiny, pretrained, tmp_path, encoder, accumulate):
    batch = f"training.batch_size={8 // accumulate}"
    options = tuned(tiny, pretrained, encoder, batch, "data.test=", "checkpoint.interval=1", "checkpoint.keep=0")
    folders = assert_resumes_exactly(options, tmp_path / "again", 2)
    old, first, new = (open_checkpoint(path).model_arrays() for path in (pretrained, folders[0], folders[-1]))
    assert set(new) - set(old) == {PROMPT}
    for name in old:
        assert (np.array(old[name]) == np.array(new[name])).all(), name
    assert new[PROMPT].shape == (LENGTH, 32)
    assert (new[PROMPT] != first[PROMPT]).any(axis=1).all()  # at every position, since its first step


def test_it_begins_with_the_vectors_of_words(tiny, pretrained, tmp_path):
    """Those of the words' tokens, again and again; at a learning rate of nothing they stay."""
    from kogpt2_gluon.tokens.tokenizer import Tokenizer

    more = ["training.learning_rate=1e-9", "training.final_learning_rate=0", "adaptation.prompt_text=오늘"]
    recipe = load_recipe("demo", tuned(tiny, pretrained, "none", *more, "data.test="))
    train(recipe)
    before, after = newest_checkpoint(pretrained / "checkpoints"), newest_checkpoint(recipe.ckpt_dir)
    ids = Tokenizer.load(before.tokenizer_path).encode("오늘")
    expected = before.model_arrays()["_embed.weight"][[ids[place % len(ids)] for place in range(LENGTH)]]
    np.testing.assert_allclose(after.model_arrays()[PROMPT], expected, atol=1e-6)


@pytest.mark.parametrize("encoder", ["none", pytest.param("lstm", marks=pytest.mark.slow)])
def test_two_workers_equal_two_micro_steps_and_resume_exactly(tiny, pretrained, tmp_path, encoder):
    settings = tuned(tiny, pretrained, encoder, "model.dropout=0", "data.test=", "checkpoint.interval=4")
    settings += ["checkpoint.keep=0"]
    both = assert_two_workers_agree(settings, tmp_path)
    half = "checkpoints/step-00000004"
    shutil.copytree(tmp_path / "two" / half, tmp_path / "again" / half)
    run(*both, f"tracking.run_dir={tmp_path / 'again'}")
    ends = [tmp_path / name / "checkpoints" / "step-00000008" for name in ("two", "again")]
    for name in FILES:
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), name


def test_tools_use_the_prompt(pretrained, done, shards):
    """The held-out loss is what the run measured at its end, and not that of the network alone."""
    lines = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    last = [line["loss"] for line in lines if line["kind"] == "evaluation"][-1]
    own, plain = (
        json.loads(kogpt2("evaluate", folder, shards / "test", "--seq-length", 28, "--json").stdout)["loss"]
        for folder in (done, pretrained)
    )
    assert own == pytest.approx(last, abs=1e-5) and own != pytest.approx(plain, abs=2e-5)
    texts = [
        json.loads(kogpt2("generate", folder, "오늘", "--temperature", 0, "--logprobs", 2, "--json").stdout)
        for folder in (done, pretrained)
    ]
    assert texts[0]["texts"][0].startswith("오늘") and texts[0]["logprobs"] != texts[1]["logprobs"]
    refused = kogpt2("evaluate", done, shards / "test", "--seq-length", 29, code=2)
    assert "the network takes 1 to 28 tokens" in refused.stderr


def test_the_folder_for_peft_gives_the_same_logits(done, tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from transformers import GPT2LMHeadModel

    from kogpt2_gluon.inference.loading import load_checkpoint
    from kogpt2_gluon.machine.runtime import mx

    kogpt2("convert", done, tmp_path / "prompt", "--to", "peft")
    assert sum(path.stat().st_size for path in (tmp_path / "prompt").iterdir()) < 6000
    kogpt2("convert", done, tmp_path / "body", "--part", "body")
    tokens = np.random.RandomState(0).randint(3, 1000, (2, 11))
    base = GPT2LMHeadModel.from_pretrained(tmp_path / "body")
    model = peft.PeftModel.from_pretrained(base, tmp_path / "prompt").eval()
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(tokens)).logits[:, LENGTH:].numpy()
    net, *_ = load_checkpoint(done, ops="stock")
    np.testing.assert_allclose(net(mx.nd.array(tokens, dtype="int32"))[0].asnumpy(), theirs, atol=1e-4)


def test_the_program_of_the_folder_puts_the_prompt_in_front_of_its_network(done, pretrained, tmp_path, monkeypatch):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    kogpt2("convert", done, tmp_path / "prompt", "--to", "peft")
    kogpt2("convert", pretrained, tmp_path / "prompt" / "my-body")
    card = (tmp_path / "prompt" / "README.md").read_text(encoding="utf-8")
    assert f"It was tuned on `{pretrained}`" in card and "28 are left for a text" in card
    assert read_tuned_prompt(tmp_path / "prompt").body in card
    monkeypatch.chdir(tmp_path / "prompt")
    defined: dict = {}
    exec(compile(card.split("```python\n")[1].split("```")[0], "README.md", "exec"), defined)
    ids, found = defined["ids"]["input_ids"], defined["found"]
    assert ids[0, 0] == 1 and (found[0, : ids.shape[1]] == ids[0]).all() and found.shape[1] > ids.shape[1]
    assert isinstance(defined["model"], peft.PeftModel)
    more = {"max_new_tokens": 3, "output_logits": True, "return_dict_in_generate": True}
    written = defined["model"].generate(**defined["ids"], **more)
    prompt = torch.tensor(np.array(newest_checkpoint(done / "checkpoints").model_arrays()[PROMPT]))
    embed, network = defined["network"].get_input_embeddings(), defined["network"]
    for place, logits in enumerate(written.logits):  # some versions of both libraries lost the prompt here
        own = embed(written.sequences[0, : ids.shape[1] + place])
        with torch.no_grad():
            expected, without = (
                network(inputs_embeds=each[None]).logits[0, -1] for each in (torch.cat([prompt, own]), own)
            )
        torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=0)
        assert (logits[0] - without).abs().max() > 1e-3
    config = json.loads((tmp_path / "prompt" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "my-body"  # as the card says
    (tmp_path / "prompt" / "adapter_config.json").write_text(json.dumps(config))
    again = peft.AutoPeftModelForCausalLM.from_pretrained(".").eval()
    assert (again.generate(**defined["ids"], max_new_tokens=8) == found).all()


def test_a_prompt_knows_the_network_that_it_was_tuned_on(done, pretrained, tmp_path):
    kogpt2("convert", done, tmp_path / "prompt", "--to", "peft")
    prompt, arrays = read_tuned_prompt(tmp_path / "prompt"), newest_checkpoint(done / "checkpoints").model_arrays()
    assert (prompt.vectors == arrays[PROMPT]).all()
    body = newest_checkpoint(pretrained / "checkpoints").model_arrays()
    assert prompt.body == body_fingerprint(body) == body_fingerprint(arrays)
    assert body_fingerprint({**body, "_final_ln.beta": body["_final_ln.beta"] + 1e-7}) != prompt.body


def test_the_prompt_alone_gives_the_network_what_its_run_has(done, pretrained, shards, tmp_path):
    """`--tuned-prompt` in front of the network that it was tuned on: the texts and the loss of the run."""
    kogpt2("convert", done, tmp_path / "prompt", "--to", "peft")
    before = (pretrained, "--tuned-prompt", tmp_path / "prompt")
    for verb, *words in (
        ("evaluate", shards / "test", "--seq-length", 28),
        ("generate", "오늘", "--temperature", 0, "--logprobs", 2, "--json"),
    ):
        assert kogpt2(verb, *before, *words).stdout == kogpt2(verb, done, *words).stdout
    refused = kogpt2("generate", done, "오늘", "--tuned-prompt", tmp_path / "prompt", code=2)
    assert "has a tuned prompt of its own" in refused.stderr


@pytest.mark.parametrize("target", ["huggingface", "checkpoint", "original", "onnx", "gguf", "sagemaker"])
def test_other_targets_are_refused_by_name(done, tmp_path, target):
    refused = kogpt2("convert", done, tmp_path / "out", "--to", target, code=2)
    assert f"has a tuned prompt, and {target} has no place for it" in refused.stderr and "--part body" in refused.stderr


def test_networks_without_a_prompt_have_none_for_peft(pretrained, tmp_path):
    assert "has no tuned prompt" in kogpt2("convert", pretrained, tmp_path / "out", "--to", "peft", code=2).stderr


@pytest.mark.parametrize("method", ["none", "lora", "scales", "prompt"])
def test_no_run_begins_with_a_tuned_network(tiny, done, tmp_path, method):
    settings = [*tiny, "data.seq_length=28", f"training.init_from={done}", f"adaptation.method={method}"]
    settings += ["adaptation.prompt_length=4"] * (method == "prompt")
    refused = kogpt2("train", "demo", *settings, code=2)
    assert "tuned prompt, which would be lost" in refused.stderr


def test_a_task_is_learned_with_the_network_as_it_was(pretrained, tmp_path):
    """`kogpt2 finetune` trains prompt and head alone; predict uses both, and has no place for longer rows."""
    task = write_task(tmp_path / "task", rows=200)
    small = ["data.seq_length=26", "training.batch_size=8", "training.total_batch_size=16", "task.epochs=12"]
    own = ["adaptation.method=prompt", "adaptation.prompt_length=6", "training.learning_rate=3e-2"]
    options = ["--task", task, "--data", tmp_path / "task", "--no-baselines", f"tracking.run_dir={tmp_path / 'runs'}"]
    kogpt2("finetune", pretrained, *options, *small, *own, "training.threads=1")
    folder = tmp_path / "runs" / "seed-0" / "checkpoints"
    before, after = newest_checkpoint(pretrained / "checkpoints").model_arrays(), newest_checkpoint(folder)
    arrays = after.model_arrays()
    assert set(arrays) - set(before) == {PROMPT, "_head.weight"}
    assert all((np.array(before[name]) == np.array(arrays[name])).all() for name in before)
    (tmp_path / "rows.txt").write_text("나는 학교에 간다\n나는 오늘 시장에 없다\n", encoding="utf-8")
    answers = kogpt2("predict", folder.parent, tmp_path / "rows.txt", "--json").stdout.splitlines()
    assert [set(json.loads(each)["probabilities"]) for each in answers] == [{"home", "away"}] * 2
    lines = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    first, *losses = [line["loss"] for line in lines if line["kind"] == "evaluation"]
    assert min(losses) < first
    refused = kogpt2("predict", folder.parent, tmp_path / "rows.txt", "--seq-length", 27, code=2)
    assert "above the 26 tokens" in refused.stderr
    kept = kogpt2("convert", folder.parent, tmp_path / "out", "--to", "peft", code=2)
    assert "none for its head" in kept.stderr


@pytest.mark.parametrize(
    ("settings", "more", "words"),
    [
        ({}, {"training": {}}, "needs a network to adapt"),
        ({"prompt_length": 9}, {}, "together are above model.max_length=32"),
        ({"rank": 3}, {}, "adaptation.method=prompt does not use it"),
        ({"method": "lora", "prompt_length": 3}, {}, "adaptation.method=lora does not use it"),
        ({"encoder_size": 3}, {}, "encoder=none does not use it"),
        ({"encoder": "mlp", "prompt_text": "x"}, {}, "begins with random numbers"),
        ({"encoder": "gru"}, {}, "adaptation.encoder"),
    ],
)
def test_settings_that_do_not_go_together(settings, more, words):
    adaptation = {"method": "prompt", "prompt_length": 8, **settings}
    plain = {"training": {"init_from": "x"}, "model": {"max_length": 32}, "data": {"seq_length": 24}}
    with pytest.raises(RecipeError, match=words):
        parse_recipe({**plain, "adaptation": adaptation, **more})


def test_a_network_with_a_prompt_teaches_nobody_until_that_is_left_out(tiny, pretrained, done, tmp_path):
    """It is refused before anything is computed, and both ways out are ones."""
    taught = [*tiny, "data.seq_length=28"]
    way = f"kogpt2 convert {done} OUT --to checkpoint --part body"
    with pytest.raises(RecipeError, match=rf"has a tuned prompt, .* tuned on, {pretrained}, or .*: {way}$"):
        check(load_recipe("demo", [*taught, f"distillation.teacher={done}"]))
    kogpt2("convert", done, tmp_path / "body", "--to", "checkpoint", "--part", "body")
    for teacher in (pretrained, tmp_path / "body"):
        lines = check(load_recipe("demo", [*taught, f"distillation.teacher={teacher}"]))
        assert any("more operations a step" in line for line in lines)


def test_words_without_a_token(small_tokenizer):
    plain = {"training": {"init_from": "x"}, "data": {"seq_length": 32}}
    recipe = parse_recipe({**plain, "adaptation": {"method": "prompt", "prompt_text": " "}})
    with pytest.raises(RecipeError, match="the tokenizer finds no token in it"):
        prompt_tokens(recipe, SentencePieceTokenizer(small_tokenizer, Path("small.model")))


def test_runs_of_other_methods_keep_their_fingerprint():
    """Settings of prompts are no part of a run that has none, which may be older than they are."""
    plain = {"training": {"init_from": "x"}, "adaptation": {"method": "lora"}}
    recipe, other = parse_recipe(plain), parse_recipe(plain)
    other.adaptation.prompt_length = 3
    assert recipe.fingerprint() == other.fingerprint()
    recipe.adaptation.method = other.adaptation.method = "prompt"
    assert recipe.fingerprint() != other.fingerprint()
