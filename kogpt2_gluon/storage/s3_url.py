"""Addresses of S3: ``s3://bucket/key``. Needs no boto3."""

from __future__ import annotations

import re
from pathlib import Path

S3_URL = re.compile(r"s3:/+(?P<bucket>[^/]+)/*(?P<key>.*)", re.DOTALL)  # pathlib turns two slashes into one


def is_s3_url(argument: str | Path) -> bool:
    """Returns True if an argument means S3 (``s3://bucket/...``) and not a file."""
    return S3_URL.fullmatch(str(argument)) is not None


def split_s3_url(url: str | Path) -> tuple[str, str]:
    """Returns (bucket, key or prefix) of ``s3://bucket/key``."""
    found = S3_URL.fullmatch(str(url))
    assert found is not None, url
    return found["bucket"], found["key"]
