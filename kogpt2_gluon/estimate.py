"""Predicts parameters, memory, disk, time and cost of a recipe, without opening a file or loading MXNet.

Every prediction names its basis. Operations follow Kaplan et al. (2020): 6 per parameter and token for forward and
backward, and 12 x layers x units x length more per token for attention. Speeds are the peak rates of the makers' data
sheets times a utilisation. The utilisation is an assumption, except the CPU's, which was measured with this package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kogpt2_gluon.recipe import OPTIMIZERS, ModelRecipe, Recipe
from kogpt2_gluon.scaling import NETWORKS, Work, speedup
from kogpt2_gluon.wording import rough_duration

FLOAT_BYTES = 4
SCALES = (8, 64, 256)  # GPUs


@dataclass(frozen=True)
class Device:
    """A kind of device that trains.

    Attributes
    ----------
    peak_tflops, utilisation : float
        Peak rate of dense products in float32, and the share of it that training reaches.
    half_tflops, half_utilisation : float
        The same with float16 or bfloat16 factors.
    dollars_per_hour : float
        On demand, of one device, in us-east-1, by public price lists of 2024 to 2026; ask your provider.
    network : str
        The network between its hosts, a name in scaling.NETWORKS; empty: unknown.
    """

    name: str
    peak_tflops: float
    utilisation: float
    half_tflops: float
    half_utilisation: float
    dollars_per_hour: float
    network: str
    basis: str

    def flops(self, precision: str) -> float:
        """Operations per second in training; precision 'auto' counts as the faster one."""
        full = self.peak_tflops * 1e12 * self.utilisation
        half = self.half_tflops * 1e12 * self.half_utilisation
        return {"float32": full, "auto": max(full, half)}.get(precision, half)


DATA_SHEET = "NVIDIA data sheet; utilisation assumed"
DEVICES = (
    Device(
        "2 CPU cores, AVX-512",
        0.46,
        0.55,
        0.79,
        0.78,
        0.0,
        "",
        "kogpt2_base at 2 x 256 on a Xeon with AMX: 322 tokens/s in float32, 803 in bfloat16",
    ),
    Device("V100 (p3dn.24xlarge / 8)", 15.7, 0.45, 125, 0.25, 31.212 / 8, "p3dn", DATA_SHEET),
    Device("A100 (p4d.24xlarge / 8)", 19.5, 0.45, 312, 0.25, 32.7726 / 8, "p4d", DATA_SHEET),
)


@dataclass(frozen=True)
class Estimate:
    """The time and cost of a run on devices of one kind: seconds, and dollars where a price is known."""

    device: str
    seconds: float
    dollars: float | None
    basis: str


@dataclass(frozen=True)
class Size:
    """Sizes of one worker in bytes; `parameters` is a count.

    `optimizer` includes the float32 masters of float16 weights; `activations` is what one micro step holds for the
    backward pass.
    """

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    checkpoint: int

    @property
    def memory(self) -> int:
        """The memory of one worker, without the few hundred MB that the framework itself needs."""
        return self.weights + self.gradients + self.optimizer + self.activations


def count_parameters(model: ModelRecipe) -> int:
    """The number of parameters, with the tied matrix counted once; 124,242,432 for KoGPT-2 base."""
    units = model.units
    layer = (3 * units * units + 3 * units) + (units * units + units)  # qkv and output projection
    layer += (4 * units * units + 4 * units) + (4 * units * units + units)  # feed-forward
    layer += 4 * units  # two LayerNorms
    return (model.vocab_size + model.max_length) * units + model.num_layers * layer + 2 * units


def flops_per_token(model: ModelRecipe, seq_length: int) -> float:
    """Operations of one training token, forward and backward. The embedding look-up costs none, the tied head does."""
    matrices = count_parameters(model) - model.max_length * model.units
    return 6.0 * matrices + 12.0 * model.num_layers * model.units * seq_length


def size_of(recipe: Recipe) -> Size:
    """Memory and disk of one worker with stock operators; the fused ones keep less between the passes.

    bfloat16 is used inside products only, so it counts as float32 here; so does 'auto', which may be float16 on a GPU.
    """
    model, parameters = recipe.model, count_parameters(recipe.model)
    is_float16 = recipe.training.precision == "float16"
    storage_bytes = FLOAT_BYTES // 2 if is_float16 else FLOAT_BYTES
    tokens = recipe.training.batch_size * recipe.data.seq_length
    # A block keeps its two LayerNorm outputs and residuals, qkv, heads, context, projections and dropout masks (about
    # 18 C a token), the hidden layer before and after GELU (8 C), and scores, weights, mask (3 H T). The head keeps
    # logits, their log-softmax and both gradients: in float16 the logits, and what becomes of them is float32.
    block = tokens * (26 * model.units + 3 * model.num_heads * recipe.data.seq_length)
    head = tokens * model.vocab_size * (2 * storage_bytes + 2 * FLOAT_BYTES)
    masters = FLOAT_BYTES * parameters
    kept = OPTIMIZERS[recipe.training.optimizer].arrays  # in float32, of a parameter's size
    tied_copy = FLOAT_BYTES * model.vocab_size * model.units  # the file format of the released weights stores it twice
    return Size(
        parameters=parameters,
        weights=storage_bytes * parameters,
        gradients=storage_bytes * parameters,
        optimizer=kept * masters + (masters if is_float16 else 0),
        activations=storage_bytes * model.num_layers * block + head,
        checkpoint=masters * (1 + kept) + tied_copy,
    )


def checkpoints_kept(recipe: Recipe) -> int:
    """The most checkpoints that a run keeps; while it saves there is one more."""
    steps, best = recipe.training.num_steps, recipe.checkpoint.keep_best and bool(recipe.data.test)
    if recipe.checkpoint.keep:
        return recipe.checkpoint.keep + best
    every, evaluated = recipe.checkpoint.interval or steps, (recipe.evaluation.interval or steps) if best else 0
    due = steps // every
    if evaluated:  # each evaluation may be the best so far; those that meet a regular save count once
        due += steps // evaluated - steps // math.lcm(every, evaluated)
    return max(1, due)


def estimates(recipe: Recipe, size: int) -> tuple[Estimate, ...]:
    """The time and cost of `size` workers on each kind of device, without evaluation."""
    found = []
    for device in DEVICES:
        work, network = work_of(recipe, device, recipe.accumulate(size)), NETWORKS.get(device.network)
        seconds = recipe.training.num_steps * work.alone
        if network and size > 1:
            seconds *= size / speedup(work, size, network)
        dollars = round(seconds / 3600 * device.dollars_per_hour * size, 2) if device.dollars_per_hour else None
        found.append(Estimate(device.name, round(seconds, 1), dollars, device.basis))
    return tuple(found)


def time_and_cost(recipe: Recipe, size: int) -> list[str]:
    """The lines of a dry run about time, cost and scaling for `size` workers."""
    lines = ["time and cost      by peak x utilisation and the model of scaling.py; evaluation left out:"]
    for each in estimates(recipe, size):
        cost = f", about ${each.dollars:,.0f}" if each.dollars is not None else ""
        lines.append(f"  {size} x {each.device:<26} {rough_duration(each.seconds)}{cost}  ({each.basis})")
    return [*lines, *scaling_lines(recipe)]


def work_of(recipe: Recipe, device: Device, accumulate: int) -> Work:
    """One worker's part of an update on a device; the backward pass is two thirds of the operations.

    Gradients that are float16 travel as float16; the utilisation includes the optimizer's time.
    """
    tokens = recipe.training.batch_size * recipe.data.seq_length
    seconds = tokens * flops_per_token(recipe.model, recipe.data.seq_length)
    seconds /= device.flops(recipe.training.precision)
    value_bytes = FLOAT_BYTES // 2 if recipe.training.precision == "float16" else FLOAT_BYTES
    embedding = recipe.model.vocab_size * recipe.model.units
    others = count_parameters(recipe.model) - embedding
    return Work(seconds / 3, seconds * 2 / 3, accumulate, value_bytes * others, value_bytes * embedding)


def scaling_lines(recipe: Recipe) -> list[str]:
    """Lines with the speedup of 8, 64 and 256 GPUs over one, each with the recipe's batch and one micro step."""
    lines = ["scaling            times one GPU, eight a host, a micro step an update:"]
    for device in DEVICES:
        if device.network:
            work, network = work_of(recipe, device, 1), NETWORKS[device.network]
            speedups = ", ".join(f"{speedup(work, count, network):.1f} of {count}" for count in SCALES)
            lines.append(f"  {device.name:<30}: {speedups} ({network.name}; {network.basis})")
    return lines
