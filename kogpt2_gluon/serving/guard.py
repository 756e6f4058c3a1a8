"""The guard before the routes: who may ask, from where, how much, and when no more.

A request passes these in turn: the name of the host, the origin of a web page, the token, the drain, the kind and the
size of the body. Its body is read here, whole, so that no route sees a part of one.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kogpt2_gluon.serving.refusals import Refused
from kogpt2_gluon.serving.service import Service
from kogpt2_gluon.serving.worker import ENDED

# Whoever watches the service asks by whatever name or address it has; a browser asks for the page without a token.
WATCHED = ("/health", "/ready")
FREE = ("/", "/favicon.ico")
FREE_FOLDER = "/page/"
SECURITY: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Guard:
    """The outermost part of the app.

    Parameters
    ----------
    app : ASGI app
    service : Service
    routes : frozenset of str
        Paths that metrics name; all others are "other".
    """

    def __init__(self, app: ASGIApp, service: Service, routes: frozenset[str]) -> None:
        self._app, self._service, self._routes = app, service, routes
        self._token = service.settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
        assert scope["type"] == "http", scope["type"]
        exchange = _Exchange(self._service, scope, send, self._routes)
        try:
            origin = self._check(scope)
            exchange.origin = origin
            if scope["method"] == "OPTIONS" and origin:
                await _preflight(Headers(scope=scope))(scope, receive, exchange.send)
                return
            body = await self._body(scope, receive)
            if body is not None:
                self._refuse_if_ending(scope)  # the body may have taken a while
                with exchange.answering():
                    await self._app(scope, _Replay(body, receive), exchange.send)
        except Refused as refused:
            self._service.metrics.refused(refused.reason)
            await refused.response(scope["path"])(scope, receive, exchange.send)
        finally:
            exchange.end()

    def _check(self, scope: Scope) -> str:
        """Returns the origin that the answer may be shown to, "" for none. Refused where no answer is due."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        is_get = method in ("GET", "HEAD")
        if is_get and path in WATCHED:
            return ""
        # HTTP/1.0 has no Host; browsers always send one.
        host = headers.get("host")
        if host is not None and not self._service.settings.admits_host(host):
            raise Refused(
                403, "host", f"the service is not called {host[:80]!r}; --allow-host NAME admits another name"
            )
        origin = self._origin(headers, host or "")
        is_free = is_get and (path in FREE or path.startswith(FREE_FOLDER))
        if self._token and not is_free and not (method == "OPTIONS" and origin):
            self._check_token(headers)
        self._refuse_if_ending(scope)
        return origin

    def _refuse_if_ending(self, scope: Scope) -> None:
        if scope["method"] != "POST":
            return
        if self._service.is_draining:
            raise Refused(503, "draining", "the service is stopping", retry_after=5, headers={"Connection": "close"})
        if not self._service.worker.is_alive:
            raise Refused(503, "broken", ENDED)

    def _origin(self, headers: Headers, host: str) -> str:
        origin = headers.get("origin")
        if origin is None or urlsplit(origin).netloc.lower() == host.lower():
            return ""
        if origin in self._service.settings.allow_origins:
            return origin
        raise Refused(403, "origin", "pages from elsewhere may not use the service; --allow-origin ORIGIN admits one")

    def _check_token(self, headers: Headers) -> None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token)
        if kind.lower() != "bearer" or not is_right:
            challenge = {"WWW-Authenticate": 'Bearer realm="kogpt2"'}
            words = "the service wants its token, as Authorization: Bearer TOKEN"
            raise Refused(401, "token", words, headers=challenge)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Returns the body, None if the client is gone. Refused if it is too large or too slow."""
        headers, settings = Headers(scope=scope), self._service.settings
        most = settings.max_body_bytes
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "content_encoding", "send the body as it is, without Content-Encoding")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        try:
            return await asyncio.wait_for(_read(receive, most), settings.body_seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise Refused(
                408,
                "slow",
                f"the body did not come within {settings.body_seconds:g} s",
                headers={"Connection": "close"},
            ) from None


async def _read(receive: Receive, most: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(most: int) -> Refused:
    return Refused(413, "body_size", f"the body is larger than the {most:,} bytes that the service takes")


def _preflight(headers: Headers) -> Response:
    """Returns the answer to a browser's question if a page may send a request."""
    if headers.get("access-control-request-method") not in ("GET", "POST"):
        raise Refused(403, "origin", "a page from elsewhere may send GET and POST")
    allowed = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "authorization, content-type",
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=allowed)


class _Replay:
    """Gives the app the body that has been read, then what the connection has to say."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Exchange:
    """One request and its answer: headers that all answers have, and what is counted."""

    def __init__(self, service: Service, scope: Scope, send: Send, routes: frozenset[str]) -> None:
        self._service, self._send = service, send
        self._route = scope["path"] if scope["path"] in routes else "other"
        self._began, self._status = time.monotonic(), 0
        self.origin = ""

    async def send(self, message: Message) -> None:
        """Sends a part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY.items():
                headers.setdefault(name, value)
            if self._service.settings.allow_origins:
                headers.add_vary_header("Origin")
            if self.origin:
                headers["Access-Control-Allow-Origin"] = self.origin
                headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        await self._send(message)

    def answering(self) -> _Answering:
        """Counts the request as one that draining waits for."""
        return _Answering(self._service)

    def end(self) -> None:
        """Counts the request."""
        if self._status:
            self._service.metrics.answered(self._route, self._status, time.monotonic() - self._began)


class _Answering:
    def __init__(self, service: Service) -> None:
        self._service = service

    def __enter__(self) -> None:
        self._service.answering += 1

    def __exit__(self, *error: Any) -> None:
        self._service.answering -= 1
