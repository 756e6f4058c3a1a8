"""A program that serves a GGUF file with llama.cpp until its standard input ends: ``FILE POSITIONS``.

It writes one line of JSON, {"address": "http://127.0.0.1:..."} or {"error": "..."}, and logs nothing. It is a process
of its own because what llama.cpp does cannot be caught inside one: on some files it aborts, and a server that is ended
may wait for ever.
"""

from __future__ import annotations

import json
import os
import sys


def main(file: str, positions: str) -> None:
    """Serves a file with room for `positions` tokens."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = file, int(positions), 1
    params.verbosity, params.warmup, params.hostnames, params.port = -1, False, ["127.0.0.1"], 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        os._exit(0)
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.buffer.read()  # it ends when whoever started this ends, however that happens
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
