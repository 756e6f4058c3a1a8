"""The package's line plots as files of their own: colours, a white ground, and room for long labels at the right."""

from __future__ import annotations

import re

STYLE = (
    "<style>svg{background:#fff;font:12px system-ui,sans-serif;fill:#333}.frame,.grid{stroke:#ddd;fill:none}"
    "path,polyline{fill:none;stroke-width:1.6}.c0{stroke:#333}.c1{stroke:#0072b2}.c2{stroke:#d55e00}.c3{stroke:#009e73}"
    ".flat{stroke:#999;stroke-dasharray:6 4}text.c0,text.c1,text.c2,text.c3,text.flat{stroke:none}</style>"
)
LABEL_ROOM = 60  # pixels more than a page's plots have


def standalone(plot: str) -> str:
    """Returns the text of an .svg file for an inline <svg> of `kogpt2_gluon.pages.plot`."""
    wider = re.sub(r'viewBox="0 0 (\d+) ', lambda box: f'viewBox="0 0 {int(box[1]) + LABEL_ROOM} ', plot, count=1)
    return wider.replace(">", f' xmlns="http://www.w3.org/2000/svg">{STYLE}', 1) + "\n"
