"""/v1 by the clients that people have: OpenAI's own, and lm-evaluation-harness's local-completions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the service needs it: the extra serve")

from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.scoring import Request, Scorer
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from tests.convert.convert_helpers import OWN_SENTENCES
from tests.lazy_modules import needed
from tests.serving.conftest import TOKEN, Loaded
from tests.serving.service_helpers import Service

openai = needed("openai", reason="the client that /v1 is for")

PROMPT = "오늘은 날씨가 맑아서"


def log_likelihood(loaded: Loaded, context: list[int], ids: list[int]) -> float:
    """Returns that of ids after others."""
    request = Request(np.array(context, np.int32), np.array(ids, np.int32))
    return Scorer(loaded.net, loaded.ctx).log_likelihoods([request])[0].log_likelihood


def greedy_pair(loaded: Loaded) -> tuple[str, str]:
    """Returns a prompt and the likeliest token after it, which are spelled as they are written."""
    encode = loaded.tokenizer.encode
    for prompt in (words.strip() for each in OWN_SENTENCES for words in (each, each[:8], each[:3])):
        text = loaded.text(prompt, Sampling(1, 0.0))
        if text and encode(prompt + text)[:-1] == encode(prompt):
            return prompt, text
    raise AssertionError("no greedy text is spelled as it is written")


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


def test_models(client, checkpoint):
    name = f"tiny/{checkpoint.name}"
    assert [model.id for model in client.models.list()] == [name, name]
    assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match="there is no 'gpt-4'"):
        client.models.retrieve("gpt-4")


def test_texts_are_those_of_kogpt2_generate(client, loaded):
    answer = client.completions.create(
        model="a", prompt=PROMPT, n=2, seed=5, max_tokens=20, temperature=0.8, top_p=0.9, user="someone"
    )
    sampling = Sampling(20, 0.8, top_p=0.9, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.text for choice in answer.choices] == [loaded.text(PROMPT, sampling, n) for n in range(2)]
    assert answer.usage.prompt_tokens == len(loaded.tokenizer.encode(PROMPT))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    own = client.completions.create(
        model="b", prompt=PROMPT, temperature=0, extra_body={"repetition_penalty": 1.4, "top_k": 5}
    )
    assert own.choices[0].text == loaded.text(PROMPT, Sampling(16, 0.0, 5, repetition_penalty=1.4))


def test_four_kinds_of_prompts(client, loaded):
    """Text and ids are the same prompt, with <s> and without; choices are numbered prompt by prompt."""
    texts = [PROMPT, "이 영화는"]
    ids = [loaded.tokenizer.encode(text) for text in texts]
    with_bos = [[loaded.tokenizer.bos_id, *each] for each in ids]
    expected = [loaded.text(text, Sampling(8, seed=2)) for text in texts]

    def texts_of(prompt: Any) -> list[str]:
        answer = client.completions.create(model="a", prompt=prompt, max_tokens=8, seed=2)
        return [choice.text for choice in answer.choices]

    assert texts_of(PROMPT) == texts_of(ids[0]) == texts_of(with_bos[0]) == expected[:1]
    assert texts_of(texts) == texts_of(ids) == texts_of(with_bos) == expected
    drawn = client.completions.create(model="a", prompt=[PROMPT] * 2, max_tokens=20, temperature=2)
    assert drawn.choices[0].text != drawn.choices[1].text  # without a seed each prompt has its own


def test_a_stream_is_the_answer_in_chunks(client):
    wanted = {
        "model": "a",
        "prompt": [PROMPT, "이 영화는"],
        "n": 2,
        "seed": 3,
        "max_tokens": 15,
        "logprobs": 2,
        "echo": True,
    }
    answer = client.completions.create(**wanted)
    chunks = list(client.completions.create(**wanted, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage == answer.usage and chunks[-1].choices == []
    for choice in answer.choices:
        own = [each.choices[0] for each in chunks[:-1] if each.choices[0].index == choice.index]
        assert "".join(each.text for each in own) == choice.text
        assert [each.finish_reason for each in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == choice.finish_reason
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            joined = [value for each in own for value in getattr(each.logprobs, name)]
            assert joined == getattr(choice.logprobs, name), name


def test_log_probabilities(client, loaded):
    answer = client.completions.create(model="a", prompt=PROMPT, max_tokens=12, seed=1, logprobs=3, echo=True)
    (choice,) = answer.choices
    found = choice.logprobs
    bos, ids = loaded.tokenizer.bos_id, loaded.tokenizer.encode(PROMPT)
    new = client.completions.create(model="a", prompt=PROMPT, max_tokens=12, seed=1, logprobs=0).choices[0]
    assert choice.text == PROMPT + new.text
    assert found.tokens[len(ids) :] == new.logprobs.tokens and new.logprobs.top_logprobs is None
    assert new.logprobs.text_offset == found.text_offset[len(ids) :]
    for place in range(len(ids)):
        expected = log_likelihood(loaded, [bos, *ids[:place]], ids[place : place + 1])
        assert found.token_logprobs[place] == pytest.approx(expected, abs=1e-4)
    assert sum(found.token_logprobs[: len(ids)]) == pytest.approx(log_likelihood(loaded, [bos], ids), abs=1e-3)
    assert found.text_offset == sorted(found.text_offset) and found.text_offset[0] == 0
    before = ""
    for offset, token in zip(found.text_offset, found.tokens):
        if not f"{before} {token}".count("bytes:") and not token.startswith("<"):  # no part of a character
            assert choice.text[offset:].startswith(token.strip() if offset == 0 else token), (offset, token)
        before = token
    for token, value, top in zip(found.tokens, found.token_logprobs, found.top_logprobs):
        assert top[token] == value <= max(top.values()) and 1 <= len(top) <= 4


def test_a_prompt_alone_is_scored(client, loaded):
    """max_tokens=0 with echo; <s>, where it is sent, has nothing in front."""
    bos, ids = loaded.tokenizer.bos_id, loaded.tokenizer.encode(PROMPT)
    answer = client.completions.create(model="a", prompt=[[bos, *ids], ids], max_tokens=0, logprobs=1, echo=True)
    first, second = answer.choices
    assert first.text == second.text == PROMPT and answer.usage.completion_tokens == 0
    assert first.logprobs.tokens == ["<s>", *second.logprobs.tokens]
    assert first.logprobs.token_logprobs == [None, *second.logprobs.token_logprobs]
    assert first.logprobs.top_logprobs[0] is None


def test_the_best_of_several(client):
    wanted = {"model": "a", "prompt": PROMPT, "seed": 4, "max_tokens": 10, "temperature": 1.5, "logprobs": 0}
    all_of_them = client.completions.create(**wanted, n=5).choices
    best = client.completions.create(**wanted, n=2, best_of=5)
    means = {choice.text: np.mean(choice.logprobs.token_logprobs) for choice in all_of_them}
    assert [choice.text for choice in best.choices] == sorted(means, key=means.__getitem__, reverse=True)[:2]
    assert best.usage.completion_tokens >= 5


def test_stop(client, loaded):
    whole = loaded.text(PROMPT, Sampling(30, seed=6))
    (choice,) = client.completions.create(model="a", prompt=PROMPT, seed=6, max_tokens=30, stop=whole[6:8]).choices
    assert choice.text == whole[: whole.index(whole[6:8])] and choice.finish_reason == "stop"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"presence_penalty": 0.5}, "repetition_penalty"),
        ({"frequency_penalty": -1}, "repetition_penalty"),
        ({"logit_bias": {"5": 1}}, "does not have it"),
        ({"suffix": "."}, "does not have it"),
        ({"best_of": 1, "n": 2}, "best_of: 1 is less than n=2"),
        ({"best_of": 2, "stream": True}, "cannot be streamed"),
        ({"logprobs": 21}, "logprobs"),
        ({"max_tokens": 1025}, "1,024"),
        ({"prompt": ["a", 1]}, "a string, ids"),
        ({"prompt": []}, "a string, ids"),
        ({"prompt": [10**9]}, "id 1000000000"),
        ({"prompt": "가" * 3000}, "positions"),
        ({"extra_body": {"messages": []}}, "no field 'messages'"),
    ],
)
def test_what_is_not_offered_is_refused(client, settings, words):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "a", "prompt": PROMPT, **settings})
    assert words in caught.value.body["message"]
    assert caught.value.type == "invalid_request_error" and caught.value.code == "bad_request"


def test_the_token(service):
    for key in ("wrong", TOKEN + "x", TOKEN[:-1], "토큰"):
        with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
            openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0).models.list()
    status, headers, content = service.ask("POST", "/generate", {"prompt": ""}, {"Authorization": "Basic eDp5"})
    assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="kogpt2"'), content
    for path, status in (("/", 200), ("/health", 200), ("/ready", 200), ("/metrics", 401), ("/about", 401)):
        assert service.ask("GET", path, headers={"Authorization": ""})[0] == status, path
    assert TOKEN not in " ".join(service.process.args)


# ---- lm-evaluation-harness ------------------------------------------------------------------------------------------


def test_local_completions_of_the_harness(service, checkpoint, loaded, tmp_path, transformers: ModuleType, monkeypatch):
    """Likelihoods, greedy or not, and texts up to a stop string are those of `kogpt2 lm-eval`."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: the extra harness")
    pytest.importorskip("tenacity", reason="the harness needs it for its clients")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from kogpt2_gluon.convert.huggingface import convert_checkpoint
    from kogpt2_gluon.tasks.harness import HarnessModel

    monkeypatch.setenv("OPENAI_API_KEY", TOKEN)
    convert_checkpoint(open_checkpoint(checkpoint), tmp_path / "converted")
    remote = LocalCompletionsAPI(
        base_url=f"{service.url}/v1/completions",
        model="a",
        tokenizer_backend="huggingface",
        tokenizer=str(tmp_path / "converted"),
        max_length=600,
        batch_size=4,
        max_retries=1,
    )
    local = HarnessModel(loaded.net, loaded.tokenizer, loaded.ctx)
    # The harness cuts a prompt's ids by their number: these have borders between pieces, at which both do the same.
    pairs = [
        ("오늘은 날씨가", " 맑아서"),
        ("오늘은 날씨가", " 재미있게 봤어요!"),
        ("이 영화는 정말", " 강변을 걸었다."),
    ]
    pairs += [("", "그 책은 아직 읽지 못했지만"), ("왜", " 그렇게 늦었는지 아무도 묻지 않았다.")]
    asked = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    asked.append(Instance("loglikelihood", {}, greedy_pair(loaded), 0))
    found, expected = remote.loglikelihood(asked, disable_tqdm=True), local.loglikelihood(asked)
    for (value, is_greedy), (wanted, wanted_greedy) in zip(found, expected):
        assert math.isclose(value, wanted, abs_tol=1e-4) and is_greedy == wanted_greedy
    assert any(is_greedy for _, is_greedy in found) and not all(is_greedy for _, is_greedy in found)

    whole = [Instance("loglikelihood_rolling", {}, (PROMPT,), 0)]
    assert remote.loglikelihood_rolling(whole, disable_tqdm=True) == pytest.approx(
        local.loglikelihood_rolling(whole), abs=1e-4
    )
    settings = {"until": ["다"], "max_gen_toks": 12}
    texts = [Instance("generate_until", {}, (prompt, dict(settings)), 0) for prompt in (PROMPT, "이 영화는")]
    assert remote.generate_until(texts, disable_tqdm=True) == local.generate_until(texts)
