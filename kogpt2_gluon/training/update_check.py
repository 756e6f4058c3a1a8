"""Decides, before each update, if it is made. Every worker decides by the same numbers, so all decide alike.

An update is not made if

- its gradients overflow float16: the loss scale is halved (training/loss_scale.py);
- its loss or gradient is not finite: `training.on_nonfinite` says what happens;
- its loss or gradient norm is a spike (training/spikes.py): `training.on_spike` says what happens;
- a rollback left it out (training/rollback.py).

An update that is not made is skipped: its sequences are read and count, parameters and moments stay as they were, and
it is not a step. The last three cases are odd updates. At most IN_A_ROW of them in a row, and `training.most_skipped`
in the whole run, are skipped or rolled back; then the run ends, because something is wrong that skipping does not cure.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kogpt2_gluon.errors import DivergedError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.reader import Reader
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.training.loss_scale import LossScale
from kogpt2_gluon.training.replicas import Replicas, few
from kogpt2_gluon.training.rollback import RollBack, merged
from kogpt2_gluon.training.spikes import remember, spike_of

if TYPE_CHECKING:
    from kogpt2_gluon.training.state import TrainState

IN_A_ROW = 10
ODD_UPDATES = "odd_updates.txt"  # in the run folder


@dataclass(frozen=True)
class Judgement:
    """If an update is made, and a line for the log ("": none)."""

    made: bool
    message: str = ""


class UpdateCheck:
    """Judges the updates of one run.

    Parameters
    ----------
    recipe : Recipe
    state : TrainState
        The figures of the last updates, the counts and the ranges left out are kept in it, and with it in checkpoints.
    worker : Worker
    loss_scale : LossScale
    replicas : Replicas
        What is odd may come from silent corruption of one worker, so then the workers are compared first.
    reader : Reader
        Knows which sequences an update has used. They are listed in RUN_DIR/odd_updates.txt.
    """

    def __init__(
        self,
        recipe: Recipe,
        state: TrainState,
        worker: Worker,
        loss_scale: LossScale,
        replicas: Replicas,
        reader: Reader,
    ) -> None:
        self._recipe, self._state, self._worker = recipe, state, worker
        self._loss_scale, self._replicas, self._reader = loss_scale, replicas, reader

    def judge(self, loss: float, norm: float, own_loss: float, stop_wanted: bool) -> Judgement:
        """Judges the update whose gradients are there. Every worker calls this, in each step.

        Parameters
        ----------
        loss, norm : float
            The mean loss and the global gradient norm, the same on every worker.
        own_loss : float
            The loss of this worker's own sequences, to find out on which worker it is not finite.
        stop_wanted : bool
            True if the run is about to stop; it does not roll back then.

        Raises
        ------
        DivergedError
            The recipe stops here, or too many updates were odd.
        CorruptionError
            Something is odd, and the workers hold different arrays.
        RollBack
            The run must go on from its last checkpoint.
        """
        state, training, scale = self._state, self._recipe.training, self._loss_scale.scale
        self._loss_scale.count(math.isfinite(norm))
        for first, last in state.left_out:
            if first <= state.attempt + 1 <= last:
                if state.attempt + 1 == last:
                    self._count(f"update {last} is left out after a rollback")
                self._remember(loss, norm)
                place = self._reader.place_of_last(1)
                return Judgement(False, f"{self._skipped()}: a rollback left it out; {place}")
        if math.isfinite(loss) and not math.isfinite(norm) and not self._loss_scale.exhausted:
            why = f"its gradients overflow float16; loss scale {scale:.0f} -> {self._loss_scale.scale:.0f}"
            return Judgement(False, f"{self._skipped()}: {why}")
        if self._loss_scale.exhausted or not math.isfinite(loss):
            self._replicas.compare(state.step, state.attempt)
            why = f"loss {loss:g}, gradient norm {norm:g}{self._where(own_loss)}"
            return self._act(training.on_nonfinite, why, 1, stop_wanted)
        if training.on_spike == "off":
            state.odd_in_a_row = 0
            return Judgement(True)
        spike = spike_of((loss, norm), state.recent, training.spike_window, training.spike_sigmas)
        self._remember(loss, norm)
        if spike:
            self._replicas.compare(state.step, state.attempt)
        if spike and training.on_spike != "log":
            return self._act(training.on_spike, spike, training.spike_leave_out, stop_wanted)
        state.odd_in_a_row = 0
        return Judgement(True, self._listed(f"step {state.step + 1}: {spike}", 1) if spike else "")

    def _remember(self, loss: float, norm: float) -> None:
        training = self._recipe.training
        if training.on_spike != "off" and math.isfinite(loss) and math.isfinite(norm):
            remember(self._state.recent, (loss, norm), training.spike_window, training.spike_sigmas)

    def _act(self, action: str, why: str, leave_out: int, stop_wanted: bool) -> Judgement:
        if action == "stop":
            raise self._diverged(why)
        attempt = self._state.attempt + 1
        self._count(why)
        if action == "skip" or stop_wanted:
            return Judgement(False, self._listed(f"{self._skipped()}: {why}", 1))
        first = max(1, attempt - leave_out + 1)
        what = f"rolled back from update {attempt}: {why}; {_updates(first, attempt)} left out from here on"
        raise RollBack(self._listed(what, attempt - first + 1), merged(self._state.left_out, [[first, attempt]]))

    def _listed(self, what: str, updates: int) -> str:
        """Adds the place of the last `updates` updates to a line for the log, and lists their sequences in a file."""
        line, folder = f"{what}; {self._reader.place_of_last(updates)}", self._recipe.run_dir
        if self._worker.rank or not folder.is_dir():  # a profile makes no run folder
            return line
        text = "".join(f"  {name}\n" for name in self._reader.sequences_of_last(updates))
        try:
            with (folder / ODD_UPDATES).open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n{text}")
        except OSError as error:  # the numbers say it too
            return f"{line} ({ODD_UPDATES} cannot be written: {error.strerror})"
        return line

    def _count(self, why: str) -> None:
        """Counts an odd update. DivergedError if it is one too many."""
        state, most = self._state, self._recipe.training.most_skipped
        state.odd, state.odd_in_a_row = state.odd + 1, state.odd_in_a_row + 1
        to_come = sum(last > state.attempt + 1 for _, last in state.left_out)  # rollbacks from later updates
        if state.odd_in_a_row > IN_A_ROW:
            raise self._diverged(f"{why}, after {IN_A_ROW} updates in a row that were skipped or rolled back")
        if state.odd + to_come > most:
            raise self._diverged(
                f"{why}, after {most} updates that were skipped or rolled back (training.most_skipped)"
            )

    def _skipped(self) -> str:
        return f"update {self._state.attempt + 1} skipped, {self._state.skipped + 1} so far"

    def _where(self, own_loss: float) -> str:
        """Names the workers whose own loss is not finite, if it is finite on others."""
        bad = self._worker.gather([not math.isfinite(own_loss)])[:, 0].nonzero()[0]
        if not 0 < len(bad) < self._worker.size:
            return ""
        names = self._replicas.names()
        return f" (the loss is not finite on {few([names[rank] for rank in bad])} alone)"

    def _diverged(self, why: str) -> DivergedError:
        recipe = self._recipe
        more_range = ", take training.precision=float32" if self._loss_scale.state() else ""
        return DivergedError(
            f"step {self._state.step + 1}: {why}; lower training.learning_rate, lengthen the warm-up{more_range}, or "
            f"go on from an earlier checkpoint in {recipe.ckpt_dir}"
        )


def _updates(first: int, last: int) -> str:
    return f"update {last} is" if first == last else f"updates {first} to {last} are"
