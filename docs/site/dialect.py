"""Makes docstrings in GluonNLP's dialect ones that a parser of NumPy's style reads in full."""

from __future__ import annotations

import re

_HEADING = re.compile(r"[A-Z][A-Za-z ]+\n-{3,}(\n|$)")
_ITEM = re.compile(r"[*\w][\w, *]*( : .*)?(\n |$)")
_ROLE = re.compile(r"(?<!`):(?:mod|class|func|meth|attr|data|exc):(?=`[^`])")
_SHAPES = re.compile(r"(Inputs|Outputs):\n")


def prose_first(docstring: str) -> str:
    """A docstring whose sections (Parameters, Raises, ...) hold nothing but their items; all prose is before them."""
    prose, sections, in_section = [], [], False
    for block in re.split(r"\n\s*\n", docstring):
        is_heading = bool(_HEADING.match(block))
        in_section = in_section or is_heading
        if _SHAPES.match(block):
            name, _, items = block.partition(":\n")
            prose += [f"**{name}**", re.sub(r"^ {4}", "", items, flags=re.MULTILINE)]
        elif in_section and (is_heading or _ITEM.match(block) or block.startswith(" ")):
            sections.append(block)
        else:
            prose.append(block)
    return "\n\n".join([*prose, *sections])


def without_roles(docstring: str) -> str:
    """A docstring with plain names in the place of Sphinx's roles, which Markdown does not have."""
    return _ROLE.sub("", docstring)
