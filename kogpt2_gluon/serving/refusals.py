"""Requests that are refused: a status, a word for programs and one line for people, in one JSON form.

Under /v1 the form is that of OpenAI's API, ``{"error": {"message", "type", "param", "code"}}``, elsewhere
:class:`~kogpt2_gluon.serving.forms.Refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kogpt2_gluon.errors import KoGPT2Error

OPENAI = "/v1/"
LONGEST_VALUE = 40  # characters of a refused value that are shown
# OpenAI's types of errors, by status; others are invalid_request_error or server_error.
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refused(HTTPException):
    """A request that is not answered as it wants.

    Parameters
    ----------
    status : int
    reason : str
        A word for programs, also a label in /metrics: few different ones.
    message : str
        One line.
    param : str or None
        The field that is at fault.
    retry_after : float or None
        In how many seconds it may work.
    headers : mapping
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = str(KoGPT2Error(message))  # safe to show, whatever a client sent
        retry = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
        super().__init__(status, message, {**retry, **(headers or {})})
        self.reason, self.message, self.param = reason, message, param

    def content(self, path: str) -> dict[str, Any]:
        """Returns the JSON for a request to a path."""
        if is_openai(path):
            kind = TYPES.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")
            return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.reason}}
        return {"error": {"reason": self.reason, "message": self.message}}

    def response(self, path: str) -> JSONResponse:
        """Returns the answer to a request to a path."""
        return JSONResponse(self.content(path), self.status_code, self.headers)


def is_openai(path: str) -> bool:
    """Returns True for a path whose clients expect OpenAI's forms."""
    return path.startswith(OPENAI) or path == OPENAI.rstrip("/")


def bad_request(message: str, param: str | None = None) -> Refused:
    """Returns the refusal of a request that does not make sense."""
    return Refused(400, "bad_request", message, param)


def bad_form(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """Returns the refusal of a body that does not fit its form, of pydantic's list of errors: the first three."""
    lines, param = [], None
    for error in errors[:3]:
        place = _place(error.get("loc", ()))
        param = param or place.partition("[")[0] or None
        if not place and error.get("type") == "missing":
            lines.append("the body is empty: send a JSON object")
            continue
        place = place or ("" if error.get("type") == "value_error" else "the body")
        words = str(error.get("msg", "")).removeprefix("Value error, ")
        words = words[:1].lower() + words[1:] if place else words
        lines.append(f"{place}: {words}{_value(error)}" if place else words)
    if len(errors) > 3:
        lines.append(f"and {len(errors) - 3} more")
    return Refused(400, "bad_request", "; ".join(lines), param)


def _place(loc: Sequence[Any]) -> str:
    """Returns stop[3] for ("body", "stop", 3)."""
    place = ""
    for part in loc[1:] if loc[:1] in (("body",), ["body"]) else loc:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place


def _value(error: Mapping[str, Any]) -> str:
    value = error.get("input")
    if error.get("type") in ("missing", "value_error") or not isinstance(value, (str, int, float, type(None))):
        return ""
    if isinstance(value, int) and abs(value) >= 10**LONGEST_VALUE:
        return ", not such a large number"
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return f", not {shown[:LONGEST_VALUE]}{'...' * (len(shown) > LONGEST_VALUE)}"
