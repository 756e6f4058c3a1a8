"""The app: all routes, the page, and what watches the service."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from kogpt2_gluon import __version__
from kogpt2_gluon.serving.forms import Form
from kogpt2_gluon.serving.guard import Guard
from kogpt2_gluon.serving.metrics import CONTENT_TYPE
from kogpt2_gluon.serving.native_api import native_api
from kogpt2_gluon.serving.openai_api import openai_api
from kogpt2_gluon.serving.page.files import HEADERS, page_files
from kogpt2_gluon.serving.refusals import Refused, bad_form
from kogpt2_gluon.serving.sagemaker import SageMakerPaths
from kogpt2_gluon.serving.service import Service

DESCRIPTION = """Text from a checkpoint of KoGPT-2. `/v1` is for clients of OpenAI's API, and refuses what it lacks.
With a token, requests need the header `Authorization: Bearer TOKEN`, all but `/`, `/health` and `/ready`."""
WORDS = {404: "there is nothing at this address", 405: "this address does not take this method"}


class Health(Form):
    """Says how the service is."""

    status: Literal["ok", "draining", "broken"]


def make_app(service: Service) -> ASGIApp:
    """Returns the app of a service."""
    # The documentation pages of FastAPI load scripts from elsewhere.
    app = FastAPI(title="kogpt2 serve", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None)
    app.include_router(native_api(service))
    app.include_router(openai_api(service))
    _add_watching(app, service)
    _add_page(app)
    _add_errors(app, service)
    return SageMakerPaths(Guard(app, service, frozenset(app.openapi()["paths"]) | {"/", "/openapi.json"}))


def _add_watching(app: FastAPI, service: Service) -> None:
    unhealthy: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "It is not."}}

    @app.get("/health", responses=unhealthy)
    async def health(response: Response) -> Health:
        """Says if the service works: an answer of 503 does not go away by itself."""
        if service.worker.is_alive:
            return Health(status="ok")
        response.status_code = 503
        return Health(status="broken")

    @app.get("/ready", responses=unhealthy)
    async def ready(response: Response) -> Health:
        """Says if the service takes requests; after SIGTERM it does not."""
        if service.worker.is_alive and not service.is_draining:
            return Health(status="ok")
        response.status_code = 503
        return Health(status="draining" if service.worker.is_alive else "broken")

    for path, asked in (("/health", health), ("/ready", ready)):  # some watchers ask for the head alone
        app.add_api_route(path, asked, methods=["HEAD"], include_in_schema=False)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Gives the counters of the service, as Prometheus reads them."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI) -> None:
    files = page_files()

    async def page(request: Request) -> Response:
        file = files[request.url.path]
        return Response(file.content, headers=dict(HEADERS), media_type=file.content_type)

    for path in files:
        app.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False)


def _add_errors(app: FastAPI, service: Service) -> None:
    """Gives every failure the one form; uvicorn's log has the reason of an answer of 500."""

    def answer(request: Request, refused: Refused) -> JSONResponse:
        service.metrics.refused(refused.reason)
        return refused.response(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def bad(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(request, bad_form(error.errors()))

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Refused):
            return answer(request, error)
        words = WORDS.get(error.status_code, str(error.detail))
        if request.url.path.startswith("/v1/chat/"):
            words = "the network has learned no conversations: POST /v1/completions continues a text"
        reason = {404: "not_found", 405: "method"}.get(error.status_code, "bad_request")
        return answer(request, Refused(error.status_code, reason, words, headers=error.headers))

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> JSONResponse:
        return answer(request, Refused(500, "failed", "the service failed; its log has the reason"))
