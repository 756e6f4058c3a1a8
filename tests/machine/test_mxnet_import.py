"""MXNet with operators that are made when they are called is the same MXNet."""

import json
import subprocess
import sys
import textwrap

import pytest

from kogpt2_gluon.machine.mxnet_import import import_mxnet, lazily
from tests.helpers import ROOT

PLAIN, LAZY = "import mxnet as mx", "from kogpt2_gluon.machine.mxnet_import import import_mxnet\nmx = import_mxnet()"

# Each operator through all of its roads: at once, as a symbol, in a hybrid block, with a gradient, of each namespace.
LOOK = """
import json, types
{load}
def names(module):
    return sorted(name for name in dir(module) if isinstance(getattr(module, name), types.FunctionType))
rooms = [mx.nd, mx.nd.op, mx.nd._internal, mx.nd.contrib, mx.nd.linalg, mx.nd.random, mx.nd.image, mx.contrib.ndarray,
         mx.sym, mx.sym.op, mx.sym._internal, mx.sym.contrib, mx.sym.linalg, mx.contrib.symbol, mx.npx,
         mx.np, mx.np.random, mx.np.linalg, mx.nd.numpy._internal, mx.sym.numpy._internal, mx.nd.numpy_extension]
seen = {{room.__name__: names(room) for room in rooms}}
modules = {{room.__name__: [getattr(room, name).__module__ for name in seen[room.__name__]] for room in rooms}}
x = mx.nd.arange(6).reshape((2, 3))
x.attach_grad()
with mx.autograd.record():
    y = mx.nd.FullyConnected(x, mx.nd.ones((4, 3)), num_hidden=4, no_bias=True)
    y = mx.nd.softmax(mx.nd.contrib.div_sqrt_dim(y))
    y = (y * mx.nd.arange(8).reshape((2, 4))).sum()
y.backward()
net = mx.gluon.nn.HybridSequential(prefix="net_")
net.add(mx.gluon.nn.Dense(2), mx.gluon.nn.LayerNorm(), mx.gluon.nn.GELU())
net.initialize(mx.init.Constant(0.5)); net.hybridize()
symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=4, name="first")
out = mx.nd.zeros((2, 3))
mx.nd.broadcast_add(x, x, out=out)
errors = []
for call in (lambda: mx.nd.FullyConnected(x), lambda: mx.nd.FullyConnected(x, no_such=1), lambda: mx.nd.dot(x, x)):
    try:
        mx.nd.waitall(); call(); mx.nd.waitall()
    except Exception as error:
        errors.append([type(error).__name__, str(error).splitlines()[-1]])
print(json.dumps(dict(seen=seen, modules=modules, y=y.asscalar().item(), gradient=x.grad.asnumpy().tolist(),
    block=net(x).asnumpy().tolist(), arguments=symbol.list_arguments(), out=out.asnumpy().tolist(), errors=errors,
    numpy=[mx.np.add(1, mx.np.ones(2)).asnumpy().tolist(), mx.npx.relu(mx.np.array([-1.0, 2])).asnumpy().tolist()],
    signature=str(__import__("inspect").signature(mx.np.zeros_like)),
    later=[mx.test_utils.same.__module__, mx.contrib.text.utils.__name__, mx.onnx.export_model.__module__,
           mx.contrib.onnx.import_model.__module__, sorted(dir(mx.contrib.text)),
           mx.gluon.utils.requests.get.__module__]
)))
import requests, mxnet.test_utils
assert requests.__file__ and mxnet.test_utils is mx.test_utils and isinstance(requests, types.ModuleType)
"""


def look(load):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LOOK.format(load=load)], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def test_the_same_names_values_gradients_and_errors():
    plain, lazy = look(PLAIN), look(LAZY)
    assert len(plain["seen"]["mxnet.ndarray"]) > 300 and len(plain["errors"]) == 3
    assert lazy == plain


def test_an_operator_is_made_once_and_not_before():
    made = []

    def make(handle, name, function_name):
        made.append((handle, name, function_name))
        return lambda *arguments, **named: (arguments, named)

    operator = lazily(make)(7, "_contrib_thing", "thing")
    assert not made and operator.__name__ == "thing" and "_contrib_thing" in operator.__doc__
    assert operator(1, axis=2) == ((1,), {"axis": 2}) and operator() == ((), {})
    assert made == [(7, "_contrib_thing", "thing")]


@pytest.mark.parametrize(
    "files",
    [
        {"__init__.py": "raise OSError('libgfortran.so.3')"},  # no base at all
        {"__init__.py": "from . import base", "base.py": "raise OSError('libgfortran.so.3')"},
        {"__init__.py": "from . import base\nraise OSError('libgfortran.so.3')", "base.py": "x = 1"},
        {
            "__init__.py": "raise OSError('libgfortran.so.3')",
            "base.py": "def _init_op_module(): ...\ndef _init_np_op_module(): ...",
        },
    ],
)
def test_a_broken_or_another_mxnet_fails_as_itself(tmp_path, files):
    (tmp_path / "mxnet").mkdir()
    for name, text in files.items():
        (tmp_path / "mxnet" / name).write_text(text)
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from kogpt2_gluon.machine.mxnet_import import import_mxnet
        for _ in range(2):
            try:
                import_mxnet()
            except OSError as error:
                print(error, "mxnet" in sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "libgfortran.so.3 False\n" * 2, done.stderr


def test_another_mxnet_that_works_is_imported_plainly(tmp_path):
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet" / "__init__.py").write_text("from . import base\nvalue = base.value")
    (tmp_path / "mxnet" / "base.py").write_text("value = 5")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from kogpt2_gluon.machine.mxnet_import import import_mxnet; "
    done = subprocess.run([sys.executable, "-c", code + "print(import_mxnet().value)", tmp_path], cwd=ROOT, text=True,
                          capture_output=True)  # fmt: skip
    assert done.stdout == "5\n", done.stderr


def test_setuptools_is_not_imported_for_its_distutils():
    code = """
        import sys, warnings
        from kogpt2_gluon.machine.mxnet_import import import_mxnet
        mx = import_mxnet()
        assert not {"setuptools", "distutils", "distutils.version"} & sys.modules.keys()
        warnings.simplefilter("error")  # setuptools warns where distutils was there before it
        import setuptools, distutils.version
        assert "setuptools" in distutils.version.__file__, distutils.version.__file__
        assert mx.np.mean(mx.np.array([1.0, 3.0])).item() == 2.0
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], cwd=ROOT, check=True, timeout=60)


def test_libraries_that_mxnet_can_do_without_are_not_imported_and_work_afterwards():
    code = (
        "import sys; from kogpt2_gluon.machine.mxnet_import import import_mxnet; mx = import_mxnet(); "
        "there = [name for name in ('sklearn', 'scipy') if name in sys.modules]; "
        "import scipy.sparse, sklearn; print(there, scipy.sparse.eye(2).sum(), mx.nd.ones(2).sum().asscalar())"
    )
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[] 2.0 2.0\n", done.stderr


def test_an_array_that_a_signal_has_stopped_before_it_was_made_goes_without_a_word(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    mx = import_mxnet()
    half = mx.nd.NDArray.__new__(mx.nd.NDArray)
    del half
    whole = mx.nd.ones(3)
    assert whole.sum().asscalar() == 3
    del whole
    import_mxnet()  # a second time changes nothing
    assert mx.nd.NDArray.__mro__[1].__del__.forgives and unraisable == []
