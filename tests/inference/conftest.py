"""A network in both libraries, for the tests of searches."""

from __future__ import annotations

import pytest

from tests.inference.search_helpers import Pair, make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory, small_tokenizer, transformers) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"), small_tokenizer, end=1.5)
