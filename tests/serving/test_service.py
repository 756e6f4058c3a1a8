"""A real `kogpt2 serve`, whose checkpoint was deleted once it was loaded: what it writes, and what it refuses."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service needs it: the extra serve")

from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.scoring import Request, Scorer
from tests.serving.conftest import QUEUE, SLOTS
from tests.serving.page_helpers import POSITIONS
from tests.serving.service_helpers import at_once

PROMPT = "오늘은 날씨가 맑아서"
MANY, TEXTS = POSITIONS - 50, 80  # tokens of a text, and texts, which take a while
HEAD = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WORDS = ["오늘은", "날씨가", "맑아서", "강변을", "걸었다", "영화는", "재미있게", "봤어요", "음악도", "좋았다", "김치를"]


# ---- what it writes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"seed": 7, "num_samples": 3},
        {"seed": 8, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.3},
        {"seed": 9, "temperature": 0.7, "min_p": 0.02, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
        {"seed": 10, "typical_p": 0.8, "allow_unknown": True},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_texts_are_those_of_kogpt2_generate(service, loaded, settings):
    count = settings.get("num_samples", 1)
    sampling = {name: value for name, value in settings.items() if name != "num_samples"}
    answer = service.post("/generate", prompt=PROMPT, max_new_tokens=30, **settings)
    texts = [loaded.spelled(PROMPT) + each["text"] for each in answer["texts"]]
    assert texts == loaded.whole(PROMPT, Sampling(30, **sampling), count)
    tokenizer = loaded.tokenizer
    for each in answer["texts"]:
        assert each["text"] == "".join(token["text"] for token in each["tokens"])
        assert each["tokens_read"] == 1 + len(tokenizer.encode(PROMPT))
        assert each["tokens_written"] == sum(token["id"] != tokenizer.eos_id for token in each["tokens"])


def test_bad_words_are_not_written(service):
    plain = service.post("/generate", prompt=PROMPT, max_new_tokens=12, temperature=0)["texts"][0]
    word = next(token["text"].strip() for token in plain["tokens"] if token["text"].strip())
    other = service.post("/generate", prompt=PROMPT, max_new_tokens=12, temperature=0, bad_words=[word])["texts"][0]
    assert word in plain["text"] and word not in other["text"]


def test_a_drawn_seed_is_answered_and_repeats(service):
    first, second = (service.post("/generate", prompt=PROMPT, max_new_tokens=12) for _ in range(2))
    assert first["seed"] != second["seed"]
    again = service.post("/generate", prompt=PROMPT, max_new_tokens=12, seed=first["seed"])
    assert again["texts"] == first["texts"]


def test_a_stream_has_what_the_answer_has(service):
    wanted = {"prompt": PROMPT, "max_new_tokens": 25, "seed": 3, "num_samples": 2, "alternatives": 3}
    answer = service.post("/generate", **wanted)
    with service.stream(**wanted) as events:
        (name, start), *rest = events
    assert name == "start"
    assert start == {key: value for key, value in answer.items() if key != "texts"}
    for sample, text in enumerate(answer["texts"]):
        own = [(name, data) for name, data in rest if data["sample"] == sample]
        assert [data for name, data in own if name == "token"] == text["tokens"]
        ((last, end),) = own[-1:]
        assert last == "end"
        assert {**end, "text": text["text"], "tokens": text["tokens"]} == {**text, "sample": sample}
        for token in text["tokens"]:
            values = [value for _, value, _ in token["alternatives"]]
            assert len(values) == 3 and values == sorted(values, reverse=True)
            listed = {each: value for _, value, each in token["alternatives"]}
            assert listed.get(token["id"], token["log_probability"]) == token["log_probability"] <= values[0]


def test_a_text_goes_on_from_written_tokens(service):
    """Greedy, the second half of a text is the same after the first one as in one go."""
    whole = service.post("/generate", prompt=PROMPT, max_new_tokens=20, temperature=0)["texts"][0]
    ids = [token["id"] for token in whole["tokens"]]
    answer = service.post("/generate", prompt=PROMPT, written=ids[:8], max_new_tokens=12, temperature=0)
    assert [token["id"] for token in answer["texts"][0]["tokens"]] == ids[8:]
    assert answer["text"] + answer["texts"][0]["text"] == whole["text"]


def test_stop_strings_and_notes(service):
    whole = service.post("/generate", prompt=PROMPT, max_new_tokens=40, seed=5)["texts"][0]["text"]
    stop = whole[10:13]
    answer = service.post("/generate", prompt=PROMPT, max_new_tokens=40, seed=5, stop=["not in it", stop])
    assert answer["texts"][0]["text"] == whole[: whole.index(stop)]
    assert answer["texts"][0]["finish_reason"] == "stop"
    assert "</s>" in service.post("/generate", prompt="가 </s> 나", max_new_tokens=1)["notes"][0]


def test_scores_are_those_of_the_scorer(service, loaded):
    choices = [" 걸었다.", " 좋았다", " 영화는 정말 재미있게 봤어요!", "요", *(f" {word} {word}" for word in WORDS)]
    (encoded,) = PromptEncoder(loaded.tokenizer).encode([(PROMPT, choices)])
    found = Scorer(loaded.net, loaded.ctx).log_likelihoods([Request(encoded.context, ids) for ids in encoded.answers])
    answer = service.post("/score", prompt=PROMPT, choices=choices)
    assert [each["choice"] for each in answer["choices"]] == choices
    for each, expected in zip(answer["choices"], found):
        assert each["log_likelihood"] == pytest.approx(expected.log_likelihood, abs=1e-3)
        assert (each["is_greedy"], each["tokens"]) == (expected.is_greedy, expected.tokens)
    assert answer["best"] == max(range(len(choices)), key=lambda place: found[place].log_likelihood)


def test_fifty_clients_each_get_their_own_text(service, loaded):
    """Each prompt has a mark, and its text is the one that it has alone."""
    prompts = [f"{number} {WORDS[number % len(WORDS)]} {number * 7}" for number in range(50)]

    def client(number: int) -> str:
        wanted = {"prompt": prompts[number], "max_new_tokens": 5 + number % 7, "seed": number}
        if number % 2:
            return service.post("/generate", **wanted)["texts"][0]["text"]
        with service.stream(**wanted) as events:
            found = list(events)
        assert found[0][0] == "start" and found[-1][0] == "end"
        return "".join(data["text"] for _, data in found)

    def echo(number: int) -> str:
        wanted = {"model": "a", "prompt": prompts[number], "echo": True, "max_tokens": 5 + number % 7, "seed": number}
        return service.post("/v1/completions", **wanted)["choices"][0]["text"]

    texts = at_once([partial(client, number) for number in range(50)])
    echoed = at_once([partial(echo, number) for number in range(0, 50, 5)])
    for number, (prompt, text) in enumerate(zip(prompts, texts)):
        assert text == loaded.text(prompt, Sampling(5 + number % 7, seed=number))
    assert echoed == [prompts[number] + texts[number] for number in range(0, 50, 5)]


def test_a_client_that_hangs_up_frees_its_place(service):
    before = service.metric("kogpt2_tokens_written_total")
    wanted = {"prompt": PROMPT, "max_new_tokens": MANY, "min_new_tokens": MANY, "num_samples": TEXTS}
    with service.stream(**wanted) as events:
        for _ in range(3):
            next(events)
        assert service.metric("kogpt2_running_texts") == SLOTS
    service.wait_until(lambda: service.metric("kogpt2_running_texts") == 0)
    connection = service.connect()
    body = json.dumps(wanted).encode()
    authorized = HEAD + f"Authorization: Bearer {service.token}\r\n".encode()
    connection.sendall(authorized + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    service.wait_until(lambda: service.metric("kogpt2_running_texts") == SLOTS)
    connection.close()  # while it waits for the whole answer
    service.wait_until(lambda: service.metric("kogpt2_running_texts") == 0)
    assert service.metric("kogpt2_tokens_written_total") - before < MANY * TEXTS


def test_about_is_what_may_be_asked_for(service, loaded, checkpoint):
    about = service.get("/about")
    model, other = about["models"]
    assert (model["model"], other["model"]) == ("a", "b")
    assert model["name"] == f"tiny/{checkpoint.name}" and model["max_length"] == loaded.net.max_length
    ids = (loaded.tokenizer.vocab_size, loaded.tokenizer.eos_id)
    assert (model["units"], model["vocab_size"], model["end_id"]) == (96, *ids)
    assert about["limits"]["waiting"] == QUEUE
    answer = service.post("/generate", prompt=PROMPT, **{**about["defaults"], "max_new_tokens": 1, "seed": 1})
    assert answer["seed"] == 1
    too_many = about["limits"]["max_new_tokens"] + 1
    assert "1,024" in service.post("/generate", 400, prompt="", max_new_tokens=too_many)["error"]["message"]


# ---- what it refuses ------------------------------------------------------------------------------------------------

LONG = {"prompt": "가" * 2000}
BAD = {
    "no JSON": (b"{", 400, "line 1, column 2"),
    "nothing": (b"", 400, "the body is empty"),
    "a list": (b"[]", 400, "the body: input should be a valid dictionary"),
    "bad UTF-8": (b'{"prompt": "\xff"}', 400, "byte 12 is 0xff"),
    "UTF-16": ('{"prompt": ""}'.encode("utf-16"), 400, "UTF-8"),
    "half of a surrogate pair": (b'{"prompt": "\\ud83d"}', 400, "U+D83D"),
    "NaN": (b'{"prompt": "", "temperature": NaN}', 400, "NaN"),
    "a number too large": (b'{"prompt": "", "temperature": 1e999}', 400, "temperature"),
    "a number too long": (b'{"prompt": "", "seed": ' + b"9" * 5000 + b"}", 400, "digits"),
    "nested": (b'{"prompt": ' + b"[" * 100_000, 400, "deep"),
    "a name twice": (b'{"prompt": "a", "prompt": "b"}', 400, "'prompt' twice"),
    "a number for a text": ({"prompt": 3}, 400, "prompt: input should be a valid string, not 3"),
    "a text for a number": ({"prompt": "", "seed": "3"}, 400, "seed"),
    "true for a number": ({"prompt": "", "top_k": True}, 400, "top_k"),
    "null": ({"prompt": None}, 400, "prompt: input should be a valid string, not null"),
    "no prompt": ({}, 400, "prompt: field required"),
    "misspelled": ({"prompt": "", "temprature": 1}, 400, "did you mean 'temperature'?"),
    "out of range": ({"prompt": "", "top_p": 0}, 400, "top_p"),
    "another network": ({"prompt": "", "model": "c"}, 400, "model: input should be 'a' or 'b'"),
    "too long a prompt": (LONG, 400, f"{POSITIONS} positions"),
    "texts for ids": ({"prompt": "", "written": ["a"] * 150_000}, 400, "written[0]: input should be a valid integer"),
    "unknown ids": ({"prompt": "", "written": [10**6]}, 400, "id 1000000"),
    "least above most": ({"prompt": "", "max_new_tokens": 2, "min_new_tokens": 3}, 400, "min_new_tokens=3"),
    "too large an answer": (
        {"prompt": "", "num_samples": 80, "max_new_tokens": 1000, "alternatives": 20},
        400,
        "ask for fewer",
    ),
    "too many texts": ({"prompt": "", "num_samples": 100}, 400, "94"),
    "an empty stop": ({"prompt": "", "stop": [""]}, 400, "stop[0]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_get_one_line(service, name):
    body, status, words = BAD[name]
    got, headers, content = service.ask("POST", "/generate", body)
    assert (got, headers["content-type"]) == (status, "application/json"), content
    error = json.loads(content)["error"]
    assert set(error) == {"reason", "message"} and words in error["message"] and "\n" not in error["message"]
    assert "Traceback" not in content.decode()


def test_bad_scores(service):
    for body, words in (
        ({"prompt": "가", "choices": []}, "choices"),
        ({"prompt": "가", "choices": [""]}, "adds no token"),
        ({"prompt": "가", "choices": ["나" * 2000]}, "positions"),
        ({"prompt": "가", "choices": ["\ud800"]}, "U+D800"),
    ):
        assert words in service.post("/score", 400, **body)["error"]["message"]


def test_addresses_methods_and_kinds_of_body(service):
    def ask(*arguments: Any) -> tuple[int, str]:
        status, _, content = service.ask(*arguments)
        return status, json.loads(content)["error"]["reason"]

    assert ask("GET", "/nothing") == (404, "not_found")
    assert ask("GET", "/page/../secret") == (404, "not_found")
    assert ask("GET", "/generate") == (405, "method")
    assert ask("POST", "/generate", b"{}", {"Content-Type": "text/plain"}) == (415, "content_type")
    assert ask("POST", "/generate", b"{}", {"Content-Encoding": "gzip"}) == (415, "content_encoding")
    assert "/v1/completions" in service.post("/v1/chat/completions", 404)["error"]["message"]
    openapi = service.get("/openapi.json")
    assert {"/generate", "/score", "/v1/completions", "/health", "/metrics"} <= set(openapi["paths"])


def test_a_body_of_100_mb_is_refused_unread(service):
    size = 100 << 20
    before = service.memory()
    head = HEAD + f"Authorization: Bearer {service.token}\r\n".encode()
    connection = service.connect()
    connection.sendall(head + f"Content-Length: {size}\r\n\r\n".encode())
    assert b" 413 " in connection.recv(4096)
    connection.close()
    connection = service.connect()  # one that does not say how long it is
    connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
    part = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    for _ in range(8):
        connection.sendall(part)
    assert b" 413 " in connection.recv(4096)
    connection.close()
    assert service.memory() - before < 30 << 20
    assert service.post("/generate", prompt=PROMPT, max_new_tokens=1)["texts"]


def test_what_is_not_http(service):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000):
        with service.connect() as connection:
            connection.sendall(data[:40_000])
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400 ") and b'"not_http"' in answer, answer


def test_other_names_and_other_pages_are_refused(service):
    """A page elsewhere cannot use a service of this machine, not even by making its own name mean 127.0.0.1."""

    def ask(method: str = "POST", **headers: str) -> tuple[int, dict[str, str]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answered, _ = service.ask(method, "/generate", {"prompt": "", "max_new_tokens": 1}, named)
        return status, answered

    own = f"127.0.0.1:{service.port}"
    for name in (own, "localhost:1234", "[::1]:80", "LOCALHOST"):
        assert ask(Host=name)[0] == 200, name
    for name in ("evil.example", "127.0.0.1.evil.example", "evil.example:80", ""):
        assert ask(Host=name)[0] == 403, name
    assert ask(Host=own, Origin=f"http://{own}")[0] == 200
    assert service.ask("GET", "/ready", headers={"Host": "10.0.0.7:8000"})[0] == 200  # as Kubernetes asks
    with service.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")  # as HAProxy does
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    for origin in ("https://evil.example", "null", "https://page.example:444", "http://page.example"):
        status, answered = ask(Origin=origin)
        assert status == 403 and "access-control-allow-origin" not in answered
    status, answered = ask(Origin="https://page.example")
    assert (status, answered["access-control-allow-origin"]) == (200, "https://page.example")
    status, answered = ask("OPTIONS", Origin="https://page.example", Access_Control_Request_Method="POST")
    assert status == 204 and "content-type" in answered["access-control-allow-headers"]


def test_all_answers_are_safe_for_browsers(service):
    for path in ("/", "/about", "/nothing", "/openapi.json", "/page/page.js"):
        _, headers, _ = service.ask("GET", path)
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"].startswith("no-")
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_what_is_counted(service):
    service.ask("GET", "/nothing")
    _, headers, content = service.ask("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain")
    text = content.decode()
    for name in (
        'kogpt2_requests_total{route="/generate",status="200"}',
        'kogpt2_refused_total{reason="not_found"}',
        'kogpt2_request_seconds_count{route="/generate"}',
        "kogpt2_first_token_seconds_count",
        "kogpt2_tokens_read_total",
        "kogpt2_waiting_texts",
        "kogpt2_connections",
    ):
        assert name in text, name
    assert "/nothing" not in text  # a client cannot make up series


def test_health(service):
    assert service.get("/health") == service.get("/ready") == {"status": "ok"}
    for path in ("/health", "/ready", "/"):
        status, _, content = service.ask("HEAD", path)
        assert (status, content) == (200, b"")
