"""Personal data in a line of text: found by its form and its own checks, replaced by a placeholder.

Every pattern is bounded, and a match may begin only where no character of its kind comes before, so that time is linear
in the length of any text. Text that only looks similar stays: dates (2002-01-05), years (1592-1598), prices, versions
(1.2.3-4567), numbers with a wrong check digit, long numbers far from the name of a bank. The patterns use ASCII digits;
a line with full-width ones (０１０) is also searched in its ASCII form, which replaces it if something is found.
"""

from __future__ import annotations

import calendar
import re
from typing import Callable

# --- addresses

_URL = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:https?|ftp)://(?=[A-Za-z0-9])|www\.(?=[A-Za-z0-9-]{1,63}\.))"
    r"[A-Za-z0-9\-._~:/?#@!$&*+,;=%'()]{1,2000}",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9_%+-])(?<![A-Za-z0-9]\.)(?!git@)[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}"
    r"(?!(?:png|jpe?g|gif|svg|webp)(?![A-Za-z0-9]))[A-Za-z]{2,24}(?![A-Za-z0-9])"
)


def mask_url(text: str, placeholder: str) -> str:
    """Masks web addresses, with their scheme or ``www.``; Hangul ends one, so that a particle stays (…com에서)."""

    def replace(found: re.Match[str]) -> str:
        address = found[0].rstrip(".,:;!?'&")  # belongs to the sentence
        if address.endswith(")") and "(" not in address:
            address = address[:-1]
        return placeholder + found[0][len(address) :]

    return _URL.sub(replace, text)


def mask_email(text: str, placeholder: str) -> str:
    """Masks e-mail addresses, but not ``git@host`` and not pictures for fine screens (``logo@2x.png``)."""
    return _EMAIL.sub(lambda _: placeholder, text)


# --- resident registration numbers (주민등록번호), foreigners' too: YYMMDD-GNNNNNC

_RESIDENT = re.compile(
    r"(?<![0-9.])(?<![0-9][-])([0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])"
    r"( ?[-–~] ?|)([0-9])([0-9]{6}|\*{6})(?![0-9*])(?!-[0-9])"
)
_RESIDENT_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_CENTURIES = {"9": 1800, "0": 1800, "1": 1900, "2": 1900, "5": 1900, "6": 1900}  # and 2000 for 3, 4, 7, 8
WITHOUT_CHECK_DIGIT = (2020, 10)  # year and month from which on the last six digits are random


def is_resident_number(birth: str, rest: str, hyphen: bool = True) -> bool:
    """Returns True if YYMMDD and the seven digits after it are a resident number: an existing day, a right check digit.

    Someone born since October 2020 has a number without a check digit; it counts if it is written with a hyphen. So
    does a number whose author has starred the last six digits: the birthday and sex still show.
    """
    year = _CENTURIES.get(rest[0], 2000) + int(birth[:2])
    month, day = int(birth[2:4]), int(birth[4:])
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return False
    if hyphen and (rest.endswith("*") or (year, month) >= WITHOUT_CHECK_DIGIT):
        return True
    if rest.endswith("*"):
        return False
    digits = [int(digit) for digit in birth + rest]
    total = sum(digit * weight for digit, weight in zip(digits, _RESIDENT_WEIGHTS))
    base = 13 if rest[0] in "5678" else 11  # foreigners' numbers are shifted by two
    return digits[12] == (base - total % 11) % 10


def mask_resident_number(text: str, placeholder: str) -> str:
    """Masks resident registration numbers, with or without the hyphen."""

    def replace(found: re.Match[str]) -> str:
        year, month, day, hyphen, kind, serial = found.groups()
        return placeholder if is_resident_number(year + month + day, kind + serial, bool(hyphen)) else found[0]

    return _RESIDENT.sub(replace, text)


# --- payment cards

_CARD = re.compile(
    r"(?<![0-9.,])(?<![0-9A-Za-z]-)(?<![A-Za-z])"
    r"(?:(?:[4569][0-9]{3}|2[2-7][0-9]{2}|35[0-9]{2})([- ]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}"
    r"|3[47][0-9]{2}([- ]?)[0-9]{6}\2[0-9]{5})(?![0-9A-Za-z])(?![-.,][0-9])"
)


def passes_luhn(digits: str) -> bool:
    """Returns True by Luhn's check: with every second digit from the right doubled, their sum is a multiple of 10."""
    doubled = sum((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[int(digit)] for digit in digits[-2::-2])
    return (doubled + sum(int(digit) for digit in digits[-1::-2])) % 10 == 0


def mask_card(text: str, placeholder: str) -> str:
    """Masks card numbers of 16 digits (American Express: 15), in groups or not, that pass Luhn's check."""

    def replace(found: re.Match[str]) -> str:
        return placeholder if passes_luhn(re.sub("[- ]", "", found[0])) else found[0]

    return _CARD.sub(replace, text)


# --- telephones: mobiles, area codes, 070 and 050x, and the same after +82

_AREA = "2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50[0-9]"
_PHONE = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9A-Za-z][-.,])(?:"
    r"01[016789](?:[-. ]|\) ?| [-–] |–)[0-9]{3,4}(?:[-. ]| [-–] |–)[0-9]{4}"
    r"|010[2-9][0-9]{3}[- ]?[0-9]{4}|01[16789][1-9][0-9]{2,3}[- ]?[0-9]{4}|01[016789][- ][1-9][0-9]{6,7}"
    rf"|\(?0(?:{_AREA})(?:\) ?[0-9]{{3,4}}[-. –]|[-–][0-9]{{3,4}}[-–]|\.[0-9]{{3,4}}\.| [0-9]{{3,4}}-"
    r"| [-–] [0-9]{3,4} [-–] )[0-9]{4}"
    rf"|(?:\+ ?82[-. ]?(?:\(0\) ?|0)?|82-)(?:1[016789]|{_AREA})[-. )]{{0,2}}[0-9]{{3,4}}[-. ]?[0-9]{{4}}"
    r")(?![0-9A-Za-z])(?![-.,][0-9])"
)


def mask_phone(text: str, placeholder: str) -> str:
    """Masks Korean mobile and land lines; a land line only if its groups are separated, so that plain numbers stay.

    Shared numbers of firms (1588-1234) do not belong to a person, and look like years: they stay.
    """

    def replace(found: re.Match[str]) -> str:
        # Only zeros and ones: a binary number.
        return placeholder if set("23456789").intersection(found[0]) else found[0]

    return _PHONE.sub(replace, text)


# --- bank accounts

# Words that mean a bank account, up to 20 characters before the number; names that mean other things as well (우리: we,
# 하나: one) must come right before it.
_WORDS = "계좌|통장|예금주|입금|송금|이체|은행|농협|신협|수협|축협|새마을금고|우체국|카카오뱅크|카뱅|케이뱅크|토스뱅크"
_ACCOUNT_WORD = re.compile(rf"{_WORDS}|(?:국민|신한|우리|하나|기업|제일|씨티|KB|IBK|NH)[ :)\]]{{0,2}}\Z")
_BANK_AFTER = re.compile(
    rf"[^0-9가-힣A-Za-z]{{0,3}}(?:[가-힣A-Z]{{0,5}}(?:{_WORDS})|(?:국민|신한|기업|KB|IBK|NH)(?![가-힣A-Za-z]))"
)
_OTHER_NUMBER = re.compile("택배|등기|송장|우편|주문|사업자|전화|팩스")
_NUMBER = re.compile(
    r"(?<![0-9A-Za-z.,])(?<![0-9A-Za-z][-])[0-9](?:[0-9]|-(?=[0-9])){8,18}[0-9]"
    r"(?![0-9A-Za-z])(?![-.,][0-9])(?! ?(?:원|달러|엔|유로|명|건|개|주|만|억|조|%))"
)
_DATE = re.compile(r"(?:19|20)[0-9]{2}-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12][0-9]|3[01])(?![0-9])|(?:19|20)[0-9]{2}-")
ACCOUNT_DIGITS = range(10, 15)  # Korean banks' numbers have 10 to 14
ACCOUNT_REACH = 20  # characters, none of them a digit, between the word and the number


def mask_account(text: str, placeholder: str) -> str:
    """Masks numbers of 10 to 14 digits close to an account word or a bank's name, and others in a row with them."""
    pieces: list[str] = []
    done = 0
    for found in _NUMBER.finditer(text):
        start, end = found.span()
        if sum(char != "-" for char in found[0]) not in ACCOUNT_DIGITS or _DATE.match(found[0]):
            continue
        if _is_announced(text, start, done) or _BANK_AFTER.match(text, end):
            pieces += [text[done:start], placeholder]
            done = end
    return "".join([*pieces, text[done:]]) if pieces else text


def _is_announced(text: str, start: int, last_masked: int) -> bool:
    """Returns True if an account word, or the account number masked last, precedes `start` with no digit in between."""
    gap = text[max(0, start - ACCOUNT_REACH) : start]
    for at in range(len(gap) - 1, -1, -1):
        if gap[at].isdigit():
            gap = gap[at + 1 :]
            break
    if _OTHER_NUMBER.search(gap):
        return False
    return 0 < last_masked == start - len(gap) or _ACCOUNT_WORD.search(gap) is not None


MaskText = Callable[[str, str], str]
# In the order in which they are applied.
MASKS: dict[str, MaskText] = {
    "url": mask_url,
    "email": mask_email,
    "resident_number": mask_resident_number,
    "card": mask_card,
    "phone": mask_phone,
    "account": mask_account,
}
