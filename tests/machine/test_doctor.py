"""The doctor, on this machine and on machines made up for it."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from kogpt2_gluon import doctor
from kogpt2_gluon.findings import FAIL, PASS, WARN, Finding
from kogpt2_gluon.machine import cuda, limits, runtime
from kogpt2_gluon.runs import environment
from tests.helpers import ROOT


def by_name(findings):
    return {finding.what: finding for finding in findings}


@pytest.fixture(autouse=True)
def plain_threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "HOROVOD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi on the PATH that answers with `rows` (and, like an old one, refuses `compute_cap`)."""

    def install(*rows, old=False):
        script = tmp_path / "nvidia-smi"
        refusal = (
            """case "$1" in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;; esac\n"""
        )
        (tmp_path / "rows").write_text("".join(row + "\n" for row in rows))
        script.write_text("#!/bin/sh\n" + (refusal if old else "") + f"exec cat '{tmp_path}/rows'\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


# ---- this machine ------------------------------------------------------------------------------------------------


def test_command_as_json():
    code = "import sys; from kogpt2_gluon.doctor import main; code = main(as_json=True); "
    code += "assert 'mxnet' not in sys.modules; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1), done.stderr
    assert report["ok"] == all(finding["status"] != FAIL for finding in report["findings"])
    found = {finding["name"]: finding for finding in report["findings"]}
    assert {finding["status"] for finding in found.values()} <= {PASS, WARN, FAIL}
    assert all(finding["fix"] for finding in found.values() if finding["status"] == FAIL)
    assert found["numpy"]["status"] == found["load"]["status"] == found["features"]["status"] == PASS
    assert found["load"]["value"].startswith("1.9.1, computes on the CPU")
    assert "OPENMP" in found["features"]["value"]
    assert {finding["area"] for finding in report["findings"]} >= {
        "software",
        "mxnet",
        "cpu",
        "memory",
        "disk",
        "gpu",
        "tools",
    }


def test_threads_in_use_against_cores(monkeypatch):
    cores = limits.available_cores()
    assert by_name(doctor.examine_mxnet("mxnet"))["threads"].text == f"{cores} (cores {cores}, local workers 1)"
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores + 3))
    told = by_name(doctor.examine_mxnet("mxnet"))["threads"]
    assert told.text.startswith(f"{cores + 3} ") and told.status == WARN and str(cores) in told.fix


@pytest.mark.skipif(not runtime.installed_version("horovod"), reason="Horovod is not installed")
def test_horovod_build_is_told():
    (extension,) = doctor.examine_horovod("mxnet")
    assert extension.status == PASS and "gloo" in extension.text
    without_nccl = by_name(doctor.examine_horovod("mxnet-cu112"))
    assert ("nccl" in without_nccl) == ("nccl" not in extension.text)


# ---- what is broken is a finding, not a crash --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise OSError('libgfortran.so.3: cannot open')", "mxnet is installed but cannot be loaded: libgfortran.so.3"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("import os; os.abort()", "the process ended with code -6"),
        ("raise SystemExit('gone')", "the process ended with code 1: gone"),
    ],
)
def test_broken_mxnet(source, said, tmp_path, monkeypatch):
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet" / "__init__.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (finding,) = doctor.examine_mxnet("mxnet")
    assert finding.status == FAIL and said in finding.text and "\n" not in finding.text


def test_horovod_without_its_extension(tmp_path, monkeypatch):
    (tmp_path / "horovod" / "mxnet").mkdir(parents=True)
    (tmp_path / "horovod" / "__init__.py").write_text("")
    (tmp_path / "horovod" / "mxnet" / "__init__.py").write_text("raise ImportError('Extension has not been built')")
    make_distribution(tmp_path, "horovod", "0.28.1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (finding,) = doctor.examine_horovod("mxnet")
    assert finding.status == WARN and "has not been built" in finding.text and finding.fix.startswith("make horovod ")


def test_a_process_that_hangs(tmp_path, monkeypatch):
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet" / "__init__.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 1)
    assert doctor.run_probe("mxnet") == {"error": "no answer within 1 s"}


def make_distribution(folder, name, version):
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_numpy_too_new(tmp_path, monkeypatch):
    make_distribution(tmp_path, "numpy", "2.1.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    numpy = by_name(doctor.examine_software())["numpy"]
    assert (numpy.status, numpy.fix) == (FAIL, "pip install 'numpy<1.24'")


def test_wheels_over_each_other_and_none(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "installed_version", lambda name: "1.9.1")
    assert "both mxnet and mxnet-cu112" in by_name(doctor.examine_software())["mxnet"].text
    monkeypatch.setattr(runtime, "installed_version", lambda name: None)
    found = by_name(doctor.examine_software())
    assert found["mxnet"].status == found["gluonnlp"].status == FAIL
    assert (found["horovod"].status, found["torch"].status) == (WARN, PASS)


# ---- GPUs --------------------------------------------------------------------------------------------------------

V100 = "0, Tesla V100-SXM2-32GB, 470.57.02, 32510, 7.0"
H100 = "1, NVIDIA H100 80GB HBM3, 535.104.05, 81559, 9.0"


def test_h100_cannot_run_the_wheel_and_v100_can(nvidia_smi):
    nvidia_smi(V100, H100)
    found = by_name(doctor.examine_gpus("mxnet-cu112", *cuda.list_gpus()))
    assert found["gpu 0"] == Finding(PASS, "gpu 0", "gpu", "Tesla V100-SXM2-32GB, 32510 MiB, driver 470.57.02")
    assert found["gpu 1"].status == FAIL
    assert "NVIDIA H100 80GB HBM3 has compute capability 9.0" in found["gpu 1"].text
    assert "training.device=cpu" in found["gpu 1"].fix and "kogpt2 convert" in found["gpu 1"].fix


def test_gpus_beside_a_cpu_build(nvidia_smi):
    nvidia_smi(V100, H100)
    found = by_name(doctor.examine_gpus("mxnet", *cuda.list_gpus()))
    assert (found["gpu 0"].status, found["gpu 1"].status) == (WARN, WARN)
    assert runtime.INSTALL_CUDA in found["gpu 0"].fix and runtime.INSTALL_CUDA not in found["gpu 1"].fix


def test_old_driver(nvidia_smi):
    nvidia_smi("0, Tesla V100-SXM2-16GB, 418.87.00, 16160", old=True)
    (gpu,), problem = cuda.list_gpus()
    assert problem == ""
    assert (gpu.name, gpu.driver, gpu.memory_mib) == ("Tesla V100-SXM2-16GB", "418.87.00", "16160")
    found = by_name(doctor.examine_gpus("mxnet-cu112", [gpu]))["gpu 0"]
    assert found.status == FAIL and "450.80.02" in found.fix


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'NVIDIA-SMI has failed'\nexit 9", "NVIDIA-SMI has failed"),
        ("echo 'No devices were found'", "No devices were found"),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch' >&2\nexit 18", "Failed to initialize NVML"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_broken_nvidia_smi_is_no_gpu_and_is_quoted(nvidia_smi, tmp_path, script, said):
    nvidia_smi()
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    gpus, problem = cuda.list_gpus()
    assert gpus == [] and problem.startswith(f"nvidia-smi: {said}")
    found = by_name(doctor.examine_gpus("mxnet-cu112", gpus, problem))
    assert found["nvidia-smi"].status == WARN and found["nvidia-smi"].text == problem
    assert environment.collect_environment(tmp_path)["host"]["gpus"] == [problem]


def test_a_compiler_that_does_not_run_is_quoted(tmp_path, monkeypatch):
    (tmp_path / "g++").write_text("#!/bin/sh\necho 'cannot execute cc1plus' >&2\nexit 1\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = doctor.examine_tools()
    assert found.status == WARN and found.text.endswith("g++: cannot execute cc1plus")


@pytest.mark.parametrize(
    ("state", "wheel", "status"),
    [
        ("none", "mxnet", PASS),
        ("none", "mxnet-cu112", FAIL),
        ("stub", "mxnet-cu112", WARN),
        ("CUDA 11.4", "mxnet-cu112", PASS),
    ],
)
def test_driver(state, wheel, status, monkeypatch):
    monkeypatch.setattr(cuda, "driver_state", lambda: state)
    (driver,) = doctor.examine_gpus(wheel, [])
    assert driver.status == status


@pytest.mark.skipif(
    runtime.installed_version("nvidia-cudnn-cu11") is not None, reason="NVIDIA's CUDA 11 wheels are here"
)
def test_missing_cuda_libraries_name_their_package():
    found = by_name(doctor.examine_cuda_libraries())
    assert found["libcudnn.so.8"].fix == "pip install nvidia-cudnn-cu11==8.5.0.96"
    assert found["libcudnn.so.8"].status == FAIL


# ---- the machine and the report ----------------------------------------------------------------------------------


def test_old_processor(tmp_path):
    (tmp_path / "cpuinfo").write_text("model name\t: Old CPU\nflags\t\t: fpu sse2 avx\n")
    found = by_name(doctor.examine_cpu(tmp_path / "cpuinfo"))
    assert found["model"].text.startswith("Old CPU; ")
    assert found["instructions"].text == "no avx2, no avx512f, no avx512_bf16, no amx_bf16"
    assert found["instructions"].status == WARN


def test_tight_container(monkeypatch):
    monkeypatch.setattr(limits, "memory_limit", lambda: 2**30)
    limit = by_name(doctor.examine_memory())["container limit"]
    assert (limit.text, limit.status) == ("1.00 GiB", WARN)


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    (finding,) = doctor.examine_tools()
    assert finding.status == WARN and finding.fix.startswith("apt-get install g++")


def test_table_keeps_commands_whole():
    fix = f"pip uninstall -y mxnet mxnet-cu112, then {runtime.INSTALL_CPU} or {runtime.INSTALL_CUDA}"
    page = io.StringIO()
    findings = [Finding(FAIL, "mxnet", "software", "not installed", fix), Finding(PASS, "model", "cpu", "a [b] c")]
    Console(file=page, width=60).print(doctor.render_table(findings), crop=False)
    lines = page.getvalue().splitlines()
    assert any(line.endswith(fix) for line in lines)
    assert any("a [b] c" in line for line in lines)
    assert "1 problem, 0 warnings, 1 ok" in lines


@pytest.mark.parametrize(("statuses", "code"), [((PASS, WARN), 0), ((PASS, FAIL), 1)])
def test_exit_code(statuses, code, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda: [Finding(status, "name", "area", "value") for status in statuses])
    assert doctor.main(as_json=True) == code
    assert json.loads(capsys.readouterr().out)["ok"] is (code == 0)
    assert doctor.main() == code
