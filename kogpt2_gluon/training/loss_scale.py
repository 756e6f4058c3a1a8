"""Mixed precision: which format each computation uses, and the loss scale that float16 needs.

Parameters and the optimizer's moments live in float32 whatever `training.precision` says; updates are made there, and
checkpoints hold these (the "master weights" of Micikevicius et al., "Mixed precision training", 2018).

- ``float32``: everything is in this format.
- ``bfloat16``: the fused operators convert inside; arrays stay float32. It has float32's range, so it needs no loss
  scale.
- ``float16`` on a GPU: parameters and gradients of the network are float16 copies of the masters. On a CPU, where MXNet
  has no float16 products, the stock operators emulate it and arrays stay float32.

float16 ends at 65,504 and begins at 6e-8: many gradients would lose their digits, or become 0. The loss is therefore
multiplied by a scale before the backward pass, and the update divides by it. If the scale is too large, some gradient
overflows: that update is skipped, and the next one is made with half the scale. A loss that is not finite is another
matter. It comes from the forward pass, where no scale helps, and it ends the run in any precision.

A skipped update, exactly: its sequences are consumed and count in the reader's state and in `epoch`, and nothing else
of it remains. Parameters, moments and the optimizer's count of steps (Adam's bias correction) stay as they were. A
skipped update is not a `step`: `step`, and with it `num_steps`, the learning rate, log lines, evaluations and
checkpoints, counts updates that were made. `attempt` counts both. Dropout is drawn from `attempt`, so the update after
a skipped one has masks of its own. A run of `num_steps` reads ``(num_steps + skipped) * total_batch_size`` sequences.
All of this is in a checkpoint's ``state.json``, and a run resumed between two skipped updates goes on bit for bit as if
it had never stopped.
"""

from __future__ import annotations

from typing import Any

# Start, window and cap are those of NVIDIA's Apex and of MXNet's own contrib.amp.
INITIAL_SCALE = 2.0**16
WINDOW = 2000
LARGEST_SCALE = 2.0**24
SMALLEST_SCALE = 1.0
MOST_SKIPPED_AT_SCALE_1 = 10  # in a row; then the run ends


class LossScale:
    """The loss scale of float32 and bfloat16: always 1, and a gradient that is not finite ends the run.

    Attributes
    ----------
    scale : float
        The next loss is multiplied by it.
    exhausted : bool
        True once skipping more updates is useless.
    """

    scale = 1.0
    exhausted = False

    def count(self, finite: bool) -> None:
        """Counts an update; `finite` is False if its gradients are not, on any worker."""
        self.exhausted = not finite

    def state(self) -> dict[str, Any] | None:
        """Plain data for the checkpoint; None if there is nothing to save."""
        return None


class DynamicLossScale(LossScale):
    """The loss scale of float16: an overflow halves it, `WINDOW` updates in a row without one double it.

    It stays a power of two, from 1 to 2**24: scaling changes no digit of a gradient, only its exponent. At 1 there is
    nothing left to halve. An overflow there may still be one odd batch; `MOST_SKIPPED_AT_SCALE_1` of them in a
    row are not, and end the run. (Starting from the largest scale, that is 24 halvings and then 10 more overflows.)

    Parameters
    ----------
    saved : dict or None
        The return value of :meth:`state`; None: start with a new scale.
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
            self.exhausted = self.skipped_at_smallest >= MOST_SKIPPED_AT_SCALE_1
        self.clean_updates = 0
        self.scale = max(SMALLEST_SCALE, self.scale / 2)

    def state(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "clean_updates": self.clean_updates,
            "skipped_at_smallest": self.skipped_at_smallest,
        }


def loss_scale_for(precision: str, saved: dict[str, Any] | None = None) -> LossScale:
    """The loss scale for a `training.precision`: as a checkpoint `saved` it, or a new one."""
    return DynamicLossScale(saved) if precision == "float16" else LossScale()
