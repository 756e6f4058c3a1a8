"""Requests made from the service's own OpenAPI document, good ones and bad ones: none of them is answered with 500."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

pytest.importorskip("fastapi", reason="the service needs it: the extra serve")
pytest.importorskip("schemathesis", reason="makes the requests")

import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.serving.conftest import TOKEN
from tests.serving.service_helpers import Service

load_all_checks()
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
TOKENS = 4  # of a text at most, so that many requests take little time


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json", headers=HEADERS)


def check(case: Any) -> None:
    """Sends a request: the answer must be one that the document has, and bad requests are refused."""
    if case.meta.generation.mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
        # A name and numbers that the document cannot know, so that more requests are written, not refused.
        if "model" in case.body:
            case.body["model"] = "a"
        case.body.update({name: TOKENS for name in ("max_tokens", "max_new_tokens") if case.body.get(name)})
    # A request that fits the document can be refused: a prompt can be too long, or a choice have no token.
    case.call_and_validate(excluded_checks=[positive_data_acceptance, ignored_auth], headers=HEADERS, timeout=60)


def send(document: Any, examples: int) -> int:
    """Sends so many requests of each kind to each address; returns how many addresses there are."""
    count = 0
    for result in document.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            made = settings(
                max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about a GET without parameters
                made(given(result.ok().as_strategy(generation_mode=mode))(check))()
        count += 1
    return count


def test_requests(document):
    assert send(document, 8) >= 9


@pytest.mark.slow
def test_many_requests(document):
    assert send(document, 200) >= 9


def test_nothing_failed(service):
    """Runs last."""
    text = service.ask("GET", "/metrics")[2].decode()
    assert 'status="200"' in text and 'status="400"' in text
    assert 'status="5' not in text, text
    assert not [line for line in service.errors if "Traceback" in line], service.errors
