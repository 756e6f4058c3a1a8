"""Parts that all routes share: strict JSON, streams that give their places back, refusals in the OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from kogpt2_gluon.serving.refusals import Refused, bad_request
from kogpt2_gluon.serving.service import Texts, unless_gone

T = TypeVar("T")
# Prompts are encoded in a thread of their own: a long one takes a while, and the event loop answers others meanwhile.
SHORT = 500  # characters, which are encoded in less time than it takes to have another thread do it
_ENCODING = ThreadPoolExecutor(1, "encoding")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function that takes a while, in another thread than the event loop's."""
    return await asyncio.get_running_loop().run_in_executor(_ENCODING, function, *arguments)


async def in_thread_if_long(size: int, function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function, in the thread of :func:`in_thread` if its text of `size` characters or ids is a long one."""
    return function(*arguments) if size <= SHORT else await in_thread(function, *arguments)


def refusals(form: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Returns what OpenAPI says of answers that refuse."""
    return {
        "4XX": {"model": form, "description": "The request is refused, and what is wrong with it."},
        "5XX": {"model": form, "description": "The service stops, is too slow, or failed."},
    }


def stream_item(description: str) -> dict[str, Any]:
    """Returns what OpenAPI says of an event of a stream, as its version 3.2 does; `data` is JSON."""
    fields = {"event": {"type": "string"}, "data": {"type": "string", "description": description}}
    return {"type": "object", "properties": fields, "required": ["data"]}


def as_refusal(error: Exception) -> Refused:
    """Returns what a stream ends with that has begun and cannot go on; what is no refusal is written to the log."""
    if isinstance(error, Refused):
        return error
    traceback.print_exception(type(error), error, error.__traceback__)
    return Refused(500, "failed", "the service failed; its log has the reason")


def gone() -> Response:
    """Returns the answer that nobody reads."""
    return Response(status_code=499)


class StrictRequest(Request):
    """A request whose JSON is read as JSON is defined, with words about what is wrong with it."""

    async def json(self) -> Any:
        """Returns the body. Refused if it is not JSON in UTF-8, if it has NaN, a name twice, or is nested too deep."""
        try:
            text = (await self.body()).decode()
        except UnicodeDecodeError as error:
            raise bad_request(
                f"the body is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
            ) from None
        try:
            return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except RecursionError:
            raise bad_request("the body is nested too deep") from None
        except json.JSONDecodeError as error:
            raise bad_request(f"the body is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
        except ValueError as error:  # such as a number of thousands of digits
            raise bad_request(f"the body: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise bad_request(f"the body has {twice[:80]!r} twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise bad_request(f"the body is not JSON: it has {name}, which JSON lacks")


class StrictRoute(APIRoute):
    """A route that takes a :class:`StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns FastAPI's own handler, with another request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method == "POST" and kind != "application/json":
                raise Refused(415, "content_type", "send JSON, with Content-Type: application/json")
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


class EventStream(StreamingResponse):
    """A stream of the events of texts, which end with it."""

    media_type = "text/event-stream"

    def __init__(self, texts: Texts, lines: AsyncIterator[str]) -> None:
        # A proxy such as nginx passes on each event at once when it sees the last header.
        super().__init__(lines, headers={"X-Accel-Buffering": "no"})
        self._texts = texts

    @classmethod
    async def begin(cls, texts: Texts, lines: AsyncIterator[str], request: Request) -> Response:
        """Returns the stream once it has its first line, so that what is refused until then has a status of its own."""
        texts.open()
        try:
            first = await unless_gone(_first(lines), request.receive)
        except BaseException:
            texts.close()
            raise
        if first is None:
            texts.close()
            return gone()
        return cls(texts, _joined(first, lines))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._texts.close()


async def _first(lines: AsyncIterator[str]) -> str:
    async for line in lines:
        return line
    raise Refused(500, "failed", "nothing was written")


async def _joined(first: str, lines: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for line in lines:
        yield line
