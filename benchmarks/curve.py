"""Held-out bits per byte of a run against training time, with n-gram models of the same tokens, as one SVG.

Usage: python benchmarks/curve.py RUN_DIR TRAIN_SHARDS TEST_SHARDS --out curve.svg
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ngram_baseline import score_shards

from kogpt2_gluon.tracking import read_metrics

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 56, 150, 28, 44
STYLE = (
    "<style>svg{background:#fff;font:13px system-ui,sans-serif;fill:#333}.grid{stroke:#e3e3e3}"
    ".run{fill:none;stroke:#0072b2;stroke-width:2.5}.ngram{stroke:#d55e00;stroke-width:1.5;stroke-dasharray:6 4}"
    ".dot{fill:#0072b2}</style>"
)


def main() -> None:
    """Reads the run and the shards, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    held_out = [line for line in read_metrics(options.run_dir) if line["kind"] == "evaluation" and line["step"]]
    minutes = [line["seconds"] / 60 for line in held_out]
    bits = [line["bits_per_byte"] for line in held_out]
    ngrams = {score.order: score.bits_per_byte for score in score_shards(options.train, options.test, [2, 3])}
    options.out.write_text(draw(minutes, bits, ngrams), encoding="utf-8")
    print(f"{options.out}: {len(bits)} evaluations, last {bits[-1]:.4f} bits per byte after {minutes[-1]:.1f} minutes")


def draw(minutes: Sequence[float], bits: Sequence[float], ngrams: dict[int, float]) -> str:
    """The picture: `minutes` and `bits` (n,) of the run, {order: bits per byte} of the n-gram models."""
    low = math.floor(min(*bits, *ngrams.values()) * 20) / 20
    high = math.ceil(max(*bits, *ngrams.values()) * 20) / 20
    right = max(minutes)

    def x(value: float) -> float:
        return LEFT + value / right * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">', STYLE]
    for value in np.arange(low, high + 1e-9, 0.05):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for minute in range(0, int(right) + 1, 10):
        parts.append(f'<text x="{x(minute):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{minute}</text>')
    for order, value in sorted(ngrams.items()):
        parts.append(f'<line class="ngram" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y(value) + 4:.1f}">Kneser-Ney {order}-gram</text>')
    points = " ".join(f"{x(minute):.1f},{y(bit):.1f}" for minute, bit in zip(minutes, bits))
    parts.append(f'<polyline class="run" points="{points}"/>')
    parts += [
        f'<circle class="dot" cx="{x(m):.1f}" cy="{y(b):.1f}" r="3"><title>{b:.4f}</title></circle>'
        for m, b in zip(minutes, bits)
    ]
    parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y(bits[-1]) + 4:.1f}">this run {bits[-1]:.3f}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 12}">held-out bits per byte</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">minutes of training</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
