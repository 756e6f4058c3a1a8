"""`kogpt2 serve BODY --prompt NAME=FOLDER`: texts of several prompts at once, each as its own network writes it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click import UsageError
from click.testing import CliRunner

from benchmarks.browser import CHROMIUM
from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.cli.serve import named_prompts
from kogpt2_gluon.inference.generation import generate
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.scoring import Request, Scorer
from kogpt2_gluon.recipe_sections import AdaptationRecipe
from kogpt2_gluon.runs.checkpoint import PROMPT as VECTORS
from kogpt2_gluon.runs.checkpoint import open_checkpoint, save_checkpoint
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer
from tests.helpers import kogpt2
from tests.serving.page_helpers import POSITIONS, make_network
from tests.serving.page_tab import FIRST, PROMPT, SECOND, expect
from tests.serving.service_helpers import at_once, serving

LENGTHS = {"reviews": 5, "news": 12}


@pytest.fixture(scope="module")
def body(tmp_path_factory) -> Path:
    return make_network(tmp_path_factory.mktemp("body"), "lossless", end_scale=0.5)


@pytest.fixture(scope="module")
def runs(body, tmp_path_factory) -> dict[str, Path]:
    """A checkpoint for each prompt, as a run that has tuned it leaves one."""
    source, found = open_checkpoint(body), {}
    for number, (name, length) in enumerate(LENGTHS.items()):
        vectors = np.random.RandomState(number).normal(0, 0.5, (length, 96)).astype(np.float32)
        recipe = replace(source.recipe(), name=name, adaptation=AdaptationRecipe("prompt", prompt_length=length))
        recipe.training.init_from = str(body)
        arrays, tokenizer = {**source.model_arrays(), VECTORS: vectors}, stored_tokenizer(source.tokenizer_path)
        found[name] = save_checkpoint(tmp_path_factory.mktemp(name), source.state(), arrays, {}, recipe, tokenizer)
    return found


@pytest.fixture(scope="module")
def prompts(runs, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("prompts")
    for name, run in runs.items():
        kogpt2("convert", run, folder / name, "--to", "peft")
    return {name: folder / name for name in runs}


def test_a_home_is_expanded_in_the_name_of_a_folder(monkeypatch) -> None:
    """A shell expands ~ at the beginning of a word only, and --prompt NAME=~/FOLDER is one word."""
    monkeypatch.setenv("HOME", "/home/somebody")
    given = ("reviews=~/prompts/reviews", "news=prompts/~/news")
    assert named_prompts(given) == {"reviews": Path("/home/somebody/prompts/reviews"), "news": Path("prompts/~/news")}
    with pytest.raises(UsageError, match="--prompt news: ~nobody-of-this-name/x: no such user here"):
        named_prompts(("news=~nobody-of-this-name/x",))


@pytest.fixture(scope="module")
def service(body, prompts):
    options = [part for name, path in prompts.items() for part in ("--prompt", f"{name}={path}")]
    with serving(body, *options, "--slots", 4) as service:
        yield service


def alone(path: Path, text: str, sampling: Sampling, sample: int = 0) -> str:
    """The text that the network of a run writes after another, by itself."""
    net, tokenizer, _, ctx = load_checkpoint(path)
    whole = generate(net, tokenizer, text, sampling, sample + 1, ctx)[sample]
    return whole[len(tokenizer.decode(tokenizer.encode(text))) :]


def test_texts_of_several_prompts_at_once(service, body, runs):
    texts, sampling = ("오늘은 날씨가", "이 영화는"), Sampling(12, temperature=0.9, top_k=9, seed=3)
    asked = [(name, text) for name in ("", *runs) for text in texts]
    settings = {"max_new_tokens": 12, "temperature": 0.9, "top_k": 9, "seed": 3, "num_samples": 2}

    def ask(name: str, text: str):
        return lambda: service.post("/generate", prompt=text, prompt_tuning=name, **settings)["texts"]

    answers = at_once([ask(*each) for each in asked])
    found = {each: [text["text"] for text in answer] for each, answer in zip(asked, answers)}
    for name, text in asked:
        own = [alone(runs.get(name, body), text, sampling, sample) for sample in (0, 1)]
        assert found[name, text] == own
    assert len({found[name, texts[0]][0] for name in ("", *runs)}) == 3  # the prompts matter


def test_a_prompt_is_a_model_of_the_other_api(service, body, runs):
    listed = [each["id"] for each in service.get("/v1/models")["data"]]
    assert listed[1:] == list(runs) and service.get("/v1/models/news")["id"] == "news"
    described = service.get("/about")["models"][0]["tuned"]
    assert [(each["name"], each["positions"]) for each in described] == list(LENGTHS.items())
    answer = service.post("/v1/completions", model="news", prompt="오늘은", temperature=0, max_tokens=8)
    assert answer["model"] == "news"
    assert answer["choices"][0]["text"] == alone(runs["news"], "오늘은", Sampling(8, temperature=0))
    refused = service.post("/v1/completions", 404, model="weather", prompt="오늘은")
    assert "reviews, news" in refused["error"]["message"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Debian's chromium-headless-shell is one")
def test_the_page_offers_the_prompts_of_a_checkpoint(service, prompts, tab):
    """Chosen, kept in the address, compared with none, and in the copied command."""
    window = tab(service, permissions=["clipboard-read", "clipboard-write"]).open("#prompt_tuning=%22news%22")
    page, sampling = window.page, {"Seed": 3, "Most new tokens": 8}
    chosen = page.locator(FIRST).get_by_label("Tuned prompt")
    assert chosen.input_value() == "news" and chosen.locator("option").all_text_contents() == ["none", *prompts]
    page.fill("#prompt", PROMPT)
    chosen.select_option("reviews")
    window.set(sampling)
    page.click("#compare")
    page.locator(SECOND).get_by_label("Tuned prompt").select_option("none")
    window.write()
    for column, name in ((FIRST, "reviews"), (SECOND, "")):
        wanted = {"prompt": PROMPT, "seed": 3, "max_new_tokens": 8, "prompt_tuning": name}
        assert "".join(window.text(column)) == service.post("/generate", **wanted)["texts"][0]["text"]
    assert window.text(FIRST) != window.text(SECOND)
    page.locator(FIRST).get_by_text("Copy as command line").click()
    command = page.locator(FIRST + ".command pre").inner_text()
    assert f"--tuned-prompt {prompts['reviews']} " in command
    page.locator(SECOND).get_by_text("Copy as command line").click()
    assert "--tuned-prompt" not in page.locator(SECOND + ".command pre").inner_text()
    expect(page).to_have_url(re.compile("prompt_tuning=%22reviews%22"))  # the page's policy forbids to ask it
    page.reload()
    expect(page.locator(FIRST).get_by_label("Tuned prompt")).to_have_value("reviews")
    expect(page.locator(SECOND).get_by_label("Tuned prompt")).to_have_value("")

    window.check_access(("dark",))
    window.check()


def test_scores_are_those_after_the_prompt(service, runs):
    net, tokenizer, _, ctx = load_checkpoint(runs["reviews"])
    choices = ["좋았다.", "보고 싶다."]
    (encoded,) = PromptEncoder(tokenizer).encode([("이 영화는 ", choices)])
    expected = Scorer(net, ctx).log_likelihoods([Request(encoded.context, each) for each in encoded.answers])
    found = service.post("/score", prompt="이 영화는 ", choices=choices, prompt_tuning="reviews")["choices"]
    for own, other in zip(found, expected):
        assert own["log_likelihood"] == pytest.approx(other.log_likelihood, abs=1e-3)
    plain = service.post("/score", prompt="이 영화는 ", choices=choices)["choices"]
    assert abs(plain[0]["log_likelihood"] - found[0]["log_likelihood"]) > 1e-3
    wanted = {"prompt": "이 영화는", "max_tokens": 0, "echo": True, "logprobs": 0}
    echoed = [service.post("/v1/completions", model=name, **wanted) for name in ("reviews", "a")]
    values = [each["choices"][0]["logprobs"]["token_logprobs"] for each in echoed]
    assert len(values[0]) == len(values[1]) and values[0] != values[1]


def test_what_cannot_be_is_refused(service, body, runs, prompts, tmp_path):
    refused = service.post("/generate", 400, prompt="오늘", prompt_tuning="weather")
    assert "there is no 'weather'; there are: reviews, news" in refused["error"]["message"]
    room = POSITIONS - LENGTHS["news"]
    refused = service.post("/v1/completions", 400, model="news", prompt=[5] * room)
    assert f"positions leave room for {room - 1:,}" in refused["error"]["message"]
    service.post("/v1/completions", model="a", prompt=[5] * room, max_tokens=1)
    other = make_network(tmp_path / "other", "nmt_nfkc")
    for checkpoint, option, code, words in (
        (other, f"news={prompts['news']}", 3, "was tuned on another network"),
        (runs["news"], f"news={prompts['news']}", 2, "has a tuned prompt of its own"),
        (body, f"b={prompts['news']}", 2, "a and b are networks"),
        (body, f"news={body}", 3, "adapter_model.safetensors"),
        (body, "news", 2, "NAME=FOLDER"),
    ):
        done = CliRunner().invoke(cli, ["serve", str(checkpoint), "--prompt", option, "--port", "0"])
        assert words in f"{done.output}{done.exception}"
        assert getattr(done.exception, "exit_code", done.exit_code) == code
