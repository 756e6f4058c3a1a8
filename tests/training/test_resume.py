"""Where a run goes on from, when its workers see different checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.training import resume_point
from tests.machine.thread_workers import on_workers


@dataclass
class FakeCheckpoint:
    path: Path
    step: int

    def verify(self) -> None:
        pass

    def state(self) -> dict[str, int]:
        return {"step": self.step}


@pytest.fixture(autouse=True)
def folders(monkeypatch):
    """A checkpoint's folder is its name here, and its step the number in it."""
    monkeypatch.setattr(resume_point, "open_checkpoint", lambda path: FakeCheckpoint(path, int(path.name[-8:])))


@pytest.mark.parametrize("step", [0, 7, None])
def test_all_workers_take_the_step_that_rank_0_found(monkeypatch, step):
    """Only rank 0 looks: on a shared file system another one may not see the newest folder yet."""
    seen = []

    def newest(ckpt_dir: Path) -> Any:
        seen.append(ckpt_dir)
        return (None, []) if step is None else (FakeCheckpoint(ckpt_dir / f"step-{step:08d}", step), [])

    monkeypatch.setattr(resume_point, "newest_whole", newest)
    found = on_workers(3, lambda worker: resume_point.find_resume_point("auto", Path("run"), worker))
    assert [each and each.path for each, _ in found] == [step if step is None else Path(f"run/step-{step:08d}")] * 3
    assert len(seen) == 1


def test_workers_that_see_different_checkpoints_are_refused(monkeypatch):
    """Steps 1, 2 and 3 add up to three times 2, which rank 1 sees."""

    def look(worker: Any) -> str:
        with pytest.raises(DataError, match="see different checkpoints") as caught:
            resume_point.find_resume_point(f"step-{worker.rank + 1:08d}", Path("run"), worker)
        return str(caught.value)

    assert len(on_workers(3, look)) == 3
    found = on_workers(2, lambda worker: resume_point.find_resume_point("step-00000004", Path("run"), worker))
    assert [each.step for each, _ in found if each] == [4, 4]
