"""Byte-level tokenizers in a converted folder: transformers gives the same ids, after the cut that goes with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.tokenizer_file import CONFIG, TOKENIZER_JSON
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.convert_helpers import with_rows
from tests.helpers import run
from tests.tokens.morpheme_helpers import AWKWARD, SENTENCES, train_small

TEXTS = [*SENTENCES, *(text for text in AWKWARD.values() if len(text) < 1000), ""]


def converted(folder: Path, morphemes: str | None) -> tuple[Tokenizer, Path, str]:
    """Returns a tokenizer, a folder with a network that was converted with it, and what the command says."""
    tokenizer = train_small(folder, morphemes)
    checkpoint = with_rows(folder / "run", tokenizer.path.read_bytes(), tokenizer.vocab_size)
    source, _ = open_source(checkpoint.path)
    return tokenizer, folder / "out", convert_to("huggingface", source, folder / "out")


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Path, str]:
    pytest.importorskip("kiwipiepy", reason="cuts at morphemes")
    return converted(tmp_path_factory.mktemp("kiwi"), "kiwi")


def test_without_morphemes_the_folder_alone_gives_the_same_ids(tmp_path: Path, transformers) -> None:
    tokenizer, folder, said = converted(tmp_path, None)
    there = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = there(text)["input_ids"]
        assert ids == tokenizer.encode(text) and there.decode(ids) == text
    assert not (folder / "morphemes.py").exists() and "cut texts" not in said


def test_the_folder_says_that_texts_are_cut_first(cut: tuple[Tokenizer, Path, str]) -> None:
    _, folder, said = cut
    assert "cut texts with its morphemes.py first" in said
    card = (folder / "README.md").read_text(encoding="utf-8")
    wanted = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["morphemes"]
    assert "## Cut texts at morphemes first" in card and f"kiwipiepy=={wanted['kiwipiepy']}" in card


def test_the_program_of_the_card_gives_our_ids(cut: tuple[Tokenizer, Path, str], transformers, monkeypatch) -> None:
    """Run where this package cannot be imported, by what the folder has."""
    tokenizer, folder, _ = cut
    monkeypatch.chdir(folder)
    program = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[2].split("```")[0]
    program += (
        "import json\nassert not [name for name in sys.modules if name.startswith('kogpt2')]\n"
        "encode = lambda text: tokenizer(cutter.cut(text), is_split_into_words=True)['input_ids']\n"
        "texts = json.load(open('texts.json', encoding='utf-8'))\n"
        "print(json.dumps([ids, [encode(text) for text in texts], [tokenizer(text)['input_ids'] for text in texts]]))"
    )
    (folder / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    printed = run(sys.executable, "-P", "-c", program, HF_HUB_OFFLINE="1", PYTHONPATH="").stdout
    first, with_cut, without = json.loads(printed.splitlines()[-1])
    expected = tokenizer.encode_batch(TEXTS)
    assert first == tokenizer.encode("나는 학교에 갔다.")
    assert with_cut == expected and without != expected


def test_a_folder_that_transformers_saved_again_is_still_cut(
    cut: tuple[Tokenizer, Path, str], tmp_path: Path, transformers
) -> None:
    tokenizer, folder, _ = cut
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / TOKENIZER_JSON).read_text(encoding="utf-8"))
    assert "morphemes" not in saved["pre_tokenizer"]  # it is only in tokenizer_config.json now
    again = Tokenizer.load(tmp_path / TOKENIZER_JSON)
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / TOKENIZER_JSON).write_bytes(again.stored.content)  # as shards and checkpoints store it
    assert Tokenizer.load(tmp_path / "alone" / TOKENIZER_JSON).encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    source, _ = open_source(folder)
    convert_to("checkpoint", source, tmp_path / "back")
    (stored,) = (tmp_path / "back").rglob(TOKENIZER_JSON)
    assert Tokenizer.load(stored).sha256 == tokenizer.sha256


@pytest.mark.parametrize("target", ["gguf", "sagemaker"])
def test_targets_that_cannot_cut_say_so(cut: tuple[Tokenizer, Path, str], tmp_path: Path, target: str) -> None:
    source, _ = open_source(cut[1])
    with pytest.raises(RecipeError, match="SentencePiece tokenizer" if target == "gguf" else "Python 3.9"):
        convert_to(target, source, tmp_path / "out.tar.gz")
