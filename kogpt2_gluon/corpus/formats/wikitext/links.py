"""Links that show nothing in their place: files, categories, the same article in another language.

A dump names its namespaces in its head. A prefix of a few letters is a language only if it is the code of a Wikipedia:
``[[CSI: 과학수사대]]``, ``[[Re:제로]]`` and ``[[ISO:9001]]`` are articles.
"""

from __future__ import annotations

import functools
import html
import re
from typing import NamedTuple

# Codes of all Wikipedias, closed ones too.
LANGUAGES = frozenset(
    re.findall(
        r"\S+",
        """aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar
        bat-smg bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo
        ce ceb ch cho chr chy ckb cmn co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee egl el
        eml en eo es et eu ext fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor
        got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo
        inh io is it iu ja jam jbo jv ka kaa kab kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku
        kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr
        mi min mk ml mn mni mnw mo mos mr mrj ms mt mus mwl my myv mzn na nah nan nap nb nds nds-nl ne new ng nia nl
        nn no nov nqo nr nrm nso nup nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps
        pt pwn qu rm rmy rn ro roa-rup roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn si
        simple sk skr sl sm smn sn so sq sr srn ss st stq su sv sw szl szy ta tay tcy tdd te tet tg th ti tig tk tl
        tly tn to tok tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu xal xh
        xmf yi yo yue za zea zgh zh zh-classical zh-min-nan zh-yue zu""",
    )
)
_FILES_AND_CATEGORIES = frozenset(["file", "image", "media", "category", "파일", "그림", "미디어", "분류"])
_NAMESPACE = re.compile(r'<namespace\b[^<>]*\bkey="(-2|6|14)"[^<>]*>([^<>]{1,100})</namespace>')


class Prefixes(NamedTuple):
    """The namespaces of a dump whose links show nothing: those of files and categories, in lower case."""

    hidden: frozenset[str] = _FILES_AND_CATEGORIES

    def hides(self, target: str, shows_text: bool) -> str:
        """Returns why a link to `target` shows nothing, or ``""`` if it shows words.

        `shows_text` says that the link has words of its own: no link to another language has any.
        """
        prefix, colon, _ = target.partition(":")
        if not colon:
            return ""
        name = " ".join(prefix.replace("_", " ").split()).lower()
        if name in self.hidden:
            return f"link {name}"
        # MediaWiki takes capitals too, but nobody links so, and titles begin with one (It: 챕터 투).
        if not shows_text and prefix.strip() in LANGUAGES:
            return "link to another language"
        return ""


USUAL = Prefixes()


@functools.lru_cache(maxsize=64)
def prefixes_of(siteinfo: bytes) -> Prefixes:
    """Returns the prefixes that a dump's head, ``<siteinfo>...</siteinfo>``, names; the usual ones always count."""
    names = {html.unescape(name) for _, name in _NAMESPACE.findall(siteinfo.decode("utf-8", "replace"))}
    return Prefixes(_FILES_AND_CATEGORIES | {" ".join(name.replace("_", " ").split()).lower() for name in names})
