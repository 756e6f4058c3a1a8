"""Runs with mirrors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training import loop


def mirrored(tiny: list[str], *mirrors: object, **changes: object) -> Any:
    """The recipe with these mirrors; a change is written section__key=value."""
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return load_recipe("debug_cpu", [*tiny, f"checkpoint.mirrors=[{', '.join(map(str, mirrors))}]", *overrides])


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def log_of(recipe: Any) -> str:
    return (recipe.run_dir / "log.txt").read_text(encoding="utf-8")


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the next training ask itself to stop after a step, as SIGTERM does."""
    run_step = loop.run_step

    def choose(step: int) -> None:
        def stopping(recipe: Any, run: Any, stop: Any, *more: Any) -> Any:
            if run.state.step == step - 1:
                stop.ask()
            return run_step(recipe, run, stop, *more)

        monkeypatch.setattr(loop, "run_step", stopping)

    return choose
