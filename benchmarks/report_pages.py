"""How large are the pages of long runs and of many, and how fast do they open?

    python benchmarks/report_pages.py [--points 1000000] [--runs 50] [--rounds 3] [--json]

A run with so many records of training, and a hundredth as many evaluations, is written by hand; then `kogpt2 report`
makes its page. So many shorter runs are compared on one page. Each page is opened in Chromium, a new
window each time, until it has loaded and is painted; the median of the rounds counts.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import click
from browser import CHROMIUM
from conditions import conditions

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.comparison import write_comparison
from kogpt2_gluon.runs.report import write_report
from kogpt2_gluon.runs.run_folder import open_run

PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


@click.command()
@click.option("--points", default=1_000_000, show_default=True)
@click.option("--runs", default=50, show_default=True)
@click.option("--points-of-many", default=20_000, show_default=True, help="Records of each of these runs.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(points: int, runs: int, points_of_many: int, rounds: int, as_json: bool) -> None:
    """Make both pages, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        work, rows = Path(folder), []
        for name, make in (
            (f"a run of {points:,} records", lambda: write_report(written(work / "long", points, 0))),
            (f"{runs} runs of {points_of_many:,} records", lambda: compare(work, runs, points_of_many)),
        ):
            began = time.perf_counter()
            path = make()
            made = time.perf_counter() - began
            rows.append(
                {
                    "page": name,
                    "megabytes": path.stat().st_size / 1e6,
                    "seconds_to_open": statistics.median(seconds_to_open(path) for _ in range(rounds)),
                    "seconds_to_make": made,
                }
            )
    if as_json:
        click.echo(json.dumps({"pages": rows, "conditions": conditions()}))
        return
    for row in rows:
        click.echo(
            f"{row['page']:32} {row['megabytes']:6.2f} MB  opens in {row['seconds_to_open']:.2f} s  "
            f"(written and made in {row['seconds_to_make']:.0f} s)"
        )


def compare(work: Path, runs: int, points: int) -> Path:
    """Writes the page of so many runs."""
    folders = [written(work / f"run-{number:02}", points, number) for number in range(runs)]
    return write_comparison([open_run(path) for path in folders], work / "comparison.html", [1.0] * runs)


def written(path: Path, points: int, number: int) -> Path:
    """Writes the record of a run with so many points; returns its folder."""
    path.mkdir()
    settings = [f"tracking.run_dir={path}", f"training.seed={number}", f"training.num_steps={points}"]
    recipe = load_recipe("demo", settings)
    (path / "recipe.yaml").write_text(recipe.to_yaml())
    with (path / "metrics.jsonl").open("w") as file:
        for step in range(1, points + 1):
            noise = (step * 2654435761 + number * 97) % 1000 / 1000
            common = f'"step": {step}, "time": {1.7e9 + step}, "seconds": {step / 10}'
            loss = 2 + number / 100 + 8 / (1 + step * 1000 / points) + noise / 5
            figures = f'"loss": {loss:.4f}, "smoothed_loss": {loss:.4f}, "grad_norm": {1 + noise:.4f}'
            more = '"learning_rate": 0.001, "tokens_per_second": 14000.0, "memory_mb": 512.0, "data_wait": 0.001'
            file.write(f'{{"kind": "train", {common}, {figures}, {more}, "tokens": {step * 1024}}}\n')
            if step % 100 == 0:
                held_out = f'"loss": {loss:.4f}, "perplexity": 9.0, "bits_per_byte": {loss / 3:.4f}'
                file.write(f'{{"kind": "evaluation", {common}, {held_out}}}\n')
    return path


def seconds_to_open(path: Path) -> float:
    """Returns the time from asking for a page to its painting, in a new browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        began = time.perf_counter()
        page.goto(path.as_uri())
        page.evaluate(PAINTED)
        taken = time.perf_counter() - began
        browser.close()
    return taken


if __name__ == "__main__":
    main()
