"""The archive for SageMaker: what is in it, all or nothing, and its handlers, called as the container calls them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from kogpt2_gluon.convert.sagemaker_archive import REQUIREMENTS, TOKENIZERS, write_sagemaker
from kogpt2_gluon.errors import DiskFullError, RecipeError
from kogpt2_gluon.runs.checkpoint import Checkpoint, open_checkpoint
from tests.convert.convert_helpers import make_checkpoint
from tests.helpers import ROOT, kogpt2, run, small_disk


@pytest.fixture(scope="module")
def archive(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as an archive."""
    out = tmp_path_factory.mktemp("sagemaker") / "model.tar.gz"
    write_sagemaker(source, out)
    return out


@pytest.fixture(scope="module")
def model_dir(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked as SageMaker unpacks it into /opt/ml/model."""
    folder = tmp_path_factory.mktemp("opt-ml-model")
    with tarfile.open(archive) as entries:
        entries.extractall(folder, filter="data")
    return folder


def entries_of(archive: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(archive) as entries:
        return entries.getmembers()


def test_what_is_in_it(archive, model_dir, source):
    entries = entries_of(archive)
    names = [entry.name for entry in entries]
    assert names == sorted(names) and len(set(names)) == len(names)
    assert {name for name in names if not name.startswith("code/")} == {
        "README.md",
        *(f"checkpoints/step-00001200/{name}" for name in (*source.files, "manifest.json")),
    }
    assert {name for name in names if name.count("/") == 1 and name.startswith("code")} == {
        "code/inference.py",
        "code/requirements.txt",
    }
    assert "code/kogpt2_gluon/ops/src/cpu/layer_norm.cc" in names and not any("__pycache__" in name for name in names)
    # The container's server (ModelArchive of awslabs/multi-model-server) takes one so near to the top for its own.
    assert not [name for name in names if name.lower().endswith("manifest.json") and name.count("/") < 2]
    for entry in entries:
        assert entry.isfile() and entry.mode == 0o644
        assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0, 0, "", "", 315532800)
    weights = next(entry.size for entry in entries if entry.name.endswith("/model.params"))
    assert 4 * 389_952 <= weights <= 4 * 389_952 + (1 << 14), "the tied matrix is there once"
    served = open_checkpoint(model_dir)
    served.verify()
    arrays, own = served.model_arrays(), source.model_arrays()
    assert set(arrays) == set(own) and all((arrays[name] == own[name]).all() for name in own)
    assert served.recipe().model == source.recipe().model and served.state()["step"] == 1200


def test_nothing_in_it_tells_of_the_machine(source, model_dir, tmp_path):
    for path in filter(Path.is_file, model_dir.rglob("*")):
        content = path.read_bytes()
        for word in (str(source.path), str(Path.home()), str(ROOT)):
            assert word.encode() not in content, path


def test_the_same_source_gives_the_same_bytes(source, archive, tmp_path):
    write_sagemaker(source, tmp_path / "other" / "name.tar.gz")
    assert (tmp_path / "other" / "name.tar.gz").read_bytes() == archive.read_bytes()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["name.tar.gz"]


def test_requirements_have_the_bounds_of_the_package():
    """One package is for Python 3.8 alone."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for name, bounds in {**REQUIREMENTS, **TOKENIZERS[True], **TOKENIZERS[False]}.items():
        assert f'"{name}{bounds}' in setup or name == "eval-type-backport", name


def test_the_command(source, tmp_path):
    out = tmp_path / "model.tar.gz"
    done = kogpt2("convert", source.path, out, "--to", "sagemaker", "--verify")
    assert "verified: " in done.stdout and "docs/serving.md" in done.stdout
    before = out.read_bytes()
    for target in (out, tmp_path):
        refused = kogpt2("convert", source.path, target, "--to", "sagemaker", code=2)
        assert refused.stderr.startswith(f"kogpt2: {target}: ") and refused.stderr.count("\n") == 1
    assert "remove it" in kogpt2("convert", source.path, out, "--to", "sagemaker", code=2).stderr
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "option", [("--with-optimizer",), ("--dtype", "bfloat16"), ("--bos",), ("--max-shard-size", "5")]
)
def test_options_that_it_does_not_have(source, tmp_path, option):
    refused = kogpt2("convert", source.path, tmp_path / "m.tar.gz", "--to", "sagemaker", *option, code=2)
    assert option[0] in refused.stderr and not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(source, tmp_path):
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        with pytest.raises(DiskFullError, match=r"m\.tar\.gz.*copy of the weights"):
            write_sagemaker(source, disk / "m.tar.gz")
        assert not list(disk.iterdir())


def test_a_link_in_the_place_of_the_archive_is_refused(source, tmp_path):
    (tmp_path / "m.tar.gz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="is there already"):
        write_sagemaker(source, tmp_path / "m.tar.gz")
    assert not (tmp_path / "nowhere").exists()


def test_sigterm_leaves_nothing(tmp_path, small_tokenizer):
    big = make_checkpoint(tmp_path / "source", small_tokenizer)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "convert", str(big.path), str(out / "m.tar.gz")]
    started = subprocess.Popen([*command, "--to", "sagemaker"], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while not list(out.iterdir()) and started.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        assert started.poll() is None, "it was over before the signal"
        started.send_signal(signal.SIGTERM)
        _, errors = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    assert not list(out.iterdir())


# ---- the handlers ----------------------------------------------------------------------------------------------------

JSON = "application/json"
ASKED = {"prompt": "오늘은 날씨가", "max_new_tokens": 12, "seed": 7, "num_samples": 2, "top_k": 50}
GREEDY = {"prompt": "이 영화는", "max_new_tokens": 9, "temperature": 0}
# A body, its type, what is accepted; the status and the beginning of the answer's first line.
REFUSED = [
    ('{"prompt": ', JSON, None, 400, "the body is not JSON: line 1, column 12"),
    ('["a"]', JSON, None, 400, ""),
    (None, JSON, None, 400, "the body is empty"),
    (" \n", JSON, None, 400, "the body is empty"),
    ("{}", JSON, None, 400, "prompt: "),
    ('{"prompt": "a", "prompt": "b"}', JSON, None, 400, "the body has 'prompt' twice"),
    ('{"prompt": "a", "temperature": NaN}', JSON, None, 400, "the body is not JSON: it has NaN"),
    ('{"inputs": "a"}', JSON, None, 400, "there is no field 'inputs'"),
    ('{"prompt": "a", "max_new_tokens": "3"}', JSON, None, 400, "max_new_tokens: "),
    ('{"prompt": "a", "stream": true}', JSON, None, 400, "stream: "),
    ('{"prompt": "a", "model": "b"}', JSON, None, 404, "model: "),
    ("[" * 100_000, JSON, None, 400, "the body is nested too deep"),
    (json.dumps({"prompt": "가나다" * 500}), JSON, None, 400, "the prompt has "),
    ("bytes:ff", "application/json; charset=utf-8", None, 400, "the body is not UTF-8: byte 0 is 0xff"),
    ("a,b", "text/csv", None, 415, "the content type is text/csv"),
    ("prompt=a", "application/x-www-form-urlencoded", None, 415, "the content type is application/x-www-form"),
    ('{"prompt": "a"}', None, None, 415, "the request has no content type"),
    ('{"prompt": "a"}', "application/json; charset=utf-16", None, 415, "the charset is utf-16"),
    ('{"prompt": "a"}', JSON, "text/csv", 406, "the answer is application/json, and the request accepts text/csv"),
    ('{"prompt": "a"}', JSON, "application/json;q=0", 406, "the answer is application/json"),
]
ANSWERED = [
    (json.dumps(ASKED), JSON, None),
    (json.dumps(ASKED), 'Application/JSON; Charset="UTF-8"', "text/html, application/*;q=0.8"),
    (json.dumps(ASKED, ensure_ascii=False), "application/json;charset=utf8", "*/*"),
    (json.dumps(GREEDY), JSON, JSON),
]


def drive(python: object, model_dir: Path, requests: list, **variables: str) -> tuple[str, str, list]:
    """Calls the handlers in a fresh process, which has nothing of this checkout but the driver."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(python), str(ROOT / "tests" / "convert" / "sagemaker_driver.py"), str(model_dir)],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        cwd=model_dir,
        env={**outside, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    version, place, answers = json.loads(done.stdout.splitlines()[-1])
    assert Path(place).is_relative_to(model_dir), "the package is not the archive's own"
    return version, place, answers


def check_answers(answers: list, source: Checkpoint, ops: str = "auto") -> None:
    """Those to ANSWERED, then those to REFUSED."""
    bodies = []
    for _, kind, body in answers[: len(ANSWERED)]:
        assert kind == JSON
        bodies.append(json.loads(body))
    assert [status for status, _, _ in answers[: len(ANSWERED)]] == [200] * len(ANSWERED)
    assert bodies[0] == bodies[1] == bodies[2]
    for asked, body in ((ASKED, bodies[0]), (GREEDY, bodies[3])):
        assert [asked["prompt"] + text["text"] for text in body["texts"]] == generated(source, asked, ops)
    for (_, _, _, status, begins), (found, kind, body) in zip(REFUSED, answers[len(ANSWERED) :]):
        assert (found, kind) == (status, None) and body.startswith(begins), body[:300]


def generated(source: Checkpoint, asked: dict, ops: str = "auto") -> list[str]:
    """Returns the texts that `kogpt2 generate` writes with the same settings."""
    options = {"max_new_tokens": "--max-new-tokens", "seed": "--seed", "num_samples": "-n", "top_k": "--top-k"}
    options["temperature"] = "--temperature"
    words = [str(word) for name, value in asked.items() if name in options for word in (options[name], value)]
    done = kogpt2("generate", source.path, asked["prompt"], *words, "--json", "--ops", ops)
    return json.loads(done.stdout)["texts"]


def test_the_handlers_answer_as_generate_does(model_dir, source):
    before = sorted(model_dir.rglob("*"))
    requests = [*ANSWERED, *(each[:3] for each in REFUSED)]
    version, _, answers = drive(sys.executable, model_dir, requests)
    assert version == sys.version.split()[0]
    check_answers(answers, source)
    assert sorted(model_dir.rglob("*")) == before, "the folder of the model may be read-only"


def test_a_text_that_takes_too_long_is_answered_in_time(model_dir):
    """SageMaker waits for a minute, and the server ends a worker that takes longer."""
    _, _, answers = drive(sys.executable, model_dir, [ANSWERED[0]], KOGPT2_REQUEST_SECONDS="0.000001")
    ((status, _, body),) = answers
    assert status == 503 and body.startswith("not done after 1e-06 s")


def test_the_checkpoint_is_served_by_the_service_at_sagemakers_paths(model_dir, source):
    """An image of one's own does it so."""
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "serve", str(model_dir), "--port", "0"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(started.stderr.readline, "")
        address = next(line for line in lines if "serving at" in line).split("serving at ")[1].split(";")[0]
        with urllib.request.urlopen(f"{address}/ping", timeout=30) as answer:
            assert answer.status == 200
        body = json.loads(post(f"{address}/invocations", ASKED))
        assert [ASKED["prompt"] + text["text"] for text in body["texts"]] == generated(source, ASKED)
        assert body == json.loads(post(f"{address}/generate", ASKED))
        streamed = post(f"{address}/invocations", {**ASKED, "stream": True})
        assert streamed.startswith("event: start\n") and streamed.count("event: end\n") == 2
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(f"{address}/invocations", {"inputs": "a"})
        assert refused.value.code == 400 and "inputs" in json.load(refused.value)["error"]["message"]
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 0
    finally:
        started.kill()
        started.stderr.close()


def post(address: str, content: dict) -> str:
    request = urllib.request.Request(address, json.dumps(content).encode(), {"Content-Type": JSON})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


# ---- the container's own software: Python 3.8, MXNet 1.9.0, its toolkit, its server --------------------------------


CONTAINER = ("mxnet==1.9.0", "numpy<1.20", "multi-model-server==1.1.8", "sagemaker-mxnet-inference==1.5.5")


@pytest.fixture(scope="module")
def container(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what AWS's Dockerfile of mxnet-inference 1.9.0 installs, from a registry.

    AWS's own build of MXNet is on none; the public one of the same version is in its place.
    """
    python = python_38()
    if python is None:
        pytest.skip("Python 3.8 is not here")
    venv = tmp_path_factory.mktemp("container") / "venv"
    run(python, "-m", "venv", venv)
    pip = (venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(
        *pip, "mxnet==1.9.0", "numpy<1.20", "multi-model-server==1.1.8", "sagemaker-mxnet-inference==1.5.5", timeout=500
    )
    run(*pip, "-r", model_dir / "code" / "requirements.txt", timeout=900)  # as the container does when it starts
    return venv / "bin" / "python"


def python_38() -> Path | None:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [*sorted(root.glob("versions/3.8.*/bin/python")), shutil.which("python3.8")]
    return Path(found[0]) if found[0] else None


@pytest.mark.timeout(1800)
@pytest.mark.slow  # installs 100 MB
def test_the_containers_toolkit_calls_the_handlers(container, model_dir, source):
    requests = [*ANSWERED, *(each[:3] for each in REFUSED)]
    version, _, answers = drive(container, model_dir, requests, OMP_NUM_THREADS="1")
    assert version.startswith("3.8.")
    for answer in answers:  # the toolkit adds where it was raised
        assert answer[0] == 200 or "\nTraceback " in answer[2]
    check_answers(answers, source, ops="stock")


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_the_containers_server_answers(container, model_dir, source, tmp_path):
    """The whole of it, as `docker run IMAGE serve` starts it; only its settings are written to another folder."""
    if not shutil.which("java"):
        pytest.skip("the server is a program in Java")
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / "model").symlink_to(model_dir)
    start = (
        "import sagemaker_inference.model_server as server\n"
        f"server.MMS_CONFIG_FILE = {str(tmp_path / 'mms.properties')!r}\n"
        "from sagemaker_mxnet_serving_container import serving\n"
        "serving.main()\n"
    )
    port = free_port()
    variables = {
        "PATH": f"{container.parent}{os.pathsep}{os.environ['PATH']}",
        "SAGEMAKER_BASE_DIR": str(tmp_path / "ml"),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        "TEMP": str(tmp_path),
    }
    with (tmp_path / "log").open("wb") as log:
        command = [str(container), "-c", start]
        environment = {**os.environ, **variables}
        started = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/ping", started, tmp_path / "log")
            body = json.loads(post(f"{address}/invocations", ASKED))
            texts = [ASKED["prompt"] + text["text"] for text in body["texts"]]
            assert texts == generated(source, ASKED, ops="stock")
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(f"{address}/invocations", {"inputs": "a"})
            assert refused.value.code == 400 and refused.value.read().startswith(b"there is no field 'inputs'")
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def free_port() -> int:
    """One below 32,767, the highest that this server takes."""
    for port in range(20_000 + os.getpid() % 10_000, 32_767):
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def wait_for(address: str, started: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and started.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text(errors="replace")[-3000:])
