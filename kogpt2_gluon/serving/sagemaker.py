"""The paths by which Amazon SageMaker calls a container of one's own: they lead to those that the service has."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

PATHS = {"/ping": "/ready", "/invocations": "/generate"}


class SageMakerPaths:
    """An app that is also there at SageMaker's paths, with all that holds for its own: limits, errors, streams.

    Parameters
    ----------
    app : ASGI app
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on."""
        path = PATHS.get(scope["path"])
        if path:
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)
