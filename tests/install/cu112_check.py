"""Proves the mxnet-cu112 installation on a machine without an NVIDIA driver.

    python tests/install/cu112_check.py --venv DIR

In a clean virtual environment at DIR it installs `.[cu112]` (3.3 GB on disk), builds a stub of NVIDIA's driver, lets
`kogpt2 doctor` look, and trains five steps on the CPU through the CUDA build. LD_LIBRARY_PATH names the stub only:
finding the CUDA libraries is the package's own work, and part of what is proven.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
RECIPE = f"""\
name: cu112-check
model: {{units: 64, num_layers: 2, num_heads: 2, max_length: 64, vocab_size: 2000, dropout: 0.1}}
data: {{train: shards/train, test: shards/test, seq_length: 64}}
training: {{num_steps: {STEPS}, batch_size: 4, total_batch_size: 4, learning_rate: 1e-3, device: cpu}}
evaluation: {{interval: 0, max_sequences: 8}}
tracking: {{run_dir: run, log_interval: 1, tensorboard: false}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, required=True, help="folder of the new virtual environment")
    parser.add_argument("--reuse", action="store_true", help="take the environment as it is: nothing is installed")
    options = parser.parse_args()
    venv = options.venv.resolve()
    if options.reuse:
        say(f"taking {venv} as it is")
    elif venv.exists():
        sys.exit(f"{venv} exists: name a new folder, or take it as it is with --reuse")
    else:
        install(venv)
    with tempfile.TemporaryDirectory(prefix="cu112-check-") as name:
        work = Path(name)
        stub = build_stub(mxnet_library(venv), work / "driver")
        check_doctor(venv, work, stub)
        train(venv, work, stub)
    say("everything as it should be")


def install(venv: Path) -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    constraints = ROOT / "constraints.txt"
    pinned = ["-c", str(constraints)] if constraints.is_file() else []
    with tempfile.TemporaryDirectory(prefix="cu112-source-") as name:
        # A copy: pip builds where the source lies, and what it leaves there would go into later wheels.
        source = copy_tracked(Path(name) / "source")
        subprocess.run([str(venv / "bin" / "pip"), "install", "--quiet", *pinned, f"{source}[cu112]"], check=True)
    size = sum(path.lstat().st_size for path in venv.rglob("*") if path.is_file() and not path.is_symlink())
    say(f"installed in {time.monotonic() - began:.0f} s, {size / 1e9:.1f} GB on disk")


def copy_tracked(folder: Path) -> Path:
    """Copies the files that git tracks, so that nothing which runs left in the checkout comes along."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def mxnet_library(venv: Path) -> Path:
    (library,) = venv.glob("lib/python3*/site-packages/mxnet/libmxnet.so")
    return library


def build_stub(library: Path, folder: Path) -> Path:
    """A libcuda.so.1 with exactly the driver functions that MXNet wants; each answers that there is no device."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    # The driver's names go on with a capital letter; cuda..., cublas..., cudnn... belong to the libraries.
    names = sorted(set(re.findall(r"\bU (cu[A-Z]\w*)", listed.stdout)))
    expect(bool(names), f"{library} wants functions of the driver")
    source = "".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in names)
    folder.mkdir()
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        str(folder / "libcuda.so.1"),
        "-x",
        "c",
        "-",
    ]
    subprocess.run(command, input=source, text=True, check=True)
    say(f"stub driver with {len(names)} functions: {' '.join(names)}")
    return folder


def kogpt2(venv: Path, work: Path, *arguments: str, driver: str = "") -> subprocess.CompletedProcess[str]:
    """The installed command, run outside the checkout, in an environment that names no library but the stub."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    if driver:
        environment["LD_LIBRARY_PATH"] = driver
    command = [str(venv / "bin" / "kogpt2"), *arguments]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=600, check=False)
    print(done.stderr, file=sys.stderr, end="")
    return done


def check_doctor(venv: Path, work: Path, stub: Path) -> None:
    done = kogpt2(venv, work, "doctor", "--json", driver=str(stub))
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    for finding in found.values():
        say(f"doctor: {finding['status']:4} {finding['name']}: {finding['value']}")
    expect(done.returncode == 0, f"doctor finds no problem (exit code {done.returncode})")
    expect("mxnet-cu112" in found, "doctor names the mxnet-cu112 wheel")
    libraries = [finding for finding in found.values() if finding["area"] == "cuda"]
    expect(len(libraries) == 10 and all(f["status"] == "pass" for f in libraries), "all ten CUDA libraries load")
    expect({"CUDA", "CUDNN", "NCCL"} <= set(found["features"]["value"].split()), "MXNet has CUDA, cuDNN and NCCL")
    expect("stub" in found["driver"]["value"] and found["driver"]["status"] == "warn", "doctor knows the stub for one")
    if not has_driver():
        bare = kogpt2(venv, work, "doctor", "--json")
        driver = next(f for f in json.loads(bare.stdout)["findings"] if f["name"] == "driver")
        expect(bare.returncode == 1 and driver["status"] == "fail", "without any driver doctor fails, and says why")
        say(f"doctor: {driver['value']}; {driver['fix']}")


def has_driver() -> bool:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False)
    return "libcuda.so.1" in listed.stdout


def train(venv: Path, work: Path, stub: Path) -> None:
    """From text to a trained checkpoint with the installed command."""
    code = (
        "from pathlib import Path; from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus as write; "
    )
    code += "write(Path('text.txt'), 400_000)"
    subprocess.run([str(venv / "bin" / "python"), "-c", code], cwd=work, check=True)
    (work / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    for arguments in (
        ["clean", "text.txt", "--documents", "line", "--test-share", "0.05", "--out", "corpus"],
        ["tokenizer", "corpus", "--vocab-size", "2000", "--out", "tokenizer.model"],
        ["shard", "corpus", "--tokenizer", "tokenizer.model", "--out", "shards"],
        ["train", "recipe.yaml"],
    ):
        began = time.monotonic()
        done = kogpt2(venv, work, *arguments, driver=str(stub))
        print(done.stdout, end="")
        expect(done.returncode == 0, f"kogpt2 {arguments[0]} ends well, in {time.monotonic() - began:.1f} s")
    packages = json.loads((work / "run" / "env.json").read_text(encoding="utf-8"))["packages"]
    expect("mxnet-cu112" in packages and not packages.get("mxnet"), "it trained through mxnet-cu112")
    lines = (work / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = {row["step"]: row["loss"] for row in map(json.loads, lines) if row["kind"] == "train"}
    sound = list(losses) == list(range(1, STEPS + 1)) and all(loss and math.isfinite(loss) for loss in losses.values())
    expect(sound, f"{STEPS} steps with finite losses: {losses}")
    latest = (work / "run" / "checkpoints" / "latest").read_text(encoding="utf-8")
    expect(f"{STEPS:08d}" in latest, f"the last checkpoint is of step {STEPS}")


def expect(fact: bool, what: str) -> None:
    """Says what holds; ends with code 1 at the first thing that does not."""
    if not fact:
        sys.exit(f"cu112: NOT SO: {what}")
    say(what)


def say(text: str) -> None:
    print(f"cu112: {text}", flush=True)


if __name__ == "__main__":
    main()
