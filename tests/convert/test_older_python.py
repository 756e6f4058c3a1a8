"""Source text for Python 3.8: the same values, the same lines, and syntax and names that 3.8 has."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kogpt2_gluon
from kogpt2_gluon.convert.older_python import for_older_python
from tests.helpers import ROOT

PACKAGE = Path(kogpt2_gluon.__file__).parent
FUTURE = "from __future__ import annotations\n"


def rewritten(code: str) -> str:
    return for_older_python(FUTURE + code).removeprefix(FUTURE)


@pytest.mark.parametrize(
    "code, expected",
    [
        ("x: dict[str, list[int]] = {}", "x: _typing.Dict[str, _typing.List[int]] = {}"),
        ("Ö = '가', dict[str, int]  # dict[str, int]", "Ö = '가', _typing.Dict[str, int]  # dict[str, int]"),
        ("class A(list[int]): pass", "class A(_typing.List[int]): pass"),
        ("def f(a: type[int]) -> tuple[int, ...]: ...", "def f(a: _typing.Type[int]) -> _typing.Tuple[int, ...]: ..."),
        ("counts['dict[str]'] = rows[0]", None),
        (
            "from collections.abc import (\n    Row,\n    Sized as S,\n)",
            "from typing import (\n    Row,\n    Sized as S,\n)",
        ),
        ("from typing import Annotated, Any", "from typing_extensions import Annotated, Any"),
        ("from typing import Any", None),
        ("@functools.cache\ndef f(): ...", "@functools.lru_cache(maxsize=None)\ndef f(): ..."),
        ("@functools.cached_property\ndef f(self): ...", None),
    ],
)
def test_names(code, expected):
    found = for_older_python(FUTURE + code)
    first, _, rest = found.partition("\n")
    assert rest == (expected or code)
    assert first == FUTURE.strip() + ("; import typing as _typing" if "_typing." in found else "")


@given(st.text(), st.text(max_size=3))
def test_methods_of_text(text, part):
    for name in ("removeprefix", "removesuffix"):
        expression = f"{text!r}.{name}({part!r})"
        assert eval(rewritten(expression)) == eval(expression)
        assert eval(rewritten(f"({expression}).{name}({part!r})")) == eval(f"{expression}.{name}({part!r})")


def test_refusals():
    with pytest.raises(ValueError, match="line 3: "):
        for_older_python(FUTURE + "match x:\n    case 1: pass")
    with pytest.raises(ValueError, match="from __future__ import annotations"):
        for_older_python("x: dict[str, int] = {}")
    with pytest.raises(ValueError, match="line 2: Set of collections"):
        for_older_python(FUTURE + "from collections.abc import Mapping, Set")
    with pytest.raises(ValueError, match="line 3: removeprefix must be in the line"):
        for_older_python(FUTURE + "x = y.removeprefix(\n'z')")


def test_the_whole_package_keeps_its_lines_and_the_names_that_it_defines():
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        found = for_older_python(source)
        assert len(found.splitlines()) == len(source.splitlines()), path
        if found != source:
            assert _defined(found) == _defined(source), path


def _defined(source: str) -> list[str]:
    nodes = ast.walk(ast.parse(source, feature_version=(3, 8)))
    return [node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def test_the_rewritten_package_does_the_same_here(tmp_path):
    for name in (
        "options.py",
        "errors.py",
        "wording.py",
        "user_files.py",
        "recipe.py",
        "recipe_sections.py",
        "__init__.py",
    ):
        (tmp_path / "kogpt2_gluon").mkdir(exist_ok=True)
        source = (PACKAGE / name).read_text(encoding="utf-8")
        (tmp_path / "kogpt2_gluon" / name).write_text(for_older_python(source), encoding="utf-8")
    code = "import kogpt2_gluon.recipe as r; print(r.__file__); print(r.load_recipe('RECIPE').to_yaml())"
    code = code.replace("RECIPE", str(ROOT / "recipes" / "demo.yaml"))
    printed = [
        subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout
        for folder in (tmp_path, ROOT)
    ]
    (mine, recipe), (_, expected) = (each.split("\n", 1) for each in printed)
    assert mine.startswith(str(tmp_path)) and recipe == expected
