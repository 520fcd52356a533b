"""Format `legalJudgement`: articles, cases and the prompt that asks for a judgement.

Does not depend on files, nor on replies, which `judgement` checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import Fields, fields_of, named, optional_text, present, text_field
from tunesmith.data.formats.language import Language, language_of
from tunesmith.data.formats.terms import XT, Term
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message

NO_VIOLATION = "不违规"
NO_VIOLATIONS = (NO_VIOLATION, "no violation", "nv")
"""How records and replies say that the law was not broken."""
LABELS = ("NV", "V", "TU", "TD", "XT", "NX", "original")

_XT_NUMBERS = (10000, 10001)  # life and death, as LawShift writes them
_XT_WORDS = (XT, "无期徒刑", "死刑")


@dataclass(frozen=True, slots=True)
class _PromptTexts:
    """The prompt in one language."""

    task: str
    changed_task: str
    articles: str
    old_articles: str
    new_articles: str
    fact: str
    colon: str
    form: str


_WORDS: Mapping[Language, _PromptTexts] = {
    "zh": _PromptTexts(
        "请只依据下面给出的法律条文，判断案件事实中被告人的行为是否违规；如果违规，给出罪名和刑期。",
        "下面先给出旧法条文，再给出修改后的新法条文，现行有效的是新法。"
        "请只依据新法条文，判断案件事实中被告人的行为是否违规；如果违规，给出罪名和刑期。",
        "【法律条文】",
        "【旧法条文】",
        "【新法条文】",
        "【案件事实】",
        "：",
        "请先简要说明理由，最后单独用一行写出结论：\n"
        "- 违规：写“罪名 | 刑期”，刑期是以月为单位的数字，例如“盗窃罪 | 18”；有多个罪名时用“、”隔开。\n"
        f"- 无期徒刑或死刑：刑期写 {XT}，例如“故意杀人罪 | {XT}”。\n"
        f"- 不违规：只写“{NO_VIOLATION}”。",
    ),
    "en": _PromptTexts(
        "Judge by these articles alone whether the accused broke the law and, if so, give charge and term.",
        "The articles are given as they were and as they are now, after the law was changed. Judge by the "
        "changed articles alone whether the accused broke the law and, if so, give charge and term.",
        "Articles:",
        "Articles as they were:",
        "Articles as they are now:",
        "Facts:",
        ": ",
        "Say briefly why. Then write a last line, either charge | term with the term in months "
        f"(theft | 18; {XT} for life or death; commas between charges), or {NO_VIOLATIONS[1]}.",
    ),
}


@dataclass(frozen=True, slots=True)
class LegalCase:
    """One case and its correct judgement.

    `charges` are names without brackets; none means no violation. `months` is the term, XT for life and
    death, None if the record has none. `label` is the direction of a changed law, one of LABELS.
    """

    fact: str
    articles: tuple[str, ...]
    charges: frozenset[str]
    months: Term | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Laws:
    """Texts of articles by id: before a change, and after it if prompts contain both."""

    articles: Mapping[str, str]
    changed: Mapping[str, str] | None = None


def articles_from(value: object) -> dict[str, str]:
    """Return the texts by id, of `{id: text}` or `[{id, content}]`.

    Raises RecordProblem, whose message names the article.
    """
    if isinstance(value, Mapping):
        pairs = [(str(key), value[key], f"article {key}") for key in value]
    elif isinstance(value, list):
        pairs = [_article(item, f"articles[{index}]") for index, item in enumerate(value)]
    else:
        raise RecordProblem(f"the articles are {type_name(value)}; a list or an object is required")
    if not pairs:
        raise RecordProblem("the file of articles has no articles")
    texts: dict[str, str] = {}
    for key, text, name in pairs:
        _add_article(texts, key.strip(), text, name)
    return texts


def case_from(value: Mapping[str, Any], *, label: str | None = None) -> LegalCase:
    """Read a LawShift record or a CAIL2018 row; `label` is the file's, for records without their own.

    Raises RecordProblem, whose message names the field.
    """
    record = fields_of(value)
    record.know("id")
    return _case(record, label)


def _case(value: Fields, label: str | None) -> LegalCase:
    if value.get("fact") is None:
        raise RecordProblem(f"fact is missing: {present(value)}")
    fact = text_field(value, "fact")
    if not fact.strip():
        raise RecordProblem("fact is empty")
    own = (optional_text(value, "label") or "").strip() or label
    if own is not None and own not in LABELS:
        raise RecordProblem(f'label is "{own[:40]}"; valid are {", ".join(LABELS)}')
    meta = value.get("meta")
    if meta is None:
        charges, months = _charges(value.get("charge"), "charge"), _months(value.get("prison_time"))
        return LegalCase(fact, _article_ids(value, ""), charges, months, own)
    if not isinstance(meta, Mapping):
        raise RecordProblem(f"meta is {type_name(meta)}, not an object")
    meta = value.part(meta, "meta")
    charges = _charges(meta.get("accusation"), "meta.accusation")
    return LegalCase(fact, _article_ids(meta, "meta"), charges, _cail_term(meta), own)


def prompt_messages(
    case: LegalCase, articles: Mapping[str, str] | None, changed: Mapping[str, str] | None = None
) -> tuple[Message, ...]:
    """Return the question about a case, articles first, so that cases of one article share a prefix.

    In Chinese or English, like the facts. With `articles` None only their ids are given. With `changed`, the
    articles after a change of the law, both laws are given, and the case is to be judged by the new one.
    Raises RecordProblem for an id that is not among them.
    """
    words = _WORDS[language_of(case.fact)]
    if changed is None or articles is None:
        laws, task = [(words.articles, articles, "articles")], words.task
    else:
        laws, task = (
            [
                (words.old_articles, articles, "articles"),
                (words.new_articles, changed, "changed articles"),
            ],
            words.changed_task,
        )
    parts = [task, *(_law(case, words, *law) for law in laws if case.articles)]
    parts += [f"{words.fact}\n{case.fact.strip()}", words.form]
    return (Message("user", "\n\n".join(parts)),)


def _law(
    case: LegalCase, words: _PromptTexts, heading: str, texts: Mapping[str, str] | None, name: str
) -> str:
    """Return the case's articles under a heading, each with its text or, without `texts`, only its id."""
    lines = (
        key if texts is None else key + words.colon + _text_of(texts, key, name) for key in case.articles
    )
    return "\n".join([heading, *lines])


def names_of(charges: Iterable[str], fact: str) -> str:
    """Return charges as one text, in order, or the phrase for none, in the language of the facts."""
    chinese = language_of(fact) == "zh"
    return ("、" if chinese else ", ").join(sorted(charges)) or NO_VIOLATIONS[not chinese]


def whole_number(value: object, name: str) -> int:
    """Return a whole number of 0 or more; also 3.0 (as tables write whole columns) and digits in a string."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value) < 20:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RecordProblem(f"{name} is {_short(value)}, not a whole number of 0 or more")
    return value


def _article(item: object, name: str) -> tuple[str, Any, str]:
    if not isinstance(item, Mapping):
        raise RecordProblem(f"{name} is {type_name(item)}, not an object with id and content")
    if item.get("id") is None:
        raise RecordProblem(f"{name}.id is missing")
    return _article_id(item["id"], f"{name}.id"), item.get("content"), f"{name}.content"


def _add_article(texts: dict[str, str], key: str, text: object, name: str) -> None:
    if not key:
        raise RecordProblem(f"{name} has an empty id")
    if text is None:
        raise RecordProblem(f"{name} is missing")
    if not isinstance(text, str):
        raise RecordProblem(f"{name} is {type_name(text)}, not text")
    if not text.strip():
        raise RecordProblem(f"{name} is empty")
    if texts.setdefault(key, text.strip()) != text.strip():
        raise RecordProblem(f"article {key} is repeated with a different text")


def _text_of(articles: Mapping[str, str], key: str, name: str) -> str:
    if key not in articles:
        raise RecordProblem(f"relevant_articles names {key}, which is not in the file of {name}")
    return articles[key]


def _article_id(given: object, name: str) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise RecordProblem(f"{name} is {type_name(given)}, not an article's id")
    if not str(given).strip():
        raise RecordProblem(f"{name} is empty")
    return str(given).strip()


def _article_ids(value: Mapping[str, Any], inside: str) -> tuple[str, ...]:
    """Return the ids in order, each once."""
    name, given = named("relevant_articles", inside), value.get("relevant_articles")
    if given is None:
        raise RecordProblem(f"{name} is missing")
    if not isinstance(given, list):
        raise RecordProblem(f"{name} is {type_name(given)}, not a list")
    return tuple(dict.fromkeys(_article_id(item, f"{name}[{index}]") for index, item in enumerate(given)))


def _charges(given: object, name: str) -> frozenset[str]:
    """Return the charges; None, blank and NO_VIOLATIONS are none. A text is one name, commas included."""
    listed = given if isinstance(given, list) else [given]
    names = (charge for charge in _charge_names(listed, name) if charge)
    return frozenset(charge for charge in names if charge.casefold() not in NO_VIOLATIONS)


def _charge_names(listed: list[Any], name: str) -> Iterator[str]:
    for charge in listed:
        if charge is not None and not isinstance(charge, str):
            raise RecordProblem(f"{name} contains {type_name(charge)}, not text")
        plain = (charge or "").replace("[", "").replace("]", "").strip()
        if plain and not any(sign.isalnum() for sign in plain.removesuffix("罪")):
            raise RecordProblem(f'{name} is "{plain[:40]}", which is not a charge')
        yield plain


def _months(given: object) -> Term | None:
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    if isinstance(given, str) and given.strip() in _XT_WORDS:
        return XT
    months = whole_number(given, "prison_time")
    return XT if months in _XT_NUMBERS else months


def _cail_term(meta: Fields) -> Term | None:
    name, term = "meta.term_of_imprisonment", meta.get("term_of_imprisonment")
    if term is None:
        return None
    if not isinstance(term, Mapping):
        raise RecordProblem(f"{name} is {type_name(term)}, not an object")
    meta.part(term, name).know("imprisonment", "death_penalty", "life_imprisonment")
    for field in ("death_penalty", "life_imprisonment"):
        if not isinstance(term.get(field), bool | None):
            raise RecordProblem(f"{name}.{field} is {_short(term[field])}, not true or false")
        if term.get(field):
            return XT
    months = term.get("imprisonment")
    return None if months is None else whole_number(months, f"{name}.imprisonment")


def _short(value: object) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float) else type_name(value)
