"""Functions that AWS's container with MXNet calls: `model_fn` loads a network, `transform_fn` answers a request.

``code/inference.py`` of the archive (:mod:`kogpt2_gluon.convert.sagemaker_archive`) has both. The container is that of
aws/sagemaker-mxnet-inference-toolkit: a Java server hands requests to worker processes, each of which loads the network
and answers one request at a time. A request is that of /generate without `stream`.

Python 3.8 runs this module, and all that it imports, after :mod:`kogpt2_gluon.convert.older_python`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Union

from pydantic import ValidationError

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.serving.forms import GenerateRequest
from kogpt2_gluon.serving.native_api import Generation
from kogpt2_gluon.serving.networks import Loading, Network
from kogpt2_gluon.serving.refusals import Refused, bad_form, bad_request
from kogpt2_gluon.serving.routes import StrictRequest
from kogpt2_gluon.serving.service import Service
from kogpt2_gluon.serving.settings import Settings

try:
    from sagemaker_inference.errors import BaseInferenceToolkitError as ToolkitError
except ImportError:  # it is in that container alone
    ToolkitError = Exception

JSON = "application/json"
SECONDS = "KOGPT2_REQUEST_SECONDS"  # of the environment
DEFAULT_SECONDS = 50.0  # SageMaker waits for 60, and the server ends a worker that takes longer
MOST_NEW_TOKENS = 1 << 20  # the network's positions end a text before

Body = Union[str, bytes, bytearray, None]


class RefusedRequest(ToolkitError):  # noqa: N818 - as Refused
    """A request that is refused, in the form that the toolkit makes an answer of.

    Parameters
    ----------
    status : int
    message : str
        One line: the first of the answer's body. The toolkit adds where in the code it was raised.
    """

    def __init__(self, status: int, message: str) -> None:
        Exception.__init__(self, status, message)
        self.status_code, self.message, self.phrase = status, message, HTTPStatus(status).phrase


def model_fn(model_dir: str) -> Service:
    """Loads the checkpoint in `model_dir`, which may be read-only; returns the service that answers with it."""
    network = Network("a", Path(model_dir), Loading(), num_slots=8)
    service = Service({"a": network}, Settings(request_seconds=_seconds(), max_new_tokens=MOST_NEW_TOKENS))
    service.worker.start()
    return service


def transform_fn(service: Service, data: Body, content_type: str | None, accept: str | None) -> tuple[str, str]:
    """Answers a request; returns the answer and its type. RefusedRequest for one that is not answered as it wants.

    The toolkit decodes the body if its type is exactly application/json, and else leaves it as bytes.
    """
    try:
        _check_types(content_type, accept)
        answer = asyncio.run(_answer(service, data.encode() if isinstance(data, str) else bytes(data or b"")))
    except Refused as refused:
        raise RefusedRequest(refused.status_code, refused.message) from None
    return answer, JSON


async def _answer(service: Service, body: bytes) -> str:
    wanted = await _read(body)
    if wanted.stream:
        raise bad_request("stream: this container answers once; leave it out", "stream")
    generation = Generation.read(service, wanted)
    with service.write(generation.network, generation.requests, is_stream=False) as texts:
        return json.dumps(await generation.answer(texts), ensure_ascii=False, allow_nan=False)


async def _read(body: bytes) -> GenerateRequest:
    """Reads a body as /generate does."""
    if not body.strip():
        raise bad_request('the body is empty; it is JSON, such as {"prompt": "..."}')

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    content = await StrictRequest({"type": "http", "headers": []}, receive).json()
    try:
        return GenerateRequest.model_validate(content)
    except ValidationError as error:
        raise bad_form(error.errors()) from None


def _check_types(content_type: str | None, accept: str | None) -> None:
    """Refused unless the body is JSON in UTF-8 and JSON may be the answer."""
    kind, parameters = _parsed(content_type or "")
    if kind != JSON:
        what = f"the content type is {kind}" if kind else "the request has no content type"
        raise Refused(415, "bad_content_type", f"{what}; send {JSON}")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Refused(415, "bad_content_type", f"the charset is {parameters['charset']}; send UTF-8")
    admitted = [_parsed(each) for each in (accept or "*/*").split(",")]
    if not any(each in (JSON, "application/*", "*/*") and quality.get("q") != "0" for each, quality in admitted):
        raise Refused(406, "bad_accept", f"the answer is {JSON}, and the request accepts {accept} only")


def _parsed(header: str) -> tuple[str, dict[str, str]]:
    """Returns a media type in lower case and its parameters, of a header."""
    kind, *parameters = (part.strip() for part in header.split(";"))
    return kind.lower(), dict(_pairs(parameters))


def _pairs(parameters: list[str]) -> Iterator[tuple[str, str]]:
    for each in parameters:
        name, _, value = each.partition("=")
        yield name.strip().lower(), value.strip().strip('"')


def _seconds() -> float:
    """The seconds for a request, of the environment. RecipeError if they are no number above 0."""
    text = os.environ.get(SECONDS, "") or str(DEFAULT_SECONDS)
    try:
        return float(text)
    except ValueError:
        raise RecipeError(f"environment variable {SECONDS}={text}: it must be a number of seconds") from None
