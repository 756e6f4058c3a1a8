"""Fixtures of several rooms: small shards made by the package's own stages, a tiny recipe, a checkpoint to convert."""

from __future__ import annotations

import functools
import gc
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers import MARK, make_shards, tiny_settings
from tests.process_memory import give_back_memory

if TYPE_CHECKING:
    from kogpt2_gluon.runs.checkpoint import Checkpoint

pytest.register_assert_rewrite(
    "tests.convert.onnx_helpers", "tests.corpus.cleaning.cleaning_helpers", "tests.shards.shard_helpers"
)  # its asserts show their values, as those of a test file do


os.environ["PATH"] += os.pathsep + MARK
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # moto would make 1,286 images for each account that it plays

# Files that share one process when tests run side by side: the launcher's wait more than they compute, the kernels for
# the CPU are compiled once in a process, and one service answers several files.
TOGETHER = {
    "launcher": (
        "tests/chaos/test_two_hosts.py",
        "tests/launch/render/test_slurm.py",
        "tests/launch/run/test_job.py",
        "tests/launch/run/test_local.py",
        "tests/launch/host/test_host.py",
    ),
    "kernels": (
        "tests/ops/test_cuda_kernels.py",
        "tests/ops/test_cuda_operators.py",
        "tests/ops/test_cuda_update.py",
        "tests/ops/test_fused_cuda_model.py",
        "tests/training/test_update.py",
    ),
    "service": (
        "tests/serving/test_networks.py",
        "tests/serving/test_openai.py",
        "tests/serving/test_schema.py",
        "tests/serving/test_service.py",
        "tests/serving/test_worker.py",
    ),
    "page": (
        "tests/serving/test_page.py",
        "tests/serving/test_page_text.py",
    ),
}
GROUPS = {file: name for name, files in TOGETHER.items() for file in files}
# Files that take long begin first, so that none is left over at the end; the launcher's wait more than they compute.
FIRST = (
    *TOGETHER["launcher"],
    "tests/install/test_wheel.py",
    "tests/ops/test_cuda_build.py",
    "tests/training/test_precision.py",
    "tests/words/test_commands.py",
    "tests/cli/test_cli.py",
    "tests/launch/plan/test_discovery.py",
    "tests/training/test_training.py",
    "tests/chaos/test_chaos.py",
    *TOGETHER["kernels"],
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take long first."""
    order = {file: number for number, file in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(_file_of(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's; unknown where that is switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives each process whole files, since tests of a file share fixtures, and those of TOGETHER to one.

    Its own way, `--dist loadgroup`, has no effect with pytest 9.2: xdist 3.8.0 sets a field that pytest reads no more.
    """
    from tests.scheduler import FileScheduling

    return FileScheduling(config, log, lambda nodeid: GROUPS.get(_file_of(nodeid), _file_of(nodeid)))


def pytest_collection_finish() -> None:
    """Takes what every test needs, a million objects, out of what the garbage collector walks through."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Gives memory back that a test's networks took; see tests/process_memory.py."""
    give_back_memory()


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.fixture(scope="session", autouse=True)
def aws_models_are_read_once() -> Iterator[None]:
    """Each client of AWS has a session of its own, which would parse megabytes of service descriptions again."""
    from botocore import session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "create_loader", functools.cache(session.create_loader))
        yield


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard() -> None:
    """A suite that was started by nohup or in the background begins with some of them ignored, and hands that on."""
    for number, default in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and test/ shards of the package's own sentences; vocabulary 1200, 4 KiB chunks."""
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def tiny(shards: Path, tmp_path: Path) -> list[str]:
    """Overrides that turn any recipe into a tiny one on the shards above, with its run folder in tmp_path."""
    return tiny_settings(shards, tmp_path / "run")


@pytest.fixture(scope="session")
def small_tokenizer() -> bytes:
    """A SentencePiece model of at most 400 pieces."""
    from tests.convert.convert_helpers import OWN_SENTENCES, train

    return train(OWN_SENTENCES * 20, 400)


@pytest.fixture
def checkpoint(tmp_path: Path, small_tokenizer: bytes) -> Checkpoint:
    """A tiny checkpoint that can be converted."""
    from tests.convert.convert_helpers import make_checkpoint

    return make_checkpoint(tmp_path / "checkpoints", small_tokenizer)


@pytest.fixture(scope="module")
def transformers() -> Iterator[ModuleType]:
    """The library, set to stay off the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield pytest.importorskip("transformers", reason="loads the converted folder as a user would")


@pytest.fixture
def metadata() -> Iterator[HTTPServer]:
    """A local stand-in for EC2's metadata service, version 2: tokens are asked for, and wanted."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, code, text):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self):
            assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            self.answer(200, "secret-token")

        def do_GET(self):
            if self.headers["X-aws-ec2-metadata-token"] != "secret-token":
                self.answer(401, "")
            elif (
                self.path != "/latest/meta-data/spot/instance-action"
                or self.server.notice is None
                or (self.server.wait_for and not all(path.exists() for path in self.server.wait_for))
            ):
                self.answer(404, "")
            else:
                self.answer(200, self.server.notice)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.notice, server.wait_for = None, []  # the notice is there from when all of these files are
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
