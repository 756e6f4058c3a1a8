"""The verb `kogpt2 ops`: the fused operators, which are compiled on the machine that uses them."""

from __future__ import annotations

import click

SHOWN = 3  # the newest compiled libraries


@click.group(no_args_is_help=True)
def ops() -> None:
    """The fused operators: compile them, list them, remove old ones.

    \b
    Example: kogpt2 ops build && kogpt2 ops status
    """


@ops.command()
@click.option("--force", is_flag=True, help="Compile again, even if the cache has them.")
def build(force: bool) -> None:
    """Compile the fused operators for this machine, and measure them; exit code 1 and one line if that cannot be done.

    Training compiles them when it first needs them. On a cluster, run this once on a node of each kind before the
    job, so that no worker waits for a compiler. The environment variable KOGPT2_CACHE names another cache folder,
    KOGPT2_OPS_ISA a lower instruction set (amx, avx512_bf16, avx512, avx2, x86-64), CXX another compiler.

    \b
    Example: kogpt2 ops build
             KOGPT2_CACHE=/fsx/kogpt2 kogpt2 ops build --force
    """
    from kogpt2_gluon.ops.build import build_cpu_operators
    from kogpt2_gluon.ops.kernels import BASE, faster_precision

    library = build_cpu_operators(force)
    click.echo(f"{'compiled' if library.built else 'already there'}: {library.path} ({library.isa.name})")
    precision, reason = faster_precision(BASE)
    click.echo(f"faster precision for KoGPT-2: {precision}, because {reason}")


@ops.command()
def clean() -> None:
    """Remove libraries that were compiled from other sources, by other compilers or for other kinds of machine.

    If machines of several kinds share the cache folder, the others must compile again.

    \b
    Example: kogpt2 ops clean
    """
    from kogpt2_gluon.ops.build import remove_other_libraries

    gone, kept = remove_other_libraries()
    click.echo(f"removed: {len(gone)}; {'kept' if kept.is_file() else 'not compiled yet'}: {kept}")


@ops.command()
def status() -> None:
    """Print this machine's instruction set and the compiled libraries.

    \b
    Example: kogpt2 ops status
    """
    from kogpt2_gluon.ops.build import cache_folder, instruction_set
    from kogpt2_gluon.wording import counted, gib

    click.echo(f"instruction set: {instruction_set().name}")
    libraries = sorted(cache_folder().glob("kogpt2-*.so"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in libraries[:SHOWN]:
        click.echo(f"compiled: {path}")
    if libraries[SHOWN:]:
        size = gib(sum(path.stat().st_size for path in libraries))
        click.echo(f"and {counted(len(libraries) - SHOWN, 'older one')}, {size} in all: kogpt2 ops clean")
    if not libraries:
        click.echo(f"nothing is compiled in {cache_folder()}: kogpt2 ops build")
