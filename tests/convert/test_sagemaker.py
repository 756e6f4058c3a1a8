"""The archive for SageMaker: what is in it, all or nothing, and its handlers, called as the container calls them."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from kogpt2_gluon.convert.sagemaker_archive import REQUIREMENTS, TOKENIZERS, write_sagemaker
from kogpt2_gluon.errors import DiskFullError, RecipeError
from kogpt2_gluon.runs.checkpoint import Checkpoint, open_checkpoint
from tests.convert.convert_helpers import make_checkpoint
from tests.helpers import ROOT, kogpt2, small_disk


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
