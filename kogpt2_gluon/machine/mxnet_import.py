"""Imports MXNet in less than half of its time: a Python function of an operator is made when it is first called.

While MXNet is imported it writes, compiles and runs Python source for each of its operators, once for each namespace:
2,556 functions, of which a training uses a hundred. That is two thirds of the import's time (MXNet 1.9.1,
``mxnet/base.py``, ``_init_op_module``; benchmarks/import_speed.py). Here each of them is a small function that makes
the real one when it is called. What it computes is the same; its docstring is one line and its signature is unknown, so
``help(mx.nd.FullyConnected)`` says more after a plain ``import mxnet``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, Callable

Make = Callable[[Any, str, str], Callable[..., Any]]  # (handle, operator's name, function's name) -> function


def import_mxnet() -> ModuleType:
    """Imports and returns MXNet; whatever stops it is raised as `import mxnet` would raise it."""
    if "mxnet" not in sys.modules and not _import_with_lazy_operators():
        importlib.import_module("mxnet")
    return sys.modules["mxnet"]


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
        spec.loader.exec_module(package)
    except BaseException:
        del sys.modules["mxnet"]
        raise
    finally:
        base._init_op_module, base._init_np_op_module = register, register_numpy
    return True


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
