"""docs/after.md: its versions are those that the tests run, and it says what each test says."""

from __future__ import annotations

import re

from tests.convert.kinds_of_lines import KINDS, LINES
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "after.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\| .*\|$", PAGE, re.MULTILINE)]
PINNED = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def package(tool: str) -> str:
    """The name of a tool's package: what is in brackets, if anything is."""
    found = re.search(r"\((.*)\)", tool)
    return found[1] if found else tool


def test_versions_of_tested_tools_are_those_that_are_installed():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    tested = {package(row[0]): row[1] for row in ROWS if row[-1] == "tested"}
    assert tested.pop("@huggingface/transformers") == re.search(r"@huggingface/transformers@(\S+)", makefile)[1]
    assert set(tested) == {
        "transformers",
        "onnxruntime",
        "ctranslate2",
        "openvino",
        "openvino-tokenizers",
        "peft",
        "torch",
        "xllamacpp",
    }
    assert tested == {name: PINNED[name] for name in tested}


def test_versions_in_sentences_are_those_of_the_table():
    versions = {row[1] for row in ROWS}
    in_sentences = set(re.findall(r"\b\d+\.\d+\.\d+\b", re.sub(r"^\|.*$", "", PAGE, flags=re.MULTILINE)))
    assert in_sentences <= versions | {"0.000006", "0.000005", "0.00001", "0.001", "0.003"}


def test_the_number_of_kinds_of_lines():
    lines, kinds = map(int, re.search(r"about (\d+) lines of (\d+)\s+kinds", PAGE).groups())
    assert len(KINDS) == kinds and round(len(LINES), -1) == lines


def test_every_tool_has_a_section():
    sections = set(re.findall(r"^## (.*)$", PAGE, re.MULTILINE))
    assert sections >= {"transformers", "transformers.js", "CTranslate2", "OpenVINO", "ONNX", "peft", "llama.cpp"}
    assert "2026-11-29" in PAGE
