"""A small dump of Wikipedia."""

from __future__ import annotations

import bz2
from pathlib import Path

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="ko">
  <siteinfo>
    <sitename>위키백과</sitename>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="10" case="first-letter">틀</namespace>
    </namespaces>
  </siteinfo>
"""
PAGE = """  <page>
    <title>{title}</title>
    <ns>{ns}</ns>
    <id>5</id>
{redirect}    <revision>
      <id>3</id>
      <timestamp>2020-03-01T00:00:00Z</timestamp>
      <contributor><username>가</username><id>1</id></contributor>
      <model>{model}</model>
      <format>text/x-wiki</format>
      <text bytes="9" xml:space="preserve">{text}</text>
      <sha1>abc</sha1>
    </revision>
  </page>
"""


def page(text: str, ns: int = 0, redirect: str = "", model: str = "wikitext") -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    to = f'    <redirect title="{redirect}" />\n' if redirect else ""
    return PAGE.format(title="가", ns=ns, redirect=to, model=model, text=text)


def dump(path: Path, *pages: str, tail: str = "</mediawiki>\n") -> Path:
    """A multistream dump: the head, each page, and the end are bz2 streams of their own."""
    path.write_bytes(b"".join(bz2.compress(part.encode()) for part in (HEAD, *pages, tail) if part))
    return path
