"""The service that most tests of this room share; tests/conftest.py keeps their files in one process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.browser import CHROMIUM
from kogpt2_gluon.inference.generation import generate
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.sampling import Sampling
from tests.serving.page_helpers import Served, make_network, serve
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


@pytest.fixture(scope="session")
def page_networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that goes on writing, and one of bytes that soon ends."""
    folder = tmp_path_factory.mktemp("networks")
    return make_network(folder / "one", "nmt_nfkc"), make_network(folder / "other", "lossless", end_scale=3.0)


@pytest.fixture(scope="session")
def page_service(page_networks: tuple[Path, Path]) -> Iterator[Served]:
    """A service whose page the tests use."""
    with serve(page_networks[0], "--compare", page_networks[1]) as service:
        yield service


@pytest.fixture(scope="module")  # while it is open, nothing else in its process can run an event loop
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A function that opens windows; they are closed after the test."""
    from tests.serving.page_tab import Tab

    opened: list[Tab] = []

    def make(service: Served, width: int = 1280, scheme: str = "light", **options: Any) -> Tab:
        opened.append(Tab(browser, service.url, width, scheme, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.context.close()
