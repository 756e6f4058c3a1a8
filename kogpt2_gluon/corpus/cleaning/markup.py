"""HTML in text that should have none: scripts, comments, tags and entities. Time is linear in the text."""

from __future__ import annotations

import html
import re

from kogpt2_gluon.corpus.tags import LOWERED, MARK_END, RAISED, looks_like_tag, resolve_marks

# Elements that separate words; the text on both sides of any other element is one word (<b>서울</b>에서).
_SEPARATING_NAMES = """
    address article aside blockquote body br button caption center dd details dialog dir div dl dt fieldset
    figcaption
    figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html iframe img input legend li link main map
    menu meta nav noscript object ol optgroup option p pre section select summary table tbody td template textarea
    tfoot th thead title tr ul
    video"""
_JOINING_NAMES = """
    a abbr acronym area audio b base basefont bdi bdo big canvas cite code col colgroup data datalist del dfn em
    embed font i ins kbd label mark marquee meter nobr o:p output param picture progress q rb rp rt ruby s samp script
    slot small source span strike strong style sub sup svg time track tt u var wbr"""
_SEPARATING, _JOINING = frozenset(_SEPARATING_NAMES.split()), frozenset(_JOINING_NAMES.split())
_TAG = re.compile(r"(?<!`)<(/?)([A-Za-z][A-Za-z0-9:]{0,15})(\s[^<>]{0,5000}|\s*/?)>")
_RAISED_OR_LOWERED = re.compile(r"<(su[pb])(?:\s[^<>]{0,200})?>([^<>\n\x01-\x03]{0,200})</\1\s{0,9}>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_RAW_OPEN = re.compile(r"<(script|style)(?=[\s>])[^<>]{0,5000}>|<!--", re.IGNORECASE)
_RAW_CLOSE = {
    "script": re.compile(r"</script\s{0,100}>", re.IGNORECASE),
    "style": re.compile(r"</style\s{0,100}>", re.IGNORECASE),
    "<!--": re.compile("-->"),
}


def strip_html(text: str) -> str:
    """Returns the text of a piece of HTML, with as many line ends as before.

    Comments, scripts and style sheets are removed with their content, if they end at all. Tags of HTML's own elements
    are removed; those of a block or a line break leave a space. Entities are decoded once. A tag in backquotes is a
    quotation and stays. A name that is not an element's stays too: Korean sets titles in angle brackets (<괴물>,
    <Parasite>); so does what has other words where a tag has attributes (a<b 이고 c>d). Raised and lowered text becomes
    plain characters: 10^24, m², H₂O.
    """
    if "<" in text:
        text = _strip_raw(text)
        if "</su" in text or "</SU" in text:
            text = resolve_marks(_RAISED_OR_LOWERED.sub(_mark, text))
        text = _TAG.sub(_strip_tag, text)
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found[0]).replace("\n", " "), text)
    return text


def _line_ends(text: str) -> str:
    return "\n" * text.count("\n")


def _mark(found: re.Match[str]) -> str:
    return (RAISED if found[1].lower() == "sup" else LOWERED) + found[2] + MARK_END


def _strip_tag(found: re.Match[str]) -> str:
    name = found[2].lower()
    if not looks_like_tag(found[3]):
        return found[0]
    if name in _SEPARATING:
        return _line_ends(found[0]) or " "
    return _line_ends(found[0]) if name in _JOINING else found[0]


def _strip_raw(text: str) -> str:
    pieces: list[str] = []
    done, unclosed = 0, set()
    opening = _RAW_OPEN.search(text)
    while opening is not None:
        kind = (opening[1] or opening[0]).lower()
        # An end that was not found once is not searched for again: that would take quadratic time.
        closing = None if kind in unclosed else _RAW_CLOSE[kind].search(text, opening.end())
        if closing is None:
            unclosed.add(kind)
            opening = _RAW_OPEN.search(text, opening.end())
        else:
            pieces += [text[done : opening.start()], _line_ends(text[opening.start() : closing.end()]) or " "]
            done = closing.end()
            opening = _RAW_OPEN.search(text, done)
    return "".join([*pieces, text[done:]])
