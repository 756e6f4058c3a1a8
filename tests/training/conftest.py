"""S3 for the tests of mirrors."""

from __future__ import annotations

from tests.storage.conftest import no_real_account, store

__all__ = ["no_real_account", "store"]
