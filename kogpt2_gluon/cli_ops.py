"""The verb `kogpt2 ops`: the fused operators, which are compiled on the machine that uses them."""

from __future__ import annotations

import click


@click.group(no_args_is_help=True)
def ops() -> None:
    """The fused operators: compile them, or say what is there."""


@ops.command()
@click.option("--force", is_flag=True, help="Compile again, even if the cache has them.")
def build(force: bool) -> None:
    """Compile the fused operators for this machine; exit code 1 and one line if that cannot be done.

    Training does so by itself when it first needs them. On a cluster, run this once on a node of each kind before the
    job, so that no worker waits for a compiler. The environment variable KOGPT2_CACHE names another cache folder,
    KOGPT2_OPS_ISA a lower instruction set (amx, avx512_bf16, avx512, avx2, x86-64), CXX another compiler.
    """
    from kogpt2_gluon.ops.build import build_cpu_operators

    library = build_cpu_operators(force)
    click.echo(f"{'compiled' if library.built else 'already there'}: {library.path} ({library.isa.name})")


@ops.command()
def status() -> None:
    """What this machine has, what is compiled, and where."""
    from kogpt2_gluon.ops.build import cache_folder, instruction_set

    click.echo(f"instruction set: {instruction_set().name}")
    libraries = sorted(cache_folder().glob("kogpt2-*.so"))
    for path in libraries:
        click.echo(f"compiled: {path}")
    if not libraries:
        click.echo(f"nothing is compiled in {cache_folder()}: kogpt2 ops build")
