"""Fixtures of the tests of S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.storage import s3
from tests.storage.s3_helpers import BUCKET, no_account


@pytest.fixture
def no_real_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Invented credentials, and no waiting between attempts."""
    monkeypatch.setattr(s3, "FIRST_WAIT", 0.0)
    with no_account(monkeypatch, tmp_path):
        yield


@pytest.fixture
def store(no_real_account: None) -> Iterator[Any]:
    """An empty bucket, played by moto."""
    import boto3
    import moto

    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def stubbed(no_real_account: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client that the code uses (botocore's Stubber), whose answers a test lays down."""
    import boto3
    from botocore.stub import Stubber

    client = boto3.client("s3")
    monkeypatch.setattr(s3, "_client", lambda: client)
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()
