"""The verb `kogpt2 serve`: a service on HTTP, and its page."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.paths import ANY_PATH


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.option("--compare", type=ANY_PATH, metavar="OTHER", help="A second checkpoint, which requests call b.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="NAME=FOLDER",
    help="A prompt that was tuned on CHECKPOINT (convert --to peft), which requests name; repeatable.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: every one.")
@click.option("--port", default=8000, show_default=True, help="0: any free one, which is printed.")
@click.option("--slots", default=8, show_default=True, help="Texts that are written at the same time.")
@click.option("--queue", default=128, show_default=True, help="Texts that may wait; then status 429.")
@click.option("--max-new-tokens", default=1024, show_default=True, help="The most new tokens of a text.")
@click.option(
    "--request-seconds", default=120.0, show_default=True, help="Then a request is answered with what is written."
)
@click.option("--max-body-bytes", default=1 << 20, show_default=True, help="Of a request; then status 413.")
@click.option("--connections", default=512, show_default=True, help="The most open connections.")
@click.option("--drain-seconds", default=30.0, show_default=True, help="How long texts may go on after SIGTERM.")
@click.option(
    "--token-file",
    type=ANY_PATH,
    metavar="FILE",
    help="Requests need the token in it; without the option, that of KOGPT2_SERVE_TOKEN if it is set.",
)
@click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="A web page that may use it; repeatable.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Another name of this service; repeatable.")
@options.weights
@options.device
@options.precision
@options.operators
def serve(
    checkpoint: Path,
    compare: Path | None,
    prompts: tuple[str, ...],
    host: str,
    port: int,
    slots: int,
    queue: int,
    max_new_tokens: int,
    request_seconds: float,
    max_body_bytes: int,
    connections: int,
    drain_seconds: float,
    token_file: Path | None,
    allow_origin: tuple[str, ...],
    allow_host: tuple[str, ...],
    weights: str | None,
    device: str,
    precision: str,
    operators: str,
) -> None:
    """Serve a checkpoint over HTTP: a page at /, POST /generate and /score, and /v1/completions for OpenAI's clients.

    \b
    Requests are written together. GET /openapi.json describes them, /metrics is for Prometheus.
    SIGTERM lets what has begun end. Exit codes are as always; 1 if texts were cut off then.

    \b
    Example: kogpt2 serve runs/demo
             kogpt2 serve runs/demo/best --compare runs/other --host 0.0.0.0 --token-file token.txt
             kogpt2 serve runs/base --prompt reviews=prompts/reviews --prompt news=prompts/news
    """
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.machine import runtime
    from kogpt2_gluon.machine.interrupts import interruptible

    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise RecipeError(
            f"needs FastAPI, uvicorn and prometheus-client ({error}): pip install 'kogpt2-gluon[serve]', on Python "
            "3.10 or later"
        ) from None
    from kogpt2_gluon.serving.settings import Settings, read_token

    settings = Settings(
        host=host,
        port=port,
        slots=slots,
        queue=queue,
        max_new_tokens=max_new_tokens,
        request_seconds=request_seconds,
        max_body_bytes=max_body_bytes,
        connections=connections,
        drain_seconds=drain_seconds,
        token=read_token(token_file),
        allow_origins=allow_origin,
        allow_hosts=allow_host,
    )
    runtime.wait_briefly()  # before the next lines load MXNet
    from kogpt2_gluon.serving import server
    from kogpt2_gluon.serving.networks import Loading, Network

    def say(line: str) -> None:
        click.echo(f"kogpt2: {line}", err=True)

    if not settings.is_local and not settings.token:
        say(f"note: {host} can be reached from other machines, and there is no token: whoever reaches it may use it")
    tuned = named_prompts(prompts)
    listener = server.listen(settings)
    loading = Loading(device, precision, operators, weights or "")
    with interruptible():  # the first process of a container hears no signal that it does not handle
        networks = {"a": Network("a", checkpoint, loading, slots, tuned)}
        if compare is not None:
            networks["b"] = Network("b", compare, loading, slots)
        for network in networks.values():
            if network.weights_note:
                say(f"note: {network.path}: {network.weights_note}")
        server.serve(networks, settings, listener, say)


def named_prompts(given: tuple[str, ...]) -> dict[str, Path]:
    """Returns the folders of --prompt NAME=FOLDER by their names; a shell expands no ~ in the middle of a word."""
    from kogpt2_gluon.options import expand_home  # --help does not read YAML

    found: dict[str, Path] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or not name or not path:
            raise click.UsageError(f"--prompt {each}: NAME=FOLDER is what it takes")
        if name in found:
            raise click.UsageError(f"--prompt {name}: is there twice")
        try:
            found[name] = Path(expand_home(path))
        except ValueError as error:
            raise click.UsageError(f"--prompt {name}: {error}") from None
    return found
