"""Find words and phrases that this project does not use in its prose, and docstrings that begin as fragments.

    python tests/words/check.py [PATH ...]

reads the files below each PATH (default: everything that git tracks) and prints one line for each finding: file, line,
the words found, and what to write. It exits with 1 if there are any. Prose is a comment, a docstring, a string with a
space in it, and Markdown; names, code in backticks and addresses are not. Standard library alone.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Word(NamedTuple):
    """A word or phrase to avoid."""

    pattern: str  # a regular expression; a space in prose is any white space, written \s+ here
    plain: str  # what to write
    example: str  # found by the pattern; the placeholder _ is a space, so that this table passes its own check
    good: str = "(?!)"  # a regular expression of uses that are good English, which are not findings
    good_example: str = ""


WORDS = (
    Word(r"mend(s|ed|ing)?", "fix", "mended"),
    Word(r"anew", "again", "anew"),
    Word(
        r"told|tells?|telling",
        "report, say, be called with",
        "told",
        r"can(not)?\s+tell|(told|tells?|telling)(\s+[^\s.]+){0,4}\s+apart",
        "can_tell",
    ),
    Word(r"parted", "separated", "parted"),
    Word(r"stands?", "is, are", "stands", r"stands?(-|\s+(for|still|alone|by|out|in\s+for)\b)", "stands_for"),
    Word(r"beside", "next to, with, in addition to, compared with", "beside"),
    Word(r"stumbled?", "failed", "stumbled"),
    Word(
        r"behind",
        "after",
        "behind",
        r"(fall|falls|falling|fell|lags?|far|left|leaves?|leaving)\s+([^\s.]+\s+){0,3}behind"
        r"|behind\s+(an?|the|one)\s+(proxy|door|firewall|NAT|link|symlink|symbolic)\b",
        "leaves_nothing_behind",
    ),
    Word(r"(where|there|here)(of|by|to|upon)", "of it, with it, so", "whereof"),
    Word(r"(is|are)\s+to\s+be", "must be", "is_to_be"),
    Word(
        r"(that|which|who|it|this)\s+(is|are)\s+no",
        "is not a",
        "that_is_no",
        r"(is|are)\s+no\s+(longer|more|less|fewer|better|worse|other)\b",
        "that_is_no_longer",
    ),
    Word(r"(knows?|may\s+have)\s+no", "has no, does not know", "knows_no", good_example="may_have"),
    Word(r"\d+\s+(well|wanted)", "ok, expected", "2_well", good_example="well-kept"),
)
# Not inside a longer name (mend_all, x-told), not a call (tell()), not a file's suffix.
FINDERS = [re.compile(rf"(?<![\w.-])(?:{word.pattern})(?![\w(=]|-\w|\.\w)", re.IGNORECASE) for word in WORDS]
GOOD = [re.compile(rf"\b(?:{word.good})", re.IGNORECASE) for word in WORDS]
FRAGMENT = re.compile(r"\s*(Of|What|Whether|As|The\s+same|Like)\b")
FRAGMENT_ADVICE = "begin with what the function returns or does"

# Code and addresses inside prose, and the name of a parameter in a list of parameters (`name : callable`).
NOT_PROSE = re.compile(
    r"``.+?``|`[^`]+`|https?://\S+|\]\([^)\s]+\)|^[ \t]*\w+(?:, \w+)*(?= : )", re.DOTALL | re.MULTILINE
)
C_TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|R"\((?P<raw>.*?)\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)
HASH_COMMENT = re.compile(r"(?:^|(?<=\s))#+(?!\w)(?P<text>.*)")
FENCE = re.compile(r"^\s*(```|~~~)")


class Prose(NamedTuple):
    """A piece of prose, and where in its file it is."""

    first_line: int
    last_line: int
    text: str
    docstring: bool = False


def python_prose(source: str) -> Iterator[Prose]:
    """Comments, docstrings, and strings with a space in them. An f-string's expressions count as a number, "0"."""
    comments = [
        (token.start[0], token.string.lstrip("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    yield from _joined(comments)
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings.add(id(first.value))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            text = node.value
        else:
            continue
        docstring = id(node) in docstrings
        if docstring or (re.search(r"\s", text.strip()) and not _is_program(text)):
            yield Prose(node.lineno, node.end_lineno or node.lineno, text, docstring)


def _is_program(text: str) -> bool:
    """Returns True if a string is Python source: some tests run small programs."""
    try:
        return any(isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign)) for node in ast.parse(text).body)
    except (SyntaxError, ValueError):
        return False


def c_prose(source: str) -> Iterator[Prose]:
    """Comments and strings with a space in them."""
    comments = []
    for match in C_TOKEN.finditer(source):
        text, line = match[0], source.count("\n", 0, match.start()) + 1
        if text.startswith("//"):
            comments.append((line, text.lstrip("/")))
        elif text.startswith("/*") or (text.startswith(('"', "R")) and " " in text.strip('" ')):
            yield Prose(line, line + text.count("\n"), text)
    yield from _joined(comments)


def markdown_prose(source: str) -> Iterator[Prose]:
    """Everything outside fenced blocks, and the comments inside them."""
    lines, fenced, comments = [], False, []
    for number, line in enumerate(source.split("\n"), 1):
        fence = FENCE.match(line)
        if fenced and (comment := HASH_COMMENT.search(line)):
            comments.append((number, comment["text"]))
        lines.append("" if fenced or fence else line)
        fenced ^= bool(fence)
    yield Prose(1, len(lines), "\n".join(lines))
    yield from _joined(comments)


def comment_prose(source: str) -> Iterator[Prose]:
    """Comments after `#`, of YAML, TOML, shell and make."""
    lines = enumerate(source.split("\n"), 1)
    yield from _joined((number, comment["text"]) for number, line in lines if (comment := HASH_COMMENT.search(line)))


def _joined(comments: Iterable[tuple[int, str]]) -> Iterator[Prose]:
    """Comments on lines that follow one another are one text: a phrase may run over the end of a line."""
    first, texts = 0, []
    for line, text in comments:
        if texts and line != first + len(texts):
            yield Prose(first, first + len(texts) - 1, "\n".join(texts))
            texts = []
        if not texts:
            first = line
        texts.append(text)
    if texts:
        yield Prose(first, first + len(texts) - 1, "\n".join(texts))


READERS = {
    **dict.fromkeys((".py",), python_prose),
    **dict.fromkeys((".cc", ".cu", ".h"), c_prose),
    **dict.fromkeys((".md",), markdown_prose),
    **dict.fromkeys((".yaml", ".yml", ".toml", ".sh", "Makefile"), comment_prose),
}


def check_text(source: str, kind: str) -> list[tuple[int, str, str]]:
    """Returns the findings in a file's text, ordered by line: (line, the words found, what to write).

    `kind` is the file's suffix, or its name if it has none; see READERS.
    """
    lines, findings = source.split("\n"), []
    for prose in READERS[kind](source):
        text = NOT_PROSE.sub(_blanked, prose.text)
        for word, finder, good in zip(WORDS, FINDERS, GOOD):
            for match in finder.finditer(good.sub(_blanked, text)):
                findings.append((_line_of(match, text, prose, lines), match[0], word.plain))
        if prose.docstring and (match := FRAGMENT.match(prose.text)):
            findings.append((prose.first_line, f"docstring: {match[1]} ...", FRAGMENT_ADVICE))
    return sorted((line, " ".join(found.split()), plain) for line, found, plain in findings)


def _blanked(match: re.Match[str]) -> str:
    """The match with a mark in place of each character, so that lines and offsets stay."""
    return re.sub(r"\S", "`", match[0])


def _line_of(match: re.Match[str], text: str, prose: Prose, lines: list[str]) -> int:
    """The line of the file that holds the match: a string's own line ends need not be those of its source."""
    if text.count("\n") == prose.last_line - prose.first_line:
        return prose.first_line + text.count("\n", 0, match.start())
    word = match[0].split()[-1]
    for number in range(prose.first_line, prose.last_line + 1):
        if re.search(rf"\b{re.escape(word)}\b", lines[number - 1]):
            return number
    return prose.first_line


def tracked_files(paths: list[str], root: Path) -> list[Path]:
    """The files below the paths that git tracks or would add, of a kind that is read here."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    listed = subprocess.run([*command, *paths], capture_output=True, text=True, check=True).stdout
    files = (root / name for name in listed.split("\0") if name)
    return sorted(path for path in files if (path.suffix or path.name) in READERS and path.is_file())


def main(arguments: list[str]) -> int:
    """Prints the findings of all files below the paths; returns 1 if there are any, 2 if there is no file."""
    root = Path.cwd()
    files = tracked_files(arguments or ["."], root)
    if not files:
        print(f"no file to check below {' '.join(arguments) or root}", file=sys.stderr)
        return 2
    count = 0
    for path in files:
        for line, found, plain in check_text(path.read_text(encoding="utf-8"), path.suffix or path.name):
            print(f"{path.relative_to(root)}:{line}: {found} -> {plain}")
            count += 1
    print(f"{len(files)} files, {count} findings", file=sys.stderr)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
