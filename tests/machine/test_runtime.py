"""How MXNet is reached: threads, CUDA libraries, versions. Cases that load it run in their own process."""

import ast
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from kogpt2_gluon.machine import cuda, limits, runtime
from tests.helpers import ROOT

THREAD_VARIABLES = ("OMP_NUM_THREADS", "HOROVOD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "LD_LIBRARY_PATH")
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")


def run(code, *flags, **variables):
    """Runs Python code in a fresh process with only the given thread variables set; its last output line."""
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    environment.update({"PYTHONPATH": str(ROOT), **variables})
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.strip().splitlines()[-1]


def failure(code, **variables):
    """The message of the KoGPT2Error that `code` must raise."""
    catching = "from kogpt2_gluon.errors import KoGPT2Error\ntry:\n    {}\n    print('no error')\n"
    return run(catching.format(code) + "except KoGPT2Error as error:\n    print(error)", **variables)


def distribution(folder, name, version):
    """Makes a folder look, to importlib.metadata, as if it held an installed package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def compile_library(path, source="", links=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{path.name}", "-o", str(path)]
    command += ["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", "-x", "none", *map(str, links)]
    subprocess.run(command, input=source, text=True, check=True)


# ---- what an import costs ----------------------------------------------------------------------------------------


def test_only_asking_for_mx_loads_mxnet():
    code = "import sys, kogpt2_gluon, kogpt2_gluon.machine.runtime as r; r.prepare(1); r.num_threads(); "
    code += "before = 'mxnet' in sys.modules; r.mx; print(before, 'mxnet' in sys.modules, 'gluonnlp' in sys.modules)"
    assert run(code) == "False True False"


def test_nlp_is_gluonnlp_after_mxnet():
    assert run("from kogpt2_gluon.machine.runtime import nlp, mx; print(nlp.__name__, mx.__name__)") == "gluonnlp mxnet"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'mxx'"):
        runtime.mxx  # noqa: B018


def test_loading_is_silent_and_hides_nothing_later():
    code = "import warnings\nfrom kogpt2_gluon.machine.runtime import mx, nlp\n"
    code += "try:\n    warnings.warn_explicit('old', DeprecationWarning, 'utils.py', 1, module='mxnet.numpy.utils')\n"
    assert run(code + "except DeprecationWarning as warning:\n    print(warning)", "-W", "error") == "old"


def test_mxnet_imported_first_is_told():
    code = "import mxnet, warnings\nwith warnings.catch_warnings(record=True) as seen:\n"
    code += "    warnings.simplefilter('always')\n"
    code += "    from kogpt2_gluon.machine.runtime import mx\nprint(mx is mxnet, [str(w.message)[:31] for w in seen])"
    assert run(code) == "True ['mxnet was imported before kogpt']"


# ---- threads -----------------------------------------------------------------------------------------------------

COUNT = """
import os
{prepare}
from kogpt2_gluon.machine.runtime import mx, num_threads
x = mx.nd.ones((512, 512))
for _ in range(3):
    mx.nd.FullyConnected(x, x, num_hidden=512, no_bias=True).wait_to_read()
print(num_threads(), len(os.listdir('/proc/self/task')), os.environ.get('OMP_NUM_THREADS'))
"""


def count(prepare="", **variables):
    threads, tasks, variable = run(COUNT.format(prepare=prepare), **variables).split()
    return int(threads), int(tasks), variable


def test_threads_are_applied_and_the_environment_is_left_as_it_was():
    two, five = (count(f"from kogpt2_gluon.machine import runtime; runtime.prepare({n})") for n in (2, 5))
    assert (two[0], five[0]) == (2, 5)
    assert five[1] - two[1] == 3  # the threads that the process really has
    assert two[2] == five[2] == "None"
    given = count(OMP_NUM_THREADS="5")
    assert given == (5, five[1], "5")


@pytest.mark.parametrize(
    ("asked", "variables", "rounds"),  # that a waiting thread makes before it sleeps
    [
        ("", {}, f"'{runtime.WAIT}'"),
        ("runtime.wait_briefly()", {}, f"'{runtime.BRIEF_WAIT}'"),
        ("runtime.wait_briefly()", {"OMP_WAIT_POLICY": "active"}, "'30000000000'"),
        ("runtime.wait_briefly()", {"GOMP_SPINCOUNT": "100"}, "'100'"),
        ("", {"GOMP_SPINCOUNT": "100"}, "'100'"),
    ],
)
def test_threads_keep_their_core_for_a_while_and_briefly_if_that_is_asked_for(asked, variables, rounds):
    code = f"""
        import os
        from kogpt2_gluon.machine import runtime
        before = dict(os.environ)
        {asked}
        runtime.mx.nd.ones((2, 2)).wait_to_read()
        assert {{name: value for name, value in os.environ.items() if "OMP" in name}} == {{
            name: value for name, value in before.items() if "OMP" in name}}
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**kept, **variables, "OMP_DISPLAY_ENV": "verbose"},  # libgomp says what it goes by
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    said = [line.split("=")[1].strip() for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    assert said == [rounds]


def test_threads_without_a_word_are_all_cores():
    cores = limits.available_cores()
    assert count()[:2] == count(OMP_NUM_THREADS=str(cores))[:2]


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
        ({"OMP_NUM_THREADS": "many"}, 8),
        ({"HOROVOD_LOCAL_SIZE": "4"}, 2),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "3"}, 2),
        ({"HOROVOD_LOCAL_SIZE": "16"}, 1),
        ({"HOROVOD_LOCAL_SIZE": "4", "OMP_NUM_THREADS": "6"}, 6),
    ],
)
def test_number_of_threads(variables, threads, monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runtime, "_chosen_threads", 0)
    monkeypatch.setattr(runtime, "available_cores", lambda: 8)
    assert runtime.num_threads() == threads


def test_prepare_after_loading():
    code = "from kogpt2_gluon.machine.runtime import mx, prepare\nprepare(0)\nprepare(3)\ntry:\n    prepare(2)\n"
    assert "prepare(threads=2) after" in run(
        code + "except AssertionError as error:\n    print(error)", OMP_NUM_THREADS="3"
    )


def test_one_core_by_affinity():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    assert run(code + "from kogpt2_gluon.machine.limits import available_cores; print(available_cores())") == "1"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_limits_of_control_groups(tmp_path):
    membership = tmp_path / "cgroup"
    # Version 2: the tightest of the group and those around it.
    write(tmp_path / "two/a/cpu.max", "max 100000\n")
    write(tmp_path / "two/a/b/cpu.max", "250000 100000\n")
    write(tmp_path / "two/a/memory.max", "4096\n")
    write(tmp_path / "two/a/b/memory.max", "max\n")
    membership.write_text("0::/a/b\n")
    assert limits.cpu_quota(tmp_path / "two", membership) == 2.5
    assert limits.memory_limit(tmp_path / "two", membership) == 4096
    # Version 1 in a container: the path is the host's, only the top is visible.
    write(tmp_path / "one/cpu/cpu.cfs_quota_us", "150000\n")
    write(tmp_path / "one/cpu/cpu.cfs_period_us", "50000\n")
    write(tmp_path / "one/memory/memory.limit_in_bytes", "8192\n")
    membership.write_text("7:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n")
    assert limits.cpu_quota(tmp_path / "one", membership) == 3.0
    assert limits.memory_limit(tmp_path / "one", membership) == 8192
    # No limit, and no groups at all.
    write(tmp_path / "one/cpu/cpu.cfs_quota_us", "-1\n")
    assert limits.cpu_quota(tmp_path / "one", membership) > 1e6
    assert limits.cpu_quota(tmp_path / "none", tmp_path / "absent") > 1e6
    assert limits.memory_limit(tmp_path / "none", tmp_path / "absent") is None


def test_memory_is_the_least_that_anybody_grants(tmp_path):
    membership, nowhere = tmp_path / "cgroup", tmp_path / "nowhere"
    write(tmp_path / "proc/meminfo", "MemTotal:  16 kB\nMemFree:  1 kB\nMemAvailable:  5 kB\nHugePages_Total:  0\n")
    membership.write_text("0::/a\n")
    write(tmp_path / "two/a/memory.max", "4096\n")
    write(tmp_path / "two/a/memory.current", "1000\n")
    machine = limits.Memory(16384, 5120, "this machine")
    assert limits.host_memory(nowhere, membership, tmp_path / "proc") == machine
    group = limits.Memory(4096, 3096, "this process's control group")
    assert limits.host_memory(tmp_path / "two", membership, tmp_path / "proc") == group
    write(tmp_path / "two/a/memory.max", "max\n")
    assert limits.host_memory(tmp_path / "two", membership, tmp_path / "proc") == machine


def test_memory_under_a_limit_of_addresses():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); "
    code += "from kogpt2_gluon.machine.limits import host_memory; print(*host_memory(), sep=',')"
    total, free, whose, has_its_own = run(code).split(",")
    assert 2**29 < int(total) < 2**30 and 2**29 < int(free) < 2**30 and has_its_own == "True"
    assert whose == "this process's limit (ulimit -v)"


# ---- what is missing is said in one line -------------------------------------------------------------------------


def test_no_mxnet():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom kogpt2_gluon.errors import KoGPT2Error\n"
    code += "try:\n    from kogpt2_gluon.machine.runtime import mx\nexcept KoGPT2Error as error:\n    print(error)"
    message = run(code, "-S", "-E")  # without site-packages
    assert message.startswith("MXNet is not installed: ")
    assert "'.[cpu]'" in message and "'.[cu112]'" in message


def test_numpy_too_new(tmp_path):
    path = f"{distribution(tmp_path, 'numpy', '1.26.4')}:{ROOT}"
    message = failure("from kogpt2_gluon.machine.runtime import mx", PYTHONPATH=path)
    assert message == "NumPy 1.26.4 is too new for MXNet 1.9.1: pip install 'numpy<1.24'"


def test_broken_mxnet(tmp_path):
    write(tmp_path / "mxnet/__init__.py", "raise OSError('libgfortran.so.3: cannot open shared object file')")
    message = failure("from kogpt2_gluon.machine.runtime import mx", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (
        message.startswith("mxnet is installed but cannot be loaded: libgfortran.so.3") and "kogpt2 doctor" in message
    )


def test_devices():
    code = "from kogpt2_gluon.machine.runtime import context; print(context('auto', 1), context('cpu', 3))"
    if runtime.installed_wheel() == runtime.CPU_WHEEL:
        assert run(code) == "cpu(0) cpu(0)"
        message = failure("from kogpt2_gluon.machine.runtime import context; context('gpu')")
        assert message.startswith(f"device gpu: this MXNet has no CUDA ({runtime.INSTALL_CUDA})")


# ---- mxnet-cu112: the CPU build stands in for it, with libraries made here ---------------------------------------


@pytest.fixture
def fake_cuda(tmp_path):
    """Looks like mxnet-cu112 with NVIDIA's wheels; each library links the one before, but not its path."""
    site, before = distribution(tmp_path / "site", "mxnet-cu112", "1.9.1"), []
    for library in cuda.LIBRARIES:
        path = site / "nvidia" / library.folder / "lib" / library.file
        compile_library(path, links=before)
        before = [path]
    return site


@needs_gcc
def test_cuda_libraries_come_from_the_wheels(fake_cuda, tmp_path):
    compile_library(tmp_path / "driver/libcuda.so.1")
    code = "from kogpt2_gluon.machine.runtime import mx, context; maps = open('/proc/self/maps').read(); "
    code += f"print(all(name in maps for name in {[library.file for library in cuda.LIBRARIES]}), context('auto'))"
    variables = {"PYTHONPATH": f"{fake_cuda}:{ROOT}", "LD_LIBRARY_PATH": str(tmp_path / "driver")}
    assert run(code, **variables) == "True cpu(0)"
    # The CPU build loads none of them by itself.
    assert run(code, LD_LIBRARY_PATH=str(tmp_path / "driver")) == "False cpu(0)"


@needs_gcc
def test_missing_cuda_libraries_and_driver(fake_cuda):
    load, variables = "from kogpt2_gluon.machine.runtime import mx", {"PYTHONPATH": f"{fake_cuda}:{ROOT}"}
    if cuda.driver_state() == "none":
        message = failure(load, **variables)
        assert message.startswith("mxnet-cu112 needs NVIDIA's driver (libcuda.so.1)") and "'.[cpu]'" in message
    (fake_cuda / "nvidia/cudnn/lib/libcudnn.so.8").unlink()
    (fake_cuda / "nvidia/nccl/lib/libnccl.so.2").write_bytes(b"not a library")
    message = failure(load, **variables)
    assert "libnccl.so.2, libcudnn.so.8: pip install nvidia-nccl-cu11==2.14.3 nvidia-cudnn-cu11==8.5.0.96" in message


def test_pins_are_those_of_setup():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (pins,) = (
        ast.literal_eval(n.value)
        for n in tree.body
        if isinstance(n, ast.Assign) and n.targets[0].id == "CUDA_LIBRARIES"
    )
    assert sorted(pins) == sorted({library.package for library in cuda.LIBRARIES})


DRIVER = """
int cuInit(unsigned flags) { return %d; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal > 1 ? 101 : 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? (device ? 7 : 9) : 0;
  return 0;
}
"""


@needs_gcc
def test_driver_is_asked(tmp_path):
    code = "from kogpt2_gluon.machine.cuda import *; print(driver_state(), [compute_capability(n) for n in range(3)])"
    sources = {"real": DRIVER % 0, "toolkit": DRIVER % 34, "stub": "int cuDeviceGet(void) { return 100; }"}
    answers = {
        "real": "CUDA 12.4 [(9, 0), (7, 0), None]",
        "toolkit": "stub [None, None, None]",
        "stub": "stub [None, None, None]",
    }
    for name, source in sources.items():
        compile_library(tmp_path / name / "libcuda.so.1", source)
        assert run(code, LD_LIBRARY_PATH=str(tmp_path / name)) == answers[name]


@pytest.mark.parametrize(
    ("major", "minor", "runs"), [(7, 0, True), (7, 5, True), (8, 6, True), (8, 9, True), (9, 0, False), (3, 7, False)]
)
def test_which_gpus_the_wheel_runs_on(major, minor, runs):
    refusal = cuda.unsupported_gpu("X", major, minor)
    assert (refusal is None) is runs
    if refusal:
        assert (
            f"X has compute capability {major}.{minor}" in refusal
            and "kogpt2 convert" in refusal
            and "\n" not in refusal
        )


def test_python_gets_no_openmp_team_of_its_own():
    """A large copy to NumPy must not start threads: MXNet would then have two teams, and libgomp puts both to sleep."""
    code = """
import os
from kogpt2_gluon.machine import runtime
runtime.prepare(2)
from kogpt2_gluon.machine.runtime import mx
array = mx.nd.ones(1_000_000)
(array + 1).wait_to_read()
before = len(os.listdir("/proc/self/task"))
array.asnumpy()
mx.nd.array(array.asnumpy()).wait_to_read()
print(before == len(os.listdir("/proc/self/task")))
"""
    assert run(code) == "True"
    assert run(code, MXNET_CPU_PARALLEL_SIZE="200000") == "False"  # MXNet's default: the check can fail
