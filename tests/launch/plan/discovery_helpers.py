"""The command that makes a plan."""

from __future__ import annotations

from click.testing import CliRunner

from kogpt2_launch.cli.main import main


def plan(tmp_path, *options: str):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("data: {seq_length: 32}\ntraining: {batch_size: 2, total_batch_size: 32}\n", encoding="utf-8")
    return CliRunner().invoke(main, ["plan", str(recipe), "--network-interface", "eth0", *options])
