"""The result of a check, in one form for `kogpt2 doctor`, `kogpt2-launch preflight` and the rules on variables."""

from __future__ import annotations

from dataclasses import dataclass

PASS, WARN, FAIL = "pass", "warn", "fail"
STATUSES = (PASS, WARN, FAIL)


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes
    ----------
    status : str
        PASS; WARN: it works, slower or less safely than it could; FAIL: it does not work, or spoils the result.
    what : str
        The thing that was checked: "numpy", "clock", an environment variable.
    where : str
        The place: an area of this machine, a host of a plan, or the document that a rule is from.
    text : str
        What was found there.
    fix : str
        A command or an advice; empty when there is nothing to fix.
    """

    status: str
    what: str
    where: str
    text: str
    fix: str = ""
