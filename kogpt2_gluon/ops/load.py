"""Loads a library of operators into MXNet."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from kogpt2_gluon.machine import runtime

PREFIX = "kogpt2_"  # of every operator's name


def load_operators(library: Path) -> None:
    """Registers a library's operators as ``mx.nd.kogpt2_*`` and ``mx.sym.kogpt2_*``; MXNetError if it does not load.

    `mx.library.load` does the same, but also makes the Python functions of MXNet's own 2,300 operators once more, which
    takes 0.3 s of every start.
    """
    mx = runtime.mx
    base, lib = mx.base, mx.base._LIB
    base.check_call(lib.MXLoadLib(base.c_str(str(library)), base.mx_uint(0)))
    size, names = ctypes.c_uint(), ctypes.POINTER(ctypes.c_char_p)()
    base.check_call(lib.MXListAllOpNames(ctypes.byref(size), ctypes.byref(names)))
    ours = [name for name in map(base.py_str, names[: size.value]) if name.startswith(PREFIX)]
    makers = {"ndarray": mx.library._make_ndarray_function, "symbol": mx.library._make_symbol_function}
    for kind, make in makers.items():
        for name in ours:
            handle = base.OpHandle()
            base.check_call(lib.NNGetOpHandle(base.c_str(name), ctypes.byref(handle)))
            function = make(handle, name, name)
            function.__module__ = f"mxnet.{kind}"
            for module in (f"mxnet.{kind}.op", f"mxnet.{kind}"):
                setattr(sys.modules[module], name, function)
