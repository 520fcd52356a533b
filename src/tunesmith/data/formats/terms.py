"""Parse prison terms into months: `18`, `有期徒刑三年，缓刑四年，并处罚金`, `3 years`.

A closed set of forms, each exact. A fine, probation and the loss of political rights may be given beside the
term; they do not change it. Any other text is not a term, never a guess.
"""

from __future__ import annotations

import re
from typing import Literal

XT: Literal["XT"] = "XT"
"""Life and death."""
Term = int | Literal["XT"]

# Full-width forms of ASCII, and the ideographic space.
HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}

_NUMBER = "([0-9]{1,6}|[零〇一二两三四五六七八九十百]{1,8})"
_PLAIN_NUMBER = _NUMBER.replace("(", "(?:")
_YEARS = rf"{_NUMBER}\s*年(?:(半)|\s*[零又]?\s*{_NUMBER}\s*个月)?"
# 2018年6月 is a date.
_FEW = "([0-9]{1,2}|[一二两三四五六七八九十]{1,3})"
_YEARS_AND_MONTHS = rf"{_FEW}\s*年\s*[零又]?\s*{_NUMBER}\s*月"
_DURATION = rf"(?:{_YEARS}|{_YEARS_AND_MONTHS}|{_NUMBER}\s*个?月|(半)年)"
_SPAN = rf"(?:{_PLAIN_NUMBER}\s*年(?:半|\s*[零又]?\s*{_PLAIN_NUMBER}\s*个?月)?|{_PLAIN_NUMBER}\s*个?月|半年)"

_NUMERAL = "[零〇一二两三四五六七八九十百千万亿壹贰叁肆伍陆柒捌玖拾佰仟]{1,16}"
_AMOUNT = rf"(?:人民币)?\s*(?:(?:[0-9][0-9,.]{{0,15}}\s*[百千万亿]{{0,2}}|{_NUMERAL})\s*元?(?:整|人民币)?)?"
_BESIDE = (
    rf"(?:宣告)?缓刑(?:考验期限?)?为?\s*{_SPAN}?",
    rf"(?:并处|并科|判处|处)?\s*罚[金款]\s*{_AMOUNT}",
    rf"(?:并处|判处|处)?\s*没收(?:个人)?(?:全部|部分)?财产\s*{_AMOUNT}",
    rf"(?:附加|并处|并)?\s*剥夺政治权利(?:终身|\s*{_SPAN})?",
)
_REST = rf"(?:[\s,;、。()]*(?:{'|'.join(_BESIDE)}))*"
_SENTENCED = r"(?:(?:判处|处|决定执行)\s*)?"
_LIFE_OR_DEATH = re.compile(
    rf"(?:{XT}|{_SENTENCED}(?:无期徒刑|死缓|死刑(?:\s*,?\s*缓期[二两2]年执行)?)){_REST}"
)
_BARE = re.compile(_NUMBER + _REST)
_CHINESE = re.compile(rf"{_SENTENCED}(?:(?:有期徒刑|拘役|管制)\s*)?{_DURATION}{_REST}")

_PRISON = r"(?:'?\s(?:of\s|in\s)?(?:imprisonment|prison))?"
_SUM = r"\sof\s[a-z¥$€£]{0,3}\s?[0-9][0-9,.]{0,15}(?:\s[a-z]{1,10})?"
_FINE = rf"(?:[\s,;]*(?:and\s|plus\s|with\s)?\s*a\sfine(?:{_SUM})?)?"
_ENGLISH = re.compile(
    r"(?:imprisonment\s(?:of|for)\s)?"
    r"(?:([0-9]{1,6})\s?years?(?:\s?,?\s?(?:and\s)?([0-9]{1,6})\s?months?)?|([0-9]{1,6})\s?months?)"
    + _PRISON
    + _FINE,
    re.IGNORECASE,
)
_ENGLISH_XT = re.compile(
    r"(?:life\s(?:imprisonment|sentence|in\sprison)|imprisonment\sfor\slife|death\s(?:penalty|sentence))"
    + _FINE,
    re.IGNORECASE,
)

# What may surround a term. No sign, point or tilde before it: these would change the number.
_AROUND = "\"'`*_“”‘’「」『』《》()[]{} \t"
_END_MARKS = ("。", ".", ",", ";", "!")
_LONGEST = 400
"""Characters. No term with everything beside it is longer."""


def parse_term(text: str) -> Term | None:
    """Return the months of a term, XT for life and death, None for anything else.

    A number without a unit is months; 有期徒刑18 is not a term, since it may be years. Digits and Chinese
    numerals.
    """
    text = text.translate(HALF_WIDTH).strip(_AROUND)
    if text.endswith(_END_MARKS):
        text = text[:-1].rstrip(_AROUND)
    if len(text) > _LONGEST:
        return None
    if _LIFE_OR_DEATH.fullmatch(text) or _ENGLISH_XT.fullmatch(text):
        return XT
    if match := _BARE.fullmatch(text):
        return _number(match[1])
    if match := _CHINESE.fullmatch(text):
        years, half, months, dated_years, dated_months, alone, half_a_year = match.groups()
        if half or half_a_year:
            return _total(years or "0", "6")
        return _number(alone) if alone else _total(years or dated_years, months or dated_months)
    if match := _ENGLISH.fullmatch(text):
        return _total(match[1], match[2]) if match[1] else int(match[3])
    return None


def _total(years: str, months: str | None) -> int | None:
    """Return None if a number is None, and for 3年36个月, which may mean three years, or six."""
    whole, rest = _number(years), _number(months or "0")
    if whole is None or rest is None or rest >= 12:
        return None
    return whole * 12 + rest


def _number(text: str) -> int | None:
    return int(text) if text[0] in "0123456789" else _NUMERALS.get(text)


def _numerals() -> dict[str, int]:
    """Return every usual way to write 0 to 999, without loose ones (一百二 for 120, 三六 for 36)."""
    ones = {digit: number for number, digit in enumerate("一二三四五六七八九", 1)} | {"两": 2}
    tens = {f"{digit}十": number * 10 for digit, number in ones.items() if digit != "两"}
    below = tens | {ten + one: tens[ten] + ones[one] for ten in tens for one in ones if one != "两"}
    numerals = {"零": 0, "〇": 0, "十": 10, **ones, **below}
    numerals |= {f"十{one}": 10 + number for one, number in ones.items() if one != "两"}
    for digit, number in ones.items():
        numerals[f"{digit}百"] = number * 100
        numerals |= {f"{digit}百{rest}": number * 100 + value for rest, value in below.items()}
        for zero in "零〇":
            numerals |= {f"{digit}百{zero}{one}": number * 100 + ones[one] for one in ones if one != "两"}
    return numerals


_NUMERALS = _numerals()
