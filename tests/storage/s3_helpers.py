"""S3 without a real account: what the tests of several rooms need to play it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.response import StreamingBody

from kogpt2_gluon.storage import s3

BUCKET = "korean-corpus"


@contextmanager
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Invented credentials in place of the machine's own, and a client of their own in the code."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no credentials"))
    s3._make_client.cache_clear()
    yield
    s3._make_client.cache_clear()


class Cut(io.BytesIO):
    """A body that gives `size` bytes and then breaks, or ends."""

    def __init__(self, data: bytes, size: int, error: Exception | None) -> None:
        super().__init__(data[:size])
        self._error = error

    def read(self, count: int | None = -1) -> bytes:
        data = super().read(count)
        if not data and self._error is not None:
            raise self._error
        return data


def answer(data: bytes, begin: int, size: int, error: Exception | None) -> dict[str, Any]:
    rest = data[begin:]
    return {"Body": StreamingBody(Cut(rest, size, error), None), "ContentLength": len(rest)}
