"""3i4K: no header, CRLF, a last line without end, seven classes."""

from __future__ import annotations

from pathlib import Path

from kogpt2_gluon.tasks.public.three_i4k import THREE_I4K
from tests.tasks.data_helpers import fault, read, write


def test_the_first_line_is_a_row(tmp_path: Path) -> None:
    texts = ["만화", "비가 온다", "뭐 해", "문 닫아", "누가 알겠어", "맘대로 해봐", "누가 너 알고 있어"]
    content = "\r\n".join(f"{number}\t{text}" for number, text in enumerate(texts))
    write(tmp_path / "data/train_val_test/fci_train_val.txt", content)
    rows, said = read(THREE_I4K, tmp_path)
    assert [row.texts for row in rows] == [(text,) for text in texts]
    assert [row.label for row in rows] == list(THREE_I4K.labels)
    assert said == ["train: 7 rows of data/train_val_test/fci_train_val.txt (published: 55,134)"]
    assert rows[0].where.endswith("fci_train_val.txt, line 1")


def test_other_files_are_one_line(tmp_path: Path) -> None:
    write(tmp_path / "fci_test.txt", "label\tutterance\n0\t만화\n")
    assert "line 1: the label 'label' is none of 0, 1, 2, 3, 4, 5, 6" in fault(THREE_I4K, tmp_path, "test")
    write(tmp_path / "fci_test.txt", "id\tdocument\tlabel\n1\t재미있다\t1\n")
    assert "line 1: 3 fields, where 2 are expected" in fault(THREE_I4K, tmp_path, "test")
    write(tmp_path / "fci_test.txt", "0\t만화\r\n7\t없는 것\r\n")
    assert "line 2: the label '7' is none of" in fault(THREE_I4K, tmp_path, "test")
