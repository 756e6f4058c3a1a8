"""The figures of one update."""

from __future__ import annotations

from dataclasses import dataclass

from kogpt2_gluon.wording import duration

MEASURED_AT_TIMES = ("loss_scale", "utilisation", "data_wait", "communication")


@dataclass(frozen=True)
class StepRecord:
    """The figures of one update, for people and for metrics.jsonl. NaN and infinity are recorded as null there.

    Attributes
    ----------
    step : int
        Updates made so far.
    loss : float
        Nats per token.
    learning_rate : float
    grad_norm : float
        Global, before clipping.
    tokens_per_second : float
        Of all workers, over the steps since the last record.
    memory_mb : float
        Of this worker.
    epoch : float
        Passes over the data since step 0.
    tokens : int
        Tokens trained on since step 0, over all workers.
    loss_scale : float or None
        With float16; recorded only then.
    skipped : int
        Updates skipped so far; recorded only with a loss scale.
    utilisation : float or None
        Share of the machine's peak that the network's own operations use; None where the peak is not known.
    data_wait : float or None
        Share of the time in which this worker waited for data.
    communication : float or None
        Share of a step that the workers' sums take when nothing hides them; None unless it was measured.
    last : tuple of int and float, or None
        The rank that the others waited for then, and its seconds after the median of all.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    memory_mb: float
    epoch: float
    tokens: int
    loss_scale: float | None = None
    skipped: int = 0
    utilisation: float | None = None
    data_wait: float | None = None
    communication: float | None = None
    last: tuple[int, float] | None = None

    def measured(self) -> dict[str, float]:
        """The figures that metrics.jsonl holds and followers get, by name."""
        names = ["loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_mb", "epoch"]
        names += [name for name in MEASURED_AT_TIMES if getattr(self, name) is not None]
        return {name: getattr(self, name) for name in names}

    def counted(self) -> dict[str, int]:
        """The whole numbers that metrics.jsonl holds in addition, by name."""
        counts = {"tokens": int(self.tokens)}
        if self.loss_scale is not None:
            counts["skipped"] = int(self.skipped)
        if self.last is not None:
            counts["last_rank"] = self.last[0]
        return counts

    def speed(self) -> str:
        """Words on the speed."""
        of_peak = f" | {self.utilisation:4.0%} of peak" if self.utilisation is not None else ""
        return f"{self.tokens_per_second:>9,.0f} tok/s{of_peak}"

    def waits(self) -> str:
        """Words on what the run waits for; empty if that was not measured."""
        shares = (("data", self.data_wait), ("workers", self.communication))
        parts = [f"{name} {share:.1%}" for name, share in shares if share is not None]
        if self.last is not None:
            parts.append(f"rank {self.last[0]} is last by {1000 * self.last[1]:.0f} ms")
        return f"waits: {', '.join(parts)}" if parts else ""

    def line(self, smoothed_loss: float, eta: float) -> str:
        """The record as a line of the log, without its step; `eta` in seconds."""
        parts = [
            f"loss {self.loss:7.4f}, mean {smoothed_loss:7.4f}",
            f"lr {self.learning_rate:.2e}",
            f"norm {self.grad_norm:7.3f}",
            self.speed(),
            f"{self.memory_mb:>7,.0f} MB",
            f"epoch {self.epoch:7.3f}",
            f"eta {duration(eta):>6}",
        ]
        if waits := self.waits():
            parts.append(waits)
        if self.loss_scale is not None:
            parts.append(f"scale {self.loss_scale:.0f}, {self.skipped} skipped")
        return " | ".join(parts)
