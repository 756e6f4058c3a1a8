"""transformers.js reads the converted folder: SentencePiece's ids, but for the lines that docs/after.md names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.convert.kinds_of_lines import LINES
from tests.convert.tool_helpers import (
    PROFILES,
    REVIEWS,
    Converted,
    convert_profile,
    differing_kinds,
    my_model,
    program,
    reviews,
)
from tests.helpers import ROOT

LIBRARY = Path(sys.prefix) / "node_modules" / "@huggingface" / "transformers"
pytestmark = [
    pytest.mark.skipif(not shutil.which("node"), reason="node is not installed"),
    pytest.mark.skipif(
        not LIBRARY.is_dir(), reason="transformers.js is not installed; `make test` does, if npm is there"
    ),
]


def node(*arguments: object, stdin: str = "") -> str:
    done = subprocess.run(
        ["node", *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Converted]:
    work = tmp_path_factory.mktemp("js")
    made = {profile: convert_profile(work / profile, profile) for profile in PROFILES}
    return {**made, "bos": convert_profile(work / "bos", "nmt_nfkc", bos=True)}


@pytest.fixture(scope="module")
def results(folders: dict[str, Converted]) -> dict[str, dict[str, list]]:
    texts = [*(line for _, line in LINES), *reviews(100_000, 1000)]
    lines = {name: texts for name in folders}
    script = ROOT / "tests" / "convert" / "transformers_js.mjs"
    work = folders["bos"].folder.parent
    library = LIBRARY / "dist" / "transformers.node.mjs"
    return json.loads(node(script, library, work, *folders, stdin=json.dumps(lines)))


@pytest.mark.parametrize("profile", PROFILES)
def test_ids_are_those_of_sentencepiece(folders, results, profile):
    expected = {"special tokens"} if profile == "lossless" else {"special tokens", "several marks"}
    assert differing_kinds(folders[profile].model, results[profile]["ids"]) == expected


@pytest.mark.skipif(not REVIEWS.is_file(), reason="the reviews are not here")
@pytest.mark.parametrize("profile", PROFILES)
def test_ids_of_real_reviews(folders, results, profile):
    assert results[profile]["ids"][len(LINES) :] == folders[profile].model.encode(reviews(100_000, 1000))


@pytest.mark.parametrize("profile", PROFILES)
def test_ids_decode_alike(folders, results, profile):
    """Apart from U+FEFF, which JavaScript's decoder of bytes drops."""
    model, (ids, texts, _) = folders[profile].model, results[profile].values()
    own = [(ours, theirs) for (kind, _), ours, theirs in zip(LINES, ids, texts) if kind != "special tokens"]
    for ours, theirs in own:
        assert theirs == model.decode(ours) or (
            profile == "lossless" and theirs == model.decode(ours).replace("\ufeff", "")
        )


def test_a_folder_that_adds_bos(folders, results):
    ids = folders["nmt_nfkc"].model.encode("영화")
    assert results["nmt_nfkc"]["prompt"] == ids and results["bos"]["prompt"] == [1, *ids]


def test_the_program_of_the_page_runs(folders, tmp_path):
    with my_model(folders["nmt_nfkc"], tmp_path / "work") as work:
        (work / "node_modules").symlink_to(LIBRARY.parents[1], target_is_directory=True)
        (work / "page.mjs").write_text(program("AutoTokenizer", "js"), encoding="utf-8")
        printed = node(work / "page.mjs")
    assert list(map(int, re.findall(r"\d+", printed))) == folders["nmt_nfkc"].model.encode("이 영화는")


def test_the_version_is_the_one_of_the_page():
    version = json.loads((LIBRARY / "package.json").read_text(encoding="utf-8"))["version"]
    assert f"@huggingface/transformers@{version}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
