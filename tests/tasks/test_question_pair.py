"""Question Pair: 0 is the same; CSV with a byte-order mark and a nameless column, and a second split with tabs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from kogpt2_gluon.tasks.public.question_pair import QUESTION_PAIR
from tests.tasks.data_helpers import REAL, fault, needs_real, read, write


def test_zero_is_the_same(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "question1\tquestion2\tis_duplicate\n뭐 먹지\t뭐 먹을까\t0\n뭐 먹지\t어디 가지\t1\n")
    rows, said = read(QUESTION_PAIR, tmp_path)
    assert [(row.texts, row.label) for row in rows] == [
        (("뭐 먹지", "뭐 먹을까"), "same"),
        (("뭐 먹지", "어디 가지"), "different"),
    ]
    assert said == ["train: 2 rows of train.txt (published: 6,136)"]


def test_the_first_split_is_csv(tmp_path: Path) -> None:
    header = "\ufefftest_id,question1,question2,is_duplicate,\r\n"
    write(
        tmp_path / "kor_Pair_test.csv",
        header + '1,"4월, 이별을 말합니다.",이별이네,1,\r\n684,뭐 먹지,뭐 먹을까,0,1\r\n',
    )
    rows, said = read(QUESTION_PAIR, tmp_path, "test")
    assert [(row.texts, row.label) for row in rows] == [
        (("4월, 이별을 말합니다.", "이별이네"), "different"),
        (("뭐 먹지", "뭐 먹을까"), "same"),
    ]
    assert said[:2] == [
        "kor_Pair_test.csv: the first split (published: 688 rows)",
        "kor_Pair_test.csv: 1 field in a column without a name, which no one asks for",
    ]


def test_the_second_split_goes_before_the_first(tmp_path: Path) -> None:
    write(tmp_path / "kor_pair_train.csv", "id,qid1,qid2,question1,question2,is_duplicate\n1,1,2,가,나,1\n")
    write(tmp_path / "train.txt", "question1\tquestion2\tis_duplicate\n다\t라\t0\n다\t마\t1\n")
    assert len(read(QUESTION_PAIR, tmp_path).rows) == 2


def test_a_pair_with_an_empty_side_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "question1\tquestion2\tis_duplicate\n뭐 먹지\t \t0\n")
    assert "train.txt, line 2: an empty text" in fault(QUESTION_PAIR, tmp_path)
    write(tmp_path / "train.txt", "question1\tquestion2\tis_duplicate\n뭐 먹지\t뭐 먹을까\tTrue\n")
    assert "train.txt, line 2: the label 'True' is none of 0, 1" in fault(QUESTION_PAIR, tmp_path)


@needs_real
def test_real_rows() -> None:
    counts = {}
    for split, number in {"train": 6_136, "dev": 682, "test": 758}.items():
        rows, said = read(QUESTION_PAIR, REAL, split)
        counts[split] = Counter(row.label for row in rows)
        assert len(rows) == number and said[-1].endswith("(as published)")
    assert counts["train"] == {"same": 4_169, "different": 1_967}
    csv = list(QUESTION_PAIR.read(REAL / "question_pair/kor_pair_train.csv", print))
    assert len(csv) == 6_888 and sum(row.label == "same" for row in csv) == 4_750
    # Most identical strings are the same, and two are not: labels contradict what is written.
    identical = [row.label for row in csv if row.texts[0] == row.texts[1]]
    assert Counter(identical) == {"same": 937, "different": 2}
    assert len(list(QUESTION_PAIR.read(REAL / "question_pair/kor_Pair_test.csv", print))) == 688
