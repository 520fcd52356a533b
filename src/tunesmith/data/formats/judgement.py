"""Parse the judgement in a reply, and check it against its case.

A reply is parsed by a closed set of forms; anything else is None, never a guess. Does not depend on prompts,
models or sampling.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.data.formats.legal import NO_VIOLATIONS, LegalCase
from tunesmith.data.formats.terms import HALF_WIDTH, XT, Term, parse_term

WRONG_CHARGE, WRONG_TERM, UNPARSABLE = "wrong_charge", "wrong_term", "unparsable"
UNKNOWN_TERM = "unknown_term"

_OPEN, _CLOSE = "<answer>", "</answer>"
# Charges have names like 生产、销售伪劣产品: both sides are split alike, and their parts compared.
_SEPARATORS = re.compile("以及|[、,;和及与]")
_SAME_IN_NAMES = str.maketrans("", "", "[]【】 \t")

_NO_CHARGES = frozenset(words.translate(_SAME_IN_NAMES) for words in NO_VIOLATIONS)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of a reply: no charges and term None are "no violation".

    `charges` are parts of names, as `charge_parts` makes them; `term` is months, or XT for life and death.
    """

    charges: frozenset[str]
    term: Term | None


def parse_judgement(reply: str) -> Judgement | None:
    """Return the judgement in a reply's last `<answer>…</answer>`, else in its last line, or None."""
    charge, bar, term = _last_line(_answer(reply)).translate(HALF_WIDTH).rpartition("|")
    if not bar:
        return Judgement(frozenset(), None) if _denies(term) else None
    months = parse_term(term)
    if _denies(charge):
        return Judgement(frozenset(), None) if months == 0 else None
    charges = charge_parts([charge])
    if months is None or not charges or charges & _NO_CHARGES or _OPEN in charge:
        return None
    return Judgement(charges, months)


def charge_parts(charges: Iterable[str]) -> frozenset[str]:
    """Return the parts of the names between separators, without brackets, a final 罪 and punctuation.

    In lower case and without blanks.
    """
    plain = (charge.translate(HALF_WIDTH).translate(_SAME_IN_NAMES).casefold() for charge in charges)
    parts = (_without_suffix(part) for charge in plain for part in _SEPARATORS.split(charge))
    return frozenset(part for part in parts if part)


def judge(case: LegalCase, reply: str) -> str:
    """Return why a reply is not accepted; "" if charges and term are both correct.

    `unknown_term` if the case has a charge but no term: then no reply can be accepted.
    """
    judgement = parse_judgement(reply)
    if judgement is None:
        return UNPARSABLE
    if judgement.charges != charge_parts(case.charges):
        return WRONG_CHARGE
    if not case.charges:
        return ""
    if case.months is None:
        return UNKNOWN_TERM
    return "" if judgement.term == case.months else WRONG_TERM


def direction(label: str, judgement: Judgement | None) -> bool:
    """Return whether a judgement moves in the direction of a changed law; an unparsable one never does.

    Labels as in `legal.LABELS`: TU is 120 months or more, TD at most 36, NX 36 or more but not XT, original
    36 to 120. XT is not less than any term, so it counts as going up.
    """
    if judgement is None:
        return False
    term = judgement.term
    match label:
        case "NV" | "V":
            return bool(judgement.charges) == (label == "V")
        case "TU":
            return term == XT or (isinstance(term, int) and term >= 120)
        case "TD":
            return isinstance(term, int) and term <= 36
        case "XT":
            return term == XT
        case "NX":
            return isinstance(term, int) and term >= 36
        case "original":
            return isinstance(term, int) and 36 <= term <= 120
        case _:
            raise ValueError(f"unknown label {label}")


def _answer(reply: str) -> str:
    start = reply.rfind(_OPEN, 0, max(reply.rfind(_CLOSE), 0))
    if start < 0:
        return reply
    return reply[start + len(_OPEN) : reply.index(_CLOSE, start)]


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _denies(text: str) -> bool:
    return " ".join(_bare(text).casefold().split()) in NO_VIOLATIONS


def _bare(text: str) -> str:
    """Strip punctuation, symbols and white space."""
    first = next((at for at, sign in enumerate(text) if _is_inner(sign)), len(text))
    behind = next((at for at, sign in enumerate(reversed(text)) if _is_inner(sign)), 0)
    return text[first : len(text) - behind]


def _is_inner(sign: str) -> bool:
    return unicodedata.category(sign)[0] not in "PSZC"


def _without_suffix(part: str) -> str:
    return _bare(_bare(part).removesuffix("罪"))
