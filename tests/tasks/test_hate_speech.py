"""korean-hate-speech: its own form, KoELECTRA's copy, and the test whose answers are not public."""

from __future__ import annotations

from pathlib import Path

from kogpt2_gluon.tasks.public.hate_speech import HATE_SPEECH
from tests.tasks.data_helpers import fault, read, write

HEADER = "comments\tcontain_gender_bias\tbias\thate\n"


def test_both_forms(tmp_path: Path) -> None:
    write(
        tmp_path / "labeled/train.tsv",
        f'{HEADER}좋았다\tFalse\tnone\tnone\n"""형"" 노래"\tTrue\tgender\toffensive\n못봐\tFalse\tothers\thate\n',
    )
    rows, said = read(HATE_SPEECH, tmp_path)
    expected = [("좋았다", "none"), ('"형" 노래', "offensive"), ("못봐", "hate")]
    assert [(row.texts[0], row.label) for row in rows] == expected
    assert said == [
        "train.tsv: 1 text in the quotes of CSV, which are taken off",
        "train: 3 rows of labeled/train.tsv (published: 7,896)",
    ]
    write(
        tmp_path / "copy/val.tsv", 'title\tcomment\tbias\thate\n"제목"\t좋았다\tnone\tnone\n제목\t못봐\tothers\thate\n'
    )
    assert [row.label for row in read(HATE_SPEECH, tmp_path / "copy", "dev").rows] == ["none", "hate"]


def test_the_hidden_test_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", "comments\n그래도 조아해주는 팬들 많아서 좋겠다\n")
    assert "no column hate (it has 'comments')" in fault(HATE_SPEECH, tmp_path, "dev")
    assert fault(HATE_SPEECH, tmp_path, "test") == "task hate-speech: has no test (train, dev)"


def test_a_class_that_is_nowhere_is_said(tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", f"{HEADER}좋았다\tFalse\tnone\tnone\n")
    assert read(HATE_SPEECH, tmp_path, "dev").said[-1] == "dev: no row has the label 'offensive or hate'"
