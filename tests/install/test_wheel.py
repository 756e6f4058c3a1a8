"""The wheel, built from a clean copy of the tracked files, holds all that a user needs and runs away from the checkout.

It is built and installed without the network: the build uses the running environment's setuptools, and the new
environment sees the running one's libraries through a .pth file, but never this checkout.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.helpers import ROOT

PARTS = (
    "kogpt2_gluon/cli/main.py",
    "kogpt2_gluon/demo/sentences/words.py",
    "kogpt2_gluon/corpus/cleaning/presets/web.yaml",
    "kogpt2_gluon/ops/src/cpu/layer_norm.cc",
    "kogpt2_gluon/ops/src/cuda/launch.h",
    "kogpt2_gluon/ops/src/common/philox.h",
    "kogpt2_launch/plan/plan.py",
    "kogpt2_launch/host/supervisor.py",
    "kogpt2_recipes/demo.yaml",
    "kogpt2_recipes/kogpt2_base.yaml",
)
OURS = {"kogpt2_gluon", "kogpt2_launch", "kogpt2_recipes"}


def tracked() -> list[str]:
    """The files of the package that git tracks, under their installed names."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def run(*argv: object, cwd: Path, code: int = 0, **variables: str) -> str:
    """Runs a command away from the checkout; returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in argv],
        cwd=cwd,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == code, f"{argv}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from the sdist's own files."""
    work = tmp_path_factory.mktemp("build")
    source, out = work / "source", work / "dist"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
    out.mkdir()
    sdist = out / run(sys.executable, "-c", build, "build_sdist", out, cwd=source).split()[-1]
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    wheel = out / run(sys.executable, "-c", build, "build_wheel", out, cwd=unpacked).split()[-1]
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands, in an environment that has the wheel and the running environment's libraries."""
    work = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", work / "venv", cwd=work)
    binaries = work / "venv" / "bin"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    run(binaries / "pip", "install", *quiet, built[1], cwd=work)
    (packages,) = (work / "venv").glob("lib/python3*/site-packages")
    (packages / "libraries.pth").write_text("".join(f"{folder}\n" for folder in libraries()))
    return binaries


def libraries() -> list[str]:
    """The running environment's folders of libraries; their own .pth files, and so the checkout, are not followed."""
    folders = [Path(folder).resolve() for folder in sys.path if folder and Path(folder).name == "site-packages"]
    folders += [Path(folder).resolve() for folder in site.getsitepackages()]
    return list(dict.fromkeys(str(folder) for folder in folders if folder.is_dir()))


def test_sdist_and_wheel_hold_the_package_and_nothing_else(built):
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert sources >= {"setup.py", "README.md", "pyproject.toml", "recipes/demo.yaml", "launch/plan/plan.py"}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names >= set(PARTS)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == OURS
    assert not [name for name in names if "test" in Path(name).parts[0] or "__pycache__" in name]
    renamed = {"launch": "kogpt2_launch", "recipes": "kogpt2_recipes", "kogpt2_gluon": "kogpt2_gluon"}
    expected = set()
    for name in tracked():
        top, _, rest = name.partition("/")
        if top in renamed and rest:
            expected.add(f"{renamed[top]}/{rest}")
    assert expected - names == set(), "tracked files of the package that the wheel lacks"


def test_the_package_is_found_in_the_new_environment_only(installed, tmp_path):
    where = (
        "import kogpt2_gluon, kogpt2_launch, kogpt2_recipes as r; print(kogpt2_gluon.__file__, kogpt2_launch.__file__)"
    )
    for path in run(installed / "python", "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed.parent), path
    folders = run(installed / "python", "-c", "import sys; print(*sys.path, sep='\\n')", cwd=tmp_path).splitlines()
    assert str(ROOT) not in folders and str(ROOT / "launch") not in folders


def test_the_launcher_plans_a_shipped_recipe(installed, tmp_path):
    printed = run(installed / "kogpt2-launch", "plan", "demo", "--hosts", "localhost:1", cwd=tmp_path)
    assert "localhost" in printed and "kogpt2" in printed


@pytest.mark.slow  # all of them, without a cache: over a minute
def test_the_operators_are_compiled_from_the_wheels_sources(installed, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    cache = tmp_path / "cache"
    run(installed / "kogpt2", "ops", "build", cwd=tmp_path, KOGPT2_CACHE=str(cache))
    assert list(cache.rglob("*.so"))


def test_the_demo_runs_away_from_the_checkout(installed, tmp_path):
    printed = run(installed / "kogpt2", "demo", "--dir", "demo", "--steps", "2", cwd=tmp_path)
    assert "step 2/2" in printed and "Done in" in printed
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in readme if line.startswith(("kept: train", "train: "))]
    assert len(shown) == 2 and set(shown) <= set(printed.splitlines()), "README.md shows what the demo prints"
    for path in (
        "corpus/cleaning.html",
        "run/report.html",
        "huggingface/model.safetensors",
        "shards/train/manifest.json",
    ):
        assert (tmp_path / "demo" / path).is_file(), path
