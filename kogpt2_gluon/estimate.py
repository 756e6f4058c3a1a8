"""Predicts parameters, memory, disk, time and cost of a recipe, without opening a file or loading MXNet.

Every prediction names its basis. Operations follow Kaplan et al. (2020): 6 per parameter and token for forward and
backward, and 12 x layers x units x length more per token for attention. Speeds are the peak rates of the makers' data
sheets times a utilisation. The utilisation is an assumption, except the CPU's, which was measured with this package.
Memory counts arrays; on CPUs it was measured too (benchmarks/memory.py), and on GPUs it is arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import OPTIMIZERS, ModelRecipe
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


def gpu_named(name: str) -> Device | None:
    """Returns the GPU of DEVICES that a driver calls `name`, such as ``NVIDIA A100-SXM4-40GB``; None for any other."""
    return next((each for each in DEVICES if each.network and each.name.split()[0] in name), None)


@dataclass(frozen=True)
class Estimate:
    """The time and cost of a run on devices of one kind: seconds, and dollars where a price is known."""

    device: str
    seconds: float
    dollars: float | None
    basis: str


@dataclass(frozen=True)
class Operators:
    """The arrays that a set of operators holds in a micro step, by the names of ops/operator_set.py.

    Attributes
    ----------
    name : str
        Its name in a dry run.
    units, scores : int
        Arrays that each layer keeps between the passes, of tokens x units and of tokens x heads x length numbers.
    logits, recomputed_logits : int
        Arrays of tokens x vocab_size numbers, and the same with training.recompute=layer, where one plan of memory is
        for both passes. They count as float32: in float16, casts add arrays.
    matrices : float
        Arrays of the tied matrix's size, apart from its gradient.
    logits_in_gradient : bool
        True if the logits lie in the tied matrix's gradient as far as they fit, unless gradients add up in it.
    keeps_masks : bool
        True if recomputed layers keep a byte for each decision of dropout.
    devices, precisions : tuple of str
        Where they run, and the values of training.precision that they have.
    """

    name: str
    units: int
    scores: int
    logits: int
    recomputed_logits: int
    matrices: float
    logits_in_gradient: bool
    keeps_masks: bool
    devices: tuple[str, ...]
    precisions: tuple[str, ...]


FUSED_CPU = Operators("fused, CPU", 10, 0, 1, 1, 0, True, False, ("cpu",), ("float32", "bfloat16"))
FUSED_CUDA = Operators("fused, GPU", 20, 2, 3, 2, 1.5, False, False, ("gpu",), ("float32", "float16"))
STOCK = Operators("MXNet's own", 18, 3, 3, 2, 1.5, False, True, ("cpu", "gpu"), ("float32", "float16"))
BY_OPS = {"auto": (FUSED_CPU, FUSED_CUDA, STOCK), "fused": (FUSED_CPU, FUSED_CUDA), "stock": (STOCK,)}
WORKING_UNITS = 28  # arrays of tokens x units that come and go, whatever the operators
WORKSPACE = 40_000_000  # bytes that the operators' threads work in


def possible_operators(recipe: Recipe) -> list[Operators]:
    """The sets that may compute a recipe. None if there is no such set: the run refuses the recipe then."""
    training = recipe.training
    return [
        each
        for each in BY_OPS[training.ops]
        if training.device in ("auto", *each.devices) and training.precision in ("auto", *each.precisions)
    ]


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


def recomputed_share(recipe: Recipe) -> float:
    """The operations that computing each layer again adds to a step, as a share of the step's."""
    model, length = recipe.model, recipe.data.seq_length
    head = model.vocab_size * model.units
    matrices = count_parameters(model) - model.max_length * model.units - head
    again = 2.0 * matrices + 4.0 * model.num_layers * model.units * length
    return again / flops_per_token(model, length)


def size_of(recipe: Recipe, operators: Operators = STOCK, accumulate: int = 1) -> Size:
    """Memory and disk of one worker with these operators, `accumulate` micro steps an update.

    bfloat16 is used inside products only, so it counts as float32 here; so does 'auto', which may be float16 on a GPU.
    """
    parameters = count_parameters(recipe.model)
    is_float16 = recipe.training.precision == "float16"
    storage_bytes = FLOAT_BYTES // 2 if is_float16 else FLOAT_BYTES
    masters = FLOAT_BYTES * parameters
    kept = OPTIMIZERS[recipe.training.optimizer].arrays  # in float32, of a parameter's size
    return Size(
        parameters=parameters,
        weights=storage_bytes * parameters,
        gradients=storage_bytes * parameters,
        optimizer=kept * masters + (masters if is_float16 else 0),
        activations=_activations(recipe, operators, storage_bytes, accumulate),
        checkpoint=masters * (1 + kept),
    )


def _activations(recipe: Recipe, operators: Operators, storage_bytes: int, accumulate: int) -> int:
    """The bytes of a micro step's arrays."""
    model, training = recipe.model, recipe.training
    tokens = training.batch_size * recipe.data.seq_length
    units, scores = tokens * model.units, tokens * model.num_heads * recipe.data.seq_length
    layer = operators.units * units + operators.scores * scores
    if training.recompute == "layer":
        logits, values, masks = operators.recomputed_logits, model.num_layers * units + layer, 0
        if operators.keeps_masks and model.dropout:
            masks = model.num_layers * (scores + 2 * units)
            values += 2 * scores  # in which they are drawn
    else:
        logits, values, masks = operators.logits, model.num_layers * layer, 0
    matrix = FLOAT_BYTES * model.vocab_size * model.units
    head = FLOAT_BYTES * logits * tokens * model.vocab_size
    if operators.logits_in_gradient and accumulate == 1:
        head = max(0, head - matrix)
    values += WORKING_UNITS * units
    return int(storage_bytes * values + masks + head + operators.matrices * matrix + WORKSPACE)


def checkpoints_kept(recipe: Recipe) -> int:
    """The most checkpoints that a run keeps; while it saves there is one more."""
    rules, steps = recipe.checkpoint, recipe.training.num_steps
    best, every = rules.keep_best and bool(recipe.data.test or recipe.task.name), rules.interval or steps
    if rules.keep:
        return rules.keep + best + (steps // math.lcm(every, rules.keep_every) if rules.keep_every else 0)
    evaluated = (recipe.evaluation.interval or steps) if best else 0
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
    """One worker's part of an update on a device; the backward pass is two thirds of the operations of a step.

    Layers that are computed again are in the backward pass as well. Gradients that are float16 travel as float16; the
    utilisation includes the optimizer's time.
    """
    tokens = recipe.training.batch_size * recipe.data.seq_length
    seconds = tokens * flops_per_token(recipe.model, recipe.data.seq_length)
    seconds /= device.flops(recipe.training.precision)
    value_bytes = FLOAT_BYTES // 2 if recipe.training.precision == "float16" else FLOAT_BYTES
    embedding = recipe.model.vocab_size * recipe.model.units
    others = count_parameters(recipe.model) - embedding
    again = recomputed_share(recipe) if recipe.training.recompute == "layer" else 0.0
    return Work(seconds / 3, seconds * (2 / 3 + again), accumulate, value_bytes * others, value_bytes * embedding)


def scaling_lines(recipe: Recipe) -> list[str]:
    """Lines with the speedup of 8, 64 and 256 GPUs over one, each with the recipe's batch and one micro step."""
    lines = ["scaling            times one GPU, eight a host, a micro step an update:"]
    for device in DEVICES:
        if device.network:
            work, network = work_of(recipe, device, 1), NETWORKS[device.network]
            speedups = ", ".join(f"{speedup(work, count, network):.1f} of {count}" for count in SCALES)
            lines.append(f"  {device.name:<30}: {speedups} ({network.name}; {network.basis})")
    return lines
