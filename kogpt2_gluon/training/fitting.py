"""Which batch fits into memory, by the estimate of :mod:`kogpt2_gluon.estimate`; without MXNet."""

from __future__ import annotations

from dataclasses import replace

from kogpt2_gluon.estimate import Operators, possible_operators, size_of
from kogpt2_gluon.machine.limits import Memory
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.wording import gib

# Bytes of Python, MXNet and what is read ahead; on a GPU, of CUDA and its libraries.
FRAMEWORK = {"cpu": 300 << 20, "gpu": 800 << 20}
GPUS = (16, 24, 32, 40, 80)  # GB that common ones are sold with
USABLE = 0.93  # share of such a GB in GiB
SHORTEST = 32  # tokens of a sequence below which no advice goes


def needed(recipe: Recipe, operators: Operators, device: str, workers: int) -> int:
    """Returns the bytes that a worker needs on its device, "cpu" or "gpu"; the first one, which needs most."""
    copy = recipe.checkpoint.in_background and device == "cpu"
    size = size_of(recipe, operators, recipe.accumulate(workers))
    return size.memory + size.checkpoint * copy + FRAMEWORK[device]


def operators_on(recipe: Recipe, device: str) -> Operators | None:
    """Returns the first set of operators that a recipe may take on a device, "cpu" or "gpu"; None if there is none."""
    if recipe.training.device not in ("auto", device):
        return None
    return next((each for each in possible_operators(recipe) if device in each.devices), None)


def largest_batch(recipe: Recipe, operators: Operators, device: str, workers: int, room: int, most: int = 0) -> int:
    """Returns the largest batch_size, up to `most`, whose worker needs at most `room` bytes; 0 if there is none.

    total_batch_size stays as it is, so only its divisors by the number of workers are tried.
    """
    share = recipe.training.total_batch_size // workers
    sizes = [size for size in range(1, min(share, most or share) + 1) if share % size == 0]
    fits = [size for size in sizes if needed(_with(recipe, batch_size=size), operators, device, workers) <= room]
    return max(fits, default=0)


def advice(recipe: Recipe, operators: Operators, device: str, workers: int, room: int) -> str:
    """Says which settings to take so that a worker fits into `room` bytes, the least change first."""
    training, ways = recipe.training, []
    waiting = replace(recipe, checkpoint=replace(recipe.checkpoint, in_background=False))
    if recipe.checkpoint.in_background and needed(waiting, operators, device, workers) <= room:
        ways.append("checkpoint.in_background=false")
    plain = largest_batch(recipe, operators, device, workers, room, training.batch_size - 1)
    if plain:
        ways.append(_batch(recipe, plain, workers))
    again = _with(recipe, recompute="layer")
    batch = 0
    if training.recompute == "none":
        batch = largest_batch(again, operators, device, workers, room, training.batch_size)
    if batch > plain:
        smaller = f" with {_batch(recipe, batch, workers)}" if batch < training.batch_size else ""
        ways.append(f"training.recompute=layer{smaller}")
    if ways:
        return f"take {', or '.join(ways)}"
    smallest, length = _with(again, batch_size=1), recipe.data.seq_length
    while length > SHORTEST:
        length //= 2
        if needed(replace(smallest, data=replace(recipe.data, seq_length=length)), operators, device, workers) <= room:
            return f"take training.recompute=layer with training.batch_size=1 and data.seq_length={length}"
    least = gib(needed(smallest, operators, device, workers))
    return f"take a smaller model: with training.recompute=layer and training.batch_size=1 this one needs {least}"


def lines(recipe: Recipe, workers: int, memory: Memory, sharing: int) -> list[str]:
    """Returns lines for a dry run: if a worker fits on this machine's CPU, and which batch fits on common GPUs.

    `memory` is this machine's, for as many workers as are `sharing` it.
    """
    found, on_cpu, on_gpu = [], operators_on(recipe, "cpu"), operators_on(recipe, "gpu")
    sharing = 1 if memory.has_its_own else sharing
    if on_cpu:
        room, need = memory.total // sharing, needed(recipe, on_cpu, "cpu", workers)
        most = largest_batch(recipe, on_cpu, "cpu", workers, room)
        what = f"on a CPU, {gib(need)} a worker: {memory.whose} has {gib(memory.total)} for {sharing}"
        answer = f"batch_size up to {most}" if need <= room else advice(recipe, on_cpu, "cpu", workers, room)
        found.append(f"{what}; {answer}")
    if on_gpu:
        fits = {size: largest_batch(recipe, on_gpu, "gpu", workers, int(size * USABLE * 2**30)) for size in GPUS}
        found.append(
            "on a GPU, batch_size up to " + ", ".join(f"{most or 'none'} in {size} GB" for size, most in fits.items())
        )
    return [f"{'fits' if number == 0 else '':<19}{line}" for number, line in enumerate(found)]


def _batch(recipe: Recipe, batch_size: int, workers: int) -> str:
    steps = recipe.training.total_batch_size // (batch_size * workers)
    return f"training.batch_size={batch_size} (training.total_batch_size stays, in {steps} micro steps an update)"


def _with(recipe: Recipe, **training: object) -> Recipe:
    return replace(recipe, training=replace(recipe.training, **training))  # type: ignore[arg-type]
