"""The result of a profile: the time of phases and operators, as plain data and as tables."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from kogpt2_gluon.training.phases import PHASES
from kogpt2_gluon.training.profile.trace import IDLE, OperatorTime, Span

SHOWN_OPERATORS = 30
# An update reads parameter, gradient and two moments and writes all but the gradient, in float32.
UPDATE_BYTES = 4 * 7


@dataclass(frozen=True)
class PhaseTime:
    """The time of a phase in pass 2.

    `share` is its share of the step. `rate` is its arithmetic or memory traffic per second, in words; empty if unknown.
    """

    phase: str
    ms_a_step: float
    share: float
    rate: str


@dataclass(frozen=True)
class Profile:
    """The result of a profile. Tokens per second count all workers, the rest is about this one; memory in bytes."""

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
        """The tables, line by line."""
        arrays = 4 * self.parameters / 2**20
        lines = [f"{self.recipe}: {self.about}"]
        if self.synthetic:
            lines.append("RANDOM TOKENS (--synthetic): the recipe's data was not read")
        lines += [f"{self.steps} steps in each pass, {self.tokens_per_step:,} tokens a step"]
        if self.skipped:
            lines.append(
                f"{self.skipped} updates were skipped, warm-up included, while float16 looked for its loss scale"
            )
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


def phase_times(spans: list[Span], steps: int, operations: float, parameters: int) -> list[PhaseTime]:
    """The time of each phase in `steps` steps, in the order of PHASES, with its rate where that is known.

    `operations` are those of one worker in one step, forward and backward; `parameters` those of the network.
    """
    seconds: dict[str, float] = defaultdict(float)
    for span in spans:
        seconds[span.name] += (span.end - span.start) / 1e6 / steps
    total = sum(seconds.values())
    rates = {  # a third of the operations belong to the forward pass
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
