"""Imports MXNet in a third of its time: what is rarely used is made, or imported, when it is first used.

While MXNet is imported it writes, compiles and runs Python source for each of its operators, once for each namespace:
2,556 functions, of which a training uses a hundred. That is two thirds of the import's time (MXNet 1.9.1,
``mxnet/base.py``, ``_init_op_module``; benchmarks/import_speed.py). Here each of them is a small function that makes
the real one when it is called. What it computes is the same; its docstring is one line and its signature is unknown, so
``help(mx.nd.FullyConnected)`` says more after a plain ``import mxnet``. Modules that no training uses (RARELY_USED) are
imported when something of them is used. MXNet compares versions of NumPy with distutils, in whose place setuptools, if
it is installed, imports all of itself: a third of what is left.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

Make = Callable[[Any, str, str], Callable[..., Any]]  # (handle, operator's name, function's name) -> function


def import_mxnet() -> ModuleType:
    """Imports and returns MXNet; whatever stops it is raised as `import mxnet` would raise it."""
    if "mxnet" not in sys.modules and not _import_with_lazy_operators():
        importlib.import_module("mxnet")
    _forgive_half_made_arrays()
    return sys.modules["mxnet"]


def _forgive_half_made_arrays() -> None:
    """Makes an array that a signal's exception has met before it had its handle go without a word.

    MXNet 1.9.1 frees a handle that is not there, which prints a traceback and frees nothing.
    """
    array = getattr(getattr(sys.modules["mxnet"], "nd", None), "NDArray", None)
    base: Any = array.__mro__[1] if array else None  # NDArrayBase, by ctypes or Cython
    free = getattr(base, "__del__", None)
    if free is None or getattr(free, "forgives", False):
        return

    def __del__(self: Any) -> None:  # noqa: N807  # the name by which interrupts.py knows a finalizer
        if hasattr(self, "handle"):
            free(self)

    __del__.forgives = True  # type: ignore[attr-defined]
    base.__del__ = __del__


def _import_with_lazy_operators() -> bool:
    """Imports MXNet; returns False, with nothing left behind, where it is not the MXNet that is known here."""
    spec = importlib.util.find_spec("mxnet")
    if spec is None or spec.loader is None:
        return False
    # Operators are registered by submodules, so mxnet.base must be there, changed, before the package itself runs.
    package = sys.modules["mxnet"] = importlib.util.module_from_spec(spec)
    try:
        base: Any = importlib.import_module("mxnet.base")
        register, register_numpy = base._init_op_module, base._init_np_op_module
    except Exception:  # `import mxnet` says it again in its own words
        for name in [name for name in sys.modules if name.partition(".")[0] == "mxnet"]:
            del sys.modules[name]
        return False

    def lazy_register(root: str, module: str, make: Make) -> None:
        register(root, module, lazily(make))

    def lazy_register_numpy(
        root_module_name: str, np_module_name: str, mx_module_name: str | None, make_op_func: Make
    ) -> None:
        register_numpy(root_module_name, np_module_name, mx_module_name, lazily(make_op_func))

    base._init_op_module, base._init_np_op_module = lazy_register, lazy_register_numpy
    try:
        with _imported_later():
            spec.loader.exec_module(package)
        if not hasattr(package, "onnx"):  # contrib.onnx would have imported it
            package.onnx = _Later("mxnet.onnx")  # type: ignore[attr-defined]
    except BaseException:
        del sys.modules["mxnet"]
        raise
    finally:
        base._init_op_module, base._init_np_op_module = register, register_numpy
    return True


# A fifth of what is left of the import's time goes into these; no training uses them.
RARELY_USED = ("mxnet.test_utils", "mxnet.contrib.text", "mxnet.contrib.onnx", "requests")
# MXNet imports these where they are installed, for a base class and for sparse arrays of SciPy, and does without them
# where they are not. They take longer than all the rest together.
DONE_WITHOUT = ("sklearn", "scipy")


class _Later(ModuleType):
    """Takes the place of a module, which is imported when something of it is first used."""

    def __getattr__(self, name: str) -> Any:
        if name in ("__path__", "__spec__", "__file__"):  # the import system's own questions
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self.__name__))


@contextmanager
def _imported_later() -> Iterator[None]:
    """Within it, an import of a module of RARELY_USED gives a `_Later`, and distutils has its versions alone.

    Those of DONE_WITHOUT seem not to be installed. After it, an import gives the module itself.
    """
    stand_ins: dict[str, ModuleType | None] = {name: _Later(name) for name in RARELY_USED if name not in sys.modules}
    stand_ins.update(_version_classes())
    stand_ins.update(dict.fromkeys(name for name in DONE_WITHOUT if name not in sys.modules))
    sys.modules.update(stand_ins)  # type: ignore[arg-type]  # None: an import fails
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if name in sys.modules and sys.modules[name] is stand_in:
                del sys.modules[name]


def _version_classes() -> dict[str, ModuleType]:
    """Loads setuptools' distutils.version alone; {} if there is none, or distutils is imported already."""
    found = importlib.util.find_spec("setuptools")
    if "distutils" in sys.modules or found is None or not found.submodule_search_locations:
        return {}
    file = Path(found.submodule_search_locations[0]) / "_distutils" / "version.py"
    spec = importlib.util.spec_from_file_location("distutils.version", file)
    if not file.is_file() or spec is None or spec.loader is None:
        return {}
    package, version = ModuleType("distutils"), importlib.util.module_from_spec(spec)
    spec.loader.exec_module(version)
    package.version = version  # type: ignore[attr-defined]
    return {"distutils": package, "distutils.version": version}


def lazily(make: Make) -> Make:
    """Returns a maker of functions that call `make` when they are first called, and then what it made."""

    def make_lazily(handle: Any, name: str, function_name: str) -> Callable[..., Any]:
        made: list[Callable[..., Any]] = []

        def operator(*arguments: Any, **named: Any) -> Any:
            if not made:
                made.append(make(handle, name, function_name))
            return made[0](*arguments, **named)

        operator.__name__ = operator.__qualname__ = function_name
        operator.__doc__ = f"MXNet's operator {name}; its arguments are listed by help() after a plain `import mxnet`."
        return operator

    return make_lazily
