"""The last number of a text, as people and models write numbers.

Read by a closed set of forms, each exact: 1,234.5 · 1.5e3 · 1.5×10^3 · 12 % · 3/4 · 1 1/2 · \\frac{3}{4} ·
½ · 3万 · 2 million · 十八 · 四分之三. What looks like a number and is in none of them (3,5 · 12:30 ·
2024-01-05 · 2√3 · 一百二) is unreadable and never a guess. Digits in names and units (H2O,
GPT-4, m^2) are not numbers. Time is linear in the length of the text. Does not depend on records and
verifiers.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from tunesmith.data.formats.terms import parse_term

# Full-width digits and signs; not the comma, which separates sentences.
_PLAIN = {code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), 0xFF0B, 0xFF0D, 0xFF0E, 0xFF0F, 0xFF05)}
_PLAIN |= dict.fromkeys(map(ord, "−–‐‑"), "-") | {ord("∕"): "/", ord("⁄"): "/"}
_PLAIN |= {ord("٫"): ".", ord("٬"): ",", ord("٪"): "%"}
# Spaces that do not break a line group digits; so does LaTeX's.
_PLAIN |= dict.fromkeys(map(ord, "\u00a0\u202f\u2007"), "\u2009")
_LATEX = re.compile(r"\\([%$,;:! ])|\{([.,])\}|\^\s?\{?\\circ\b\}?|\\displaystyle\b\s?")
_LATEX_SIGNS = {"%": "%", "$": "$", ",": "\u2009", ";": "\u2009", ":": "\u2009", "!": "", " ": " "}
_LATEX_PART = r"(\{[^{}]{0,40}\}|[0-9])"
_LATEX_FRACTION = re.compile(rf"\\[cdt]?frac\s?{_LATEX_PART}\s?{_LATEX_PART}")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")

_NOT_RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_TEN_TO = re.compile("(?<![0-9.])10(⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3})")

_MOST_DIGITS, _MOST_EXPONENT = 400, 400
_LOOKED_AT = 64  # so many things with digits that are no numbers may follow the last number
_NEAR = 12

_GROUPED = "|".join(
    rf"[1-9][0-9]{{0,2}}(?:{sep}[0-9]{{3}})+(?![0-9])" for sep in (",", "\u2009", "['’]", "_")
)
_LAKHS = "[1-9][0-9]?(?:,[0-9]{2}){1,6},[0-9]{3}(?![0-9])"
_NUMBER = rf"(?:(?:{_GROUPED}|{_LAKHS}|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_POWER = "[+-]?[0-9]{1,9}"
_TIMES_TEN = r"\s?(?:[×xX*·]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?"
_EXPONENT = rf"[eE]{_POWER}|{_TIMES_TEN}(?:\{{{_POWER}\}}|{_POWER})"
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {
    "k": 10**3,
    "百": 10**2,
    "千": 10**3,
    "万": 10**4,
    "百万": 10**6,
    "千万": 10**7,
    "亿": 10**8,
    "万亿": 10**12,
}
# 千 begins units too: 5千克 is five kilograms.
_SCALE = (
    r"\s?(?:(?:hundred|thousand|million|billion|trillion)\b|万亿|百万|千万|万|亿|百)"
    r"|k(?![A-Za-z])|千(?![克米瓦卡焦帕赫伏安升])"
)
_NUMERALS = "零〇一二两三四五六七八九十百"
_FORMAL = "壹贰叁肆伍陆柒捌玖拾佰仟廿卅"  # as amounts are written: numerals, and not read
_NUMERAL = f"[{_NUMERALS}{_FORMAL}][{_NUMERALS}{_FORMAL}千万亿点]*"
_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_PART = rf"(?:[0-9]{{1,9}}(?:\.[0-9]{{1,9}})?|{_NUMERAL})"

_TOKEN = re.compile(
    rf"""
      (?P<nothing>∞|\\infty|(?<![A-Za-z])(?i:nan|inf(?:inity)?)(?![A-Za-z]))
    | 百分之(?P<hundredths>{_PART})
    | (?:(?P<and_below>{_PART})又)?(?P<below>{_PART})分之(?P<above>{_PART})
    | (?:(?P<and_latex>[0-9]{{1,9}})\s?)?\\frac
      \{{(?P<top>[^{{}}]{{0,40}})\}}\{{(?P<bottom>[^{{}}]{{0,40}})\}}
    | (?:(?P<and_vulgar>[0-9]{{1,9}})\s?)?(?P<vulgar>[{_VULGAR}])
    | (?:(?P<and_slash>[0-9]{{1,9}})[ ])?(?P<upper>[0-9]{{1,40}})\s?/\s?(?P<lower>[0-9]{{1,40}})
    | 10\^(?:\{{(?P<braced>[+-]?[0-9]{{1,9}})\}}|(?P<power>[+-]?[0-9]{{1,9}}))
    | (?P<number>{_NUMBER})(?P<exponent>{_EXPONENT})?(?P<scale>{_SCALE})?(?:\s?(?P<percent>%|percent\b))?
    | (?P<numeral>{_NUMERAL})
    """,
    re.VERBOSE,
)

# What may precede a number. Currency and bold marks may come between it and its sign.
_MARKS = re.compile(r"(?:[$€£¥￥]|\*\*|[({\[`\"'“‘])\Z")
_MINUS = re.compile(
    r"(?:(?:\A|[^0-9A-Za-z_)\]}.,-])-|[=:：≈是为({]\s*-\s{1,3}|负\s?|(?:\A|[^A-Za-z])(?:[Mm]inus|[Nn]egative)\s)\Z"
)
_PART_OF_NAME = re.compile(r"(?:[A-Za-z_]|[A-Za-z_]-|_\{|[A-Za-z)}\]]\^\{?-?|第\s?)\Z")
_GLUED_BEFORE = re.compile(
    r"(?:[0-9%)\]}][.,，:/*×·'+x^-]+|[0-9万亿千百½¼¾]|[0-9]\s?\^\{?-?|[±√~]|\\pm\s?|-)\Z"
)
_OPEN_BEFORE = re.compile(r"(?:\}\{|\\(?:overline|dot|bar)\s?\{?|\\sqrt(?:\[[^\]]*\])?\s?\{?)\Z")
_ONE_GROUP, _GROUP = re.compile(r"(?:\A|[^0-9])(?:[1-9][0-9]?|[0-9]{3}) \Z"), re.compile("[0-9]{3}(?![0-9])")
_GLUED_AFTER = re.compile(
    r"[.,:/*×·'+x^-]+[0-9({]|[‰\u0304\u0305\u0307]|\s(?:hundred|thousand|million|billion|trillion)\b"
    r"|[A-Za-z_]+[0-9]|[⁰¹²³⁴-⁹^]|\s?(?:π|√|\\pi|\\sqrt|±|\\pm)|[零〇一二两三四五六七八九十]|-[A-Za-z]"
)
_UNITS = (
    "分钟|小时|公里|千米|厘米|毫米|千克|公斤|平方米|元|块|个月|个人|个|人|名|位|只|件|次|倍|天|日|周|月|年|岁|米|里|斤|克"
    "|吨|升|度|分|秒|点|页|本|辆|台|棵|条|张|对|种|道|题|支|枚|颗|朵|头|匹|间|层|杯|瓶|箱|袋|盒"
)
_STANDS_AFTER = re.compile(r"(?:\A|[\W_]|[是为得于共有约负剩余需要])\Z")
_STANDS_BEFORE = re.compile(rf"(?:{_UNITS})?(?:\Z|[^\w、]|_)")


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number. `percent` says that it was written as one: then `value` is 12 for 12 %."""

    value: Fraction
    percent: bool = False

    def __str__(self) -> str:
        return f"{self.value} %" if self.percent else str(self.value)

    def equals(self, other: Number, tolerance: float) -> bool:
        """Return whether the two differ by no more than the tolerance.

        12 % equals both 12 and 0.12, since references are written either way, but not 0.12 %. Beyond the
        tolerance only what a double cannot hold is forgiven: 1/3 equals 0.3333333333333333.
        """
        readings = [self.value, self.value / 100] if self.percent and not other.percent else [self.value]
        others = [other.value, other.value / 100] if other.percent and not self.percent else [other.value]
        return any(_close(one, two, tolerance) for one in readings for two in others)


def last_number(text: str) -> Number | None:
    """Return the last number of a text; None if there is none, or if it cannot be read for certain."""
    text = _OTHER_DIGIT.sub(_ascii_digit, text.translate(_PLAIN))
    text = _LATEX_FRACTION.sub(_braced_fraction, _LATEX.sub(_latex, text))
    text = _TEN_TO.sub(_power, text)
    for match in reversed(deque(_TOKEN.finditer(text), _LOOKED_AT)):
        before, after = text[max(match.start() - _NEAR, 0) : match.start()], text[match.end() :][:_NEAR]
        if _is_name(match, before, after):
            continue
        return _read(match, before, after)
    return None


def _latex(match: re.Match[str]) -> str:
    if match[1]:
        return _LATEX_SIGNS[match[1]]
    return match[2] or ("°" if match[0].startswith("^") else "")


def _braced_fraction(match: re.Match[str]) -> str:
    """Return \\frac12 and its like as \\frac{1}{2}."""
    return r"\frac" + "".join(each if each.startswith("{") else f"{{{each}}}" for each in match.groups())


def _ascii_digit(match: re.Match[str]) -> str:
    return str(unicodedata.decimal(match[0]))


def _power(match: re.Match[str]) -> str:
    return "10^" + match[1].translate(_NOT_RAISED)


def _is_name(match: re.Match[str], before: str, after: str) -> bool:
    """Return whether its digits belong to a word, as in H2O, GPT-4, x_1, m^2, 第3 and 一定."""
    if match["numeral"]:
        return not (_STANDS_AFTER.search(before) and _STANDS_BEFORE.match(after))
    return not match["nothing"] and _PART_OF_NAME.search(before) is not None


def _read(match: re.Match[str], before: str, after: str) -> Number | None:
    if _OPEN_BEFORE.search(before) or (_ONE_GROUP.search(before) and _GROUP.match(match[0])):
        return None
    while mark := _MARKS.search(before):
        before = before[: mark.start()]
    minus = _MINUS.search(before)
    if match["nothing"] or _GLUED_AFTER.match(after) or (not minus and _GLUED_BEFORE.search(before)):
        return None
    value = _value(match)
    if value is None:
        return None
    return Number(-value if minus else value, bool(match["percent"] or match["hundredths"]))


def _value(match: re.Match[str]) -> Fraction | None:
    """Return the number without its sign; of a percentage the number before the sign."""
    if match["number"]:
        return _decimal(match["number"], match["exponent"] or "", match["scale"] or "")
    if match["numeral"] or match["hundredths"]:
        return _part(match["numeral"] or match["hundredths"])
    if match["vulgar"]:
        parts = unicodedata.normalize("NFKC", match["vulgar"]).split("\u2044")
        return _fraction(match["and_vulgar"], *parts)
    if match["below"]:
        return _fraction(match["and_below"], match["above"], match["below"])
    if match["lower"]:
        return _fraction(match["and_slash"], match["upper"], match["lower"])
    if match["bottom"] is not None:
        return _fraction(match["and_latex"], match["top"], match["bottom"])
    return _decimal("1", match["braced"] or match["power"], "")


def _decimal(digits: str, exponent: str, scale: str) -> Fraction | None:
    """Return the number; None if it is so large or small that only a mistake, or malice, writes it."""
    plain = re.sub("[,\u2009'’_]", "", digits)
    power = int(re.split(r"[eE^*{]+", exponent.removesuffix("}"))[-1] or 0)
    if len(plain) > _MOST_DIGITS or abs(power) > _MOST_EXPONENT:
        return None
    return Fraction(plain) * Fraction(10) ** power * _SCALES.get(scale.strip(), 1)


def _fraction(whole: str | None, above: str, below: str) -> Fraction | None:
    top, bottom = _part(above), _part(below)
    if top is None or not bottom:
        return None
    more = _part(whole or "0")
    if more is None or (whole and top / bottom < 0):  # 3 \frac{-1}{2} is a product
        return None
    return more + top / bottom


def _part(text: str) -> Fraction | None:
    """Return the value of plain digits, or of a Chinese numeral as judgements write them."""
    text = text.strip()
    if re.fullmatch(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?", text):
        return Fraction(text)
    if re.fullmatch(r"-?[1-9][0-9]{0,2}(?:,[0-9]{3}){1,6}", text):
        return Fraction(text.replace(",", ""))
    number = parse_term(text) if re.fullmatch(f"[{_NUMERALS}]+", text) else None
    return Fraction(number) if isinstance(number, int) else None


def _close(one: Fraction, two: Fraction, tolerance: float) -> bool:
    noise = 0 if one.denominator == two.denominator == 1 else max(abs(one), abs(two)) / 10**15
    return abs(one - two) <= max(Fraction(repr(tolerance)), noise)
