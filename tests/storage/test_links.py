"""What a folder names lies in it: no path and no link leads out."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogpt2_gluon.storage.links import file_in, leads_out


def test_links_within_a_folder_are_followed_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for path in (tmp_path / "secret", folder / "file", folder / "below" / "file"):
        path.write_text("x", encoding="utf-8")
    links = {"within": "file", "below-it": "below/file", "out": "../secret", "far": "/etc/hostname", "gone": "nowhere"}
    links.update(ring="ring", over="../folder/file")
    for name, target in links.items():
        (folder / name).symlink_to(target)
    assert [name for name in links if leads_out(folder / name)] == ["out", "far", "ring"]
    assert not leads_out(folder / "file") and not leads_out(folder / "missing")
    (tmp_path / "elsewhere").symlink_to(folder)  # the folder itself may have been linked by its user
    assert not leads_out(tmp_path / "elsewhere" / "within") and leads_out(tmp_path / "elsewhere" / "out")


NAMES = ["", ".", "..", "../secret", "/etc/hostname", "a/b", "a\0b", "x" * 5000, "missing", "dir"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_file_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    (folder / "dir").mkdir(parents=True)
    (tmp_path / "secret").touch()
    (folder / "한국어.bin").touch()
    assert file_in(folder, name) is None
    assert file_in(folder, "한국어.bin") == folder / "한국어.bin"
