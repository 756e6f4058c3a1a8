"""Serves a checkpoint with settings that the command line lacks, such as how long headers may take: CKPT JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kogpt2_gluon.errors import one_line
from kogpt2_gluon.machine import runtime
from kogpt2_gluon.serving.settings import Settings


def main(checkpoint: str, settings: str) -> None:
    runtime.wait_briefly()
    from kogpt2_gluon.serving import server
    from kogpt2_gluon.serving.networks import Loading, Network

    with one_line("serve_program"):
        wanted = Settings(**json.loads(settings))
        listener = server.listen(wanted)
        networks = {"a": Network("a", Path(checkpoint), Loading(), wanted.slots)}
        server.serve(networks, wanted, listener, lambda line: print(f"kogpt2: {line}", file=sys.stderr, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
