"""Constants and helpers that the tests of verify and of repair share."""

from __future__ import annotations

from pathlib import Path

from kogpt2_gluon.shards.verify import VerifyReport, verify

LENGTHS = [100] * 130  # three shards of 8 chunks of 512 tokens (1024 bytes), and a short one
FIRST, SECOND, THIRD, LAST = (f"train-0000{number}.ktok" for number in range(4))


def found(report: VerifyReport) -> list[tuple[str, object, object]]:
    """File, chunk and byte of every fault."""
    return [(Path(fault.file).name, fault.chunk, fault.offset) for fault in report.faults]


def messages(folder: Path) -> str:
    return "\n".join(map(str, verify(folder).faults))


def payload_of(shard: int) -> int:
    return min(8192, 2 * sum(LENGTHS) - shard * 8192)


def swap(folder: Path) -> None:
    (folder / FIRST).rename(folder / "aside")
    (folder / THIRD).rename(folder / FIRST)
    (folder / "aside").rename(folder / THIRD)
