"""The service that most tests of this room share; tests/conftest.py keeps their files in one process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kogpt2_gluon.inference.generation import generate
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.sampling import Sampling
from tests.serving.page_helpers import make_network
from tests.serving.service_helpers import Service, serving

TOKEN = "the-token-of-these-tests"
SLOTS, QUEUE = 4, 90


class Loaded(SimpleNamespace):
    """The network that is served, and its tokenizer."""

    net: Any
    tokenizer: Any
    ctx: Any

    def whole(self, prompt: str, sampling: Sampling, count: int = 1) -> list[str]:
        """Returns texts as `kogpt2 generate` writes them, with their prompt."""
        return generate(self.net, self.tokenizer, prompt, sampling, count, self.ctx)

    def text(self, prompt: str, sampling: Sampling, sample: int = 0) -> str:
        """Returns what follows a prompt in one of them."""
        return self.whole(prompt, sampling, sample + 1)[sample][len(self.spelled(prompt)) :]

    def spelled(self, prompt: str) -> str:
        """Returns a prompt as its tokens spell it."""
        return self.tokenizer.decode(self.tokenizer.encode(prompt))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network whose texts end at some point."""
    return make_network(tmp_path_factory.mktemp("network"), "lossless", end_scale=0.5)


@pytest.fixture(scope="session")
def loaded(checkpoint: Path) -> Loaded:
    net, tokenizer, _, ctx = load_checkpoint(checkpoint)
    return Loaded(net=net, tokenizer=tokenizer, ctx=ctx)


@pytest.fixture(scope="session")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose checkpoint was deleted once it was loaded."""
    copy = tmp_path_factory.mktemp("copy") / checkpoint.name
    shutil.copytree(checkpoint, copy)
    options = ("--slots", SLOTS, "--queue", QUEUE, "--allow-origin", "https://page.example")
    with serving(copy, "--compare", copy, *options, token=TOKEN) as service:
        shutil.rmtree(copy)
        yield service
