"""Mixed precision: what is computed in which format, and the loss scale that float16 needs.

Parameters and the optimizer's moments live in float32 whatever `training.precision` says; updates are made there, and
checkpoints hold these (the "master weights" of Micikevicius et al., "Mixed precision training", 2018).

- ``float32``: everything.
- ``bfloat16``: the fused operators convert inside; arrays stay float32. Its range is float32's: no loss scale.
- ``float16`` on a GPU: parameters and gradients of the network are float16 copies of the masters. On a CPU, where MXNet
  has no float16 products, the stock operators emulate it and arrays stay float32.

float16 ends at 65,504 and begins at 6e-8: many gradients would lose their digits, or be 0. The loss is therefore
multiplied by a scale before the backward pass, and the update divides by it. Too large a scale makes some overflow:
that update is left out, and the next one is made with half of it. A loss that is not finite is another matter. It comes
of the forward pass, which no scale mends, and ends the run in any precision.

A skipped update, exactly: its sequences are consumed and count in the reader's state and in `epoch`, and nothing else
of it remains. Parameters, moments and the optimizer's count of steps (Adam's bias correction) stay as they were. It is
no `step`: `step`, and with it `num_steps`, the learning rate, log lines, evaluations and checkpoints, counts updates
that were made. `attempt` counts both; dropout is drawn from it, so that the update after a skipped one has masks of its
own. A run of `num_steps` reads ``(num_steps + skipped) * total_batch_size`` sequences. All of it is in a checkpoint's
``state.json``, and a run resumed between two skipped updates goes on bit for bit as if it had never stopped.
"""

from __future__ import annotations

from typing import Any

# Start, window and cap are those of NVIDIA's Apex and of MXNet's own contrib.amp.
INITIAL_SCALE = 2.0**16
WINDOW = 2000
LARGEST_SCALE = 2.0**24
SMALLEST_SCALE = 1.0
ENDLESS = 10


class LossScale:
    """float32 and bfloat16: the loss as it is. A gradient that is not finite is the end.

    Attributes: `scale`, by which the next loss is multiplied; `exhausted`, whether skipping updates has become useless.
    """

    scale = 1.0
    exhausted = False

    def count(self, finite: bool) -> None:
        """Counts an update whose gradients are `finite`, on all workers, or not."""
        self.exhausted = not finite

    def state(self) -> dict[str, Any] | None:
        """For the checkpoint, plain data."""
        return None


class DynamicLossScale(LossScale):
    """float16: halved by an update whose gradients overflow, doubled after `WINDOW` updates in a row that do not.

    It stays a power of two, from 1 to 2**24: scaling changes no digit of a gradient, only its exponent. At 1 there is
    nothing left to halve. An overflow there may still be one odd batch; `ENDLESS` of them in a row are not, and end the
    run. (From the largest scale down that takes 24 halvings and 10 more.)

    Parameters
    ----------
    saved : dict or None
        What :meth:`state` gave; None: a new one.
    """

    def __init__(self, saved: dict[str, Any] | None = None):
        saved = saved or {"scale": INITIAL_SCALE, "clean_updates": 0, "skipped_at_smallest": 0}
        self.scale: float = saved["scale"]
        self.clean_updates: int = saved["clean_updates"]  # in a row, since the scale last changed
        self.skipped_at_smallest: int = saved["skipped_at_smallest"]  # in a row

    def count(self, finite: bool) -> None:
        if finite:
            self.skipped_at_smallest = 0
            self.clean_updates += 1
            if self.clean_updates == WINDOW:
                self.clean_updates = 0
                self.scale = min(LARGEST_SCALE, self.scale * 2)
            return
        if self.scale == SMALLEST_SCALE:
            self.skipped_at_smallest += 1
            self.exhausted = self.skipped_at_smallest >= ENDLESS
        self.clean_updates = 0
        self.scale = max(SMALLEST_SCALE, self.scale / 2)

    def state(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "clean_updates": self.clean_updates,
            "skipped_at_smallest": self.skipped_at_smallest,
        }


def loss_scale_for(precision: str, saved: dict[str, Any] | None = None) -> LossScale:
    """The loss scale of a `training.precision`, as a checkpoint left it, or new where that run had none."""
    return DynamicLossScale(saved) if precision == "float16" else LossScale()
