"""The result of a profile: the time of phases and operators, as plain data and as tables."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from kogpt2_gluon.estimate import flops_per_token
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.training.profile.trace import IDLE, OperatorTime, Span

PHASES = {
    "read": "wait for the next batch, on its way to the device",
    "forward": "network and loss, all micro steps",
    "backward": "gradients, all micro steps",
    "reduce": "mean over the workers, global norm",
    "agree": "loss to the host, sums over the workers",
    "update": "optimizer",
    "log": "one line of the record",
}
SHOWN_OPERATORS = 30
# An update reads parameter, gradient and two moments and writes all but the gradient, in float32.
UPDATE_BYTES = 4 * 7


@dataclass(frozen=True)
class PhaseTime:
    """A phase of pass 2. share : of the step. rate : of its arithmetic or memory traffic, in words, if known."""

    phase: str
    ms_a_step: float
    share: float
    rate: str


@dataclass(frozen=True)
class Profile:
    """What a profile found. Tokens a second are of all workers, the rest is of this one; memory in bytes."""

    recipe: str
    about: str
    synthetic: bool
    steps: int
    tokens_per_step: int
    tokens_per_second: float
    tokens_per_second_apart: float
    tokens_per_second_profiled: float
    peak_memory: int
    parameters: int
    skipped: int
    phases: list[PhaseTime]
    operators: list[OperatorTime]
    trace: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The tables."""
        arrays = 4 * self.parameters / 2**20
        lines = [f"{self.recipe}: {self.about}"]
        if self.synthetic:
            lines.append("RANDOM TOKENS (--synthetic): the recipe's data was not read")
        lines += [f"{self.steps} steps in each pass, {self.tokens_per_step:,} tokens a step"]
        if self.skipped:
            lines.append(f"{self.skipped} updates were skipped, warm-up included: float16 looks for its loss scale")
        lines += [
            "",
            f"{self.tokens_per_second:>12,.1f} tokens/s  as in training",
            f"{self.tokens_per_second_apart:>12,.1f} tokens/s  phases apart",
            f"{self.tokens_per_second_profiled:>12,.1f} tokens/s  phases apart and operators one by one, profiled",
            f"{self.peak_memory / 2**20:>12,.0f} MiB       most memory in use; of it parameters, gradients and two "
            f"moments 4 x {arrays:,.1f} MiB in float32",
            "",
            f"{'phase':<10}{'ms a step':>12}{'share':>8}  {'rate':<16}",
        ]
        for phase in self.phases:
            about = PHASES[phase.phase]
            lines.append(
                f"{phase.phase:<10}{phase.ms_a_step:>12,.2f}{phase.share:>8.1%}  {phase.rate:<16}{about}".rstrip()
            )
        total = sum(phase.ms_a_step for phase in self.phases)
        lines += [f"{'step':<10}{total:>12,.2f}{1:>8.1%}", ""]
        width = max([len(each.operator) for each in self.operators[:SHOWN_OPERATORS]] + [8])
        lines.append(f"{'operator':<{width}}  {'phase':<10}{'calls a step':>13}{'ms a step':>12}{'share':>8}")
        for each in self.operators[:SHOWN_OPERATORS]:
            calls = "" if each.operator == IDLE else f"{each.calls_a_step:,.1f}"
            lines.append(
                f"{each.operator:<{width}}  {each.phase:<10}{calls:>13}{each.ms_a_step:>12,.2f}{each.share:>8.1%}"
            )
        if rest := self.operators[SHOWN_OPERATORS:]:
            ms, share = sum(each.ms_a_step for each in rest), sum(each.share for each in rest)
            lines.append(f"{f'({len(rest)} more)':<{width}}  {'':<10}{'':>13}{ms:>12,.2f}{share:>8.1%}")
        return [*lines, "", f"{self.trace}: open it in https://ui.perfetto.dev or chrome://tracing"]


def phase_times(spans: list[Span], steps: int, recipe: Recipe, size: int, parameters: int) -> list[PhaseTime]:
    """The phases of `steps` steps, in the order of :data:`PHASES`, with what they work at on one of `size` workers."""
    seconds: dict[str, float] = defaultdict(float)
    for span in spans:
        seconds[span.name] += (span.end - span.start) / 1e6 / steps
    total = sum(seconds.values())
    operations = flops_per_token(recipe.model, recipe.data.seq_length) * recipe.tokens_per_step / size
    rates = {  # of the operations, a third are the forward pass's
        "forward": (operations / 3e9, "GFLOP/s"),
        "backward": (operations / 1.5e9, "GFLOP/s"),
        "update": (UPDATE_BYTES * parameters / 1e9, "GB/s"),
    }
    times = []
    for name in PHASES:
        if spent := seconds.get(name, 0.0):
            amount, unit = rates.get(name, (0.0, ""))
            rate = f"{amount / spent:,.1f} {unit}" if unit else ""
            times.append(PhaseTime(name, 1e3 * spent, spent / total, rate))
    return times
