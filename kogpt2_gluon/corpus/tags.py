"""Tags in text: which angle brackets are one, and raised and lowered text as plain characters."""

from __future__ import annotations

import re

# Attributes without a value. Any other word alone after a tag's name is prose: ``a<b and c>d``.
_ALONE = (
    "allowfullscreen|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|download|hidden|inert|"
    "ismap|itemscope|loop|multiple|muted|nohref|nomodule|noshade|novalidate|nowrap|open|playsinline|readonly|"
    "required|reversed|selected"
)
_FIRST_ATTRIBUTE = re.compile(
    rf"""["'/]|[A-Za-z_:@*.][\w:.@-]{{0,99}}\s{{0,9}}=|(?:{_ALONE})(?![^\s/=])""", re.IGNORECASE
)

RAISED, LOWERED, MARK_END = "\x01", "\x02", "\x03"  # around such text, until what comes before it is known
_MARKED = re.compile(f"([{RAISED}{LOWERED}])([^{RAISED}{LOWERED}{MARK_END}]*){MARK_END}")
# What is left of parentheses whose content was removed. print() is code, in a page that has such parentheses itself.
_EMPTY = re.compile(r" ?\([ \xa0,;:·/]{0,20}\)")
_EMPTY_BUT_OF_CALLS = re.compile(r" ?(?<![A-Za-z0-9_](?=\(\)))\([ \xa0,;:·/]{0,20}\)")
_STYLE = re.compile("'{2,5}")  # italics and bold of wikitext
_NESTED = 4  # marks inside each other that are resolved

_RAISED = str.maketrans("0123456789+-−=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
_LOWERED = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
_NUMBER = re.compile(r"[+\-−]?[0-9]+[+\-−]?|[+\-−]")
_FORMULA = re.compile(r"[A-Za-z0-9\u0370-\u03ff+\-−±=()*/.,'′^_ ]+")
_WORD = re.compile(r"[+\-−]?[A-Za-z0-9\u0370-\u03ff.]+")
_SMALL_CAPS = {"tm": "™", "st": "st", "nd": "nd", "rd": "rd", "th": "th"}  # 1st


def looks_like_tag(rest: str) -> bool:
    """Returns True if what follows ``<name`` can be the rest of a tag: nothing, or attributes.

    ``a<b 이고 c>d`` ("and") compares numbers.
    """
    rest = rest.strip()  # here: white space in the pattern would be tried again and again
    return not rest or _FIRST_ATTRIBUTE.match(rest) is not None


def empty_parentheses(written: str) -> re.Pattern[str]:
    """Returns a pattern for the empty parentheses that removing markup leaves in a page; `written` is the page."""
    return _EMPTY_BUT_OF_CALLS if "()" in written else _EMPTY


def resolve_marks(text: str) -> str:
    """Returns the text with everything between RAISED or LOWERED and MARK_END as plain characters."""
    for _ in range(_NESTED):
        if MARK_END not in text:
            return text
        text = _MARKED.sub(_resolve, text)
    return re.sub(f"[{RAISED}{LOWERED}{MARK_END}]", "", text)


def _resolve(found: re.Match[str]) -> str:
    if not found[2].strip():
        return found[2]
    text = _STYLE.sub("", found[2])
    if found[1] == LOWERED:
        return subscript(text)
    before = found.string[found.start() - 1] if found.start() else ""
    return superscript("a" if before == MARK_END else before, text)


def superscript(before: str, text: str) -> str:
    """Returns raised text as plain characters; `before` is the character that it follows.

    After a digit an exponent follows ``^``: NFKC, which tokenizers apply, makes 1024 of 10²⁴. Elsewhere numbers become
    superscript characters (m², Ca²⁺), and letters follow ``^``. Other words, such as a note in Hangul, are not changed.
    """
    text = text.strip()
    if text.lower() in _SMALL_CAPS:
        return _SMALL_CAPS[text.lower()]
    if _NUMBER.fullmatch(text):
        return "^" + text if before.isdigit() or before in ("", ")") else text.translate(_RAISED)
    return _marked("^", text)


def subscript(text: str) -> str:
    """Returns lowered text as plain characters: subscript numbers (H₂O), letters after ``_``, other words unchanged."""
    text = text.strip()
    return text.translate(_LOWERED) if _NUMBER.fullmatch(text) else _marked("_", text)


def _marked(mark: str, text: str) -> str:
    if not _FORMULA.fullmatch(text):
        return text
    return mark + text if _WORD.fullmatch(text) else f"{mark}({text})"
