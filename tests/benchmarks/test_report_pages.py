"""The benchmark of the pages runs, on small ones."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("playwright", reason="opens pages in a browser")

from benchmarks.browser import CHROMIUM
from tests.helpers import ROOT, run


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_report_pages():
    program = ROOT / "benchmarks" / "report_pages.py"
    small = ["--points", 3000, "--runs", 3, "--rounds", 1, "--points-of-many", 500]
    long, many = json.loads(run(sys.executable, program, *small, "--json").stdout)["pages"]
    assert long["page"] == "a run of 3,000 records" and many["page"] == "3 runs of 500 records"
    assert all(0 < page["seconds_to_open"] < 60 and 0.01 < page["megabytes"] < 5 for page in (long, many))
