from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.data.formats.judgement import (
    Judgement,
    charge_parts,
    direction,
    judge,
    parse_judgement,
    parse_term,
)
from tunesmith.data.formats.legal import LABELS, LegalCase

THEFT = frozenset({"盗窃"})
BOTH = frozenset({"盗窃", "诈骗"})
NONE = Judgement(frozenset(), None)
DRUGS = "走私、贩卖、运输、制造毒品"


def full_width(text):
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


CHARGES = {
    "盗窃": THEFT,
    "盗窃罪": THEFT,
    " 盗窃罪 ": THEFT,
    "**盗窃罪**": THEFT,
    "《盗窃罪》": THEFT,
    "偷盗罪": frozenset({"偷盗"}),
    "“盗窃”": THEFT,
    "- 盗窃罪：": THEFT,
    "| 盗窃": THEFT,
    "[盗窃]罪": THEFT,
    "盗窃罪、诈骗罪": BOTH,
    "诈骗，盗窃": BOTH,
    "诈骗罪,盗窃罪": BOTH,
    "盗窃；诈骗罪": BOTH,
    "盗窃;诈骗": BOTH,
    "盗窃罪和诈骗罪": BOTH,
    "盗窃罪以及诈骗罪": BOTH,
    "盗窃罪及诈骗罪": BOTH,
    "盗窃、诈骗、盗窃": BOTH,
}
TERMS = {
    "0": 0,
    "18": 18,
    "018": 18,
    "120": 120,
    "１８": 18,
    "18个月": 18,
    "18 个月": 18,
    "１８个月": 18,
    "十八": 18,
    "十八个月": 18,
    "一百二十个月": 120,
    "三个月": 3,
    "两个月": 2,
    "一百零八个月": 108,
    "3年": 36,
    "３年": 36,
    "三年": 36,
    "两年": 24,
    "十年": 120,
    "二十五年": 300,
    "3 年": 36,
    "3年6个月": 42,
    "3 年 6 个月": 42,
    "三年六个月": 42,
    "三年零六个月": 42,
    "3年零6个月": 42,
    "3年六个月": 42,
    "十二年十一个月": 155,
    "XT": "XT",
    "ＸＴ": "XT",
    "无期徒刑": "XT",
    "死刑": "XT",
    "18。": 18,
    "18.": 18,
    "**18**": 18,
    "“3年”。": 36,
    "18个月；": 18,
    "XT。": "XT",
}
SHAPES = [
    "{}",
    "{}\n\n",
    "分析。\n\n{}",
    "先看 a | 1\n{}",
    "<answer>{}</answer>",
    "<answer>\n{}\n</answer>\n以上。",
    "<answer>抢劫 | 99</answer>\n<answer>{}</answer>",
    "想想</think>\n<answer>{}</answer>",
    "分析：…\r\n{}\r\n",
]
TABLE = [
    pytest.param(
        shape.format(f"{charge}{bar}{term}"),
        Judgement(CHARGES[charge], TERMS[term]),
        id=f"{number}-{charge}{bar}{term}",
    )
    for number, (charge, term) in enumerate(product(CHARGES, TERMS))
    for shape, bar in [(SHAPES[number % len(SHAPES)], (" | ", "|", "｜")[number % 3])]
]


@each(("reply", "expected"), TABLE)
def test_replies_that_can_be_read(reply, expected):
    assert parse_judgement(reply) == expected


@each("shape", SHAPES)
@each(
    "words",
    [
        "不违规",
        "不违规。",
        "**不违规**",
        " 不违规 ",
        "不违规 | 0",
        "不违规｜０个月",
        "No violation.",
        "**no  violation**",
    ],
)
def test_no_violation(shape, words):
    assert parse_judgement(shape.format(words)) == NONE


@each(("term", "months"), TERMS.items(), ids=TERMS)
def test_a_term_alone(term, months):
    assert parse_term(f" {term} ") == months


NOT_A_TERM = [
    "",
    " ",
    "-18",
    "+18",
    "~18",
    "约18",
    "18?",
    "18？",
    "1.5",
    ".5",
    "18..",
    "18…",
    "18%",
    "3-5年",
    "36至60",
    "3,6",
    "1 8",
    "3年12个月",
    "3年36个月",
    "3年18个月",
    "三年 36",
    "3年（36个月）",
    "0x12",
    "1e2",
    "²",
    "1²",
    "1٣",
    "①",
    "Ⅲ",
    "٣",
    "१८",
    "一百二",
    "三六",
    "一二〇",
    "十十",
    "百",
    "零六",
    "二零",
    "一千",
    "廿",
    "十八个",
    "八十年代",
    "缓刑",
    "罚金",
    "xt",
    "无期",
    "无期徒刑或死刑",
    "XT 或 120",
    "XTXT",
    "1234567",
    "9" * 5000,
    "18个月个月",
    "life",
    "18 | ",
    "年",
    "个月",
    "<18",
    "18</answer>",
    "十 八",
]


@each("term", NOT_A_TERM, ids=lambda term: term[:20] or "empty")
def test_a_term_in_any_other_form_is_no_guess(term):
    assert parse_term(term) is None
    assert parse_judgement(f"盗窃罪 | {term}") is None


UNPARSABLE = {
    "empty": "",
    "blank": " \n\t\n",
    "no-bar": "盗窃罪 18",
    "only-charge": "盗窃罪",
    "no-charge": " | 18",
    "only-suffix": "罪 | 18",
    "only-marks": "《》、。 | 18",
    "bar-at-the-end": "| 盗窃 | 18 |",
    "sentence-after": "盗窃罪 | 18\n以上是我的判断。",
    "no-violation-in-a-sentence": "我认为不违规",
    "no-violation-with-a-term": "不违规 | 18",
    "no-violation-with-xt": "不违规 | XT",
    "no-violation-without-term": "不违规 | ",
    "no-violation-and-charge": "不违规、盗窃 | 18",
    "no-violation-and-charge-in-english": "no violation, theft | 18",
    "no-violation-in-an-english-sentence": "There was no violation",
    "empty-answer": "盗窃 | 18\n<answer></answer>",
    "last-answer-is-bad": "<answer>盗窃 | 18</answer><answer>不知道</answer>",
    "tag-not-closed": "<answer>盗窃 | 18",
    "tag-not-opened": "盗窃 | 18</answer>",
    "full-width-tags": "＜answer＞盗窃 | 18＜/answer＞",
}


@each("reply", UNPARSABLE.values(), ids=UNPARSABLE)
def test_what_cannot_be_read(reply):
    assert parse_judgement(reply) is None


LAST = {
    "last-bar": ("盗窃 | 3年 | 36", Judgement(frozenset({"盗窃|3年"}), 36)),
    "last-line-of-an-answer": ("<answer>想了想\n盗窃 | 18</answer>", Judgement(THEFT, 18)),
    "answer-before-the-last-line": ("<answer>盗窃 | 18</answer>\n诈骗 | 3", Judgement(THEFT, 18)),
    "opened-twice": ("<answer>诈骗 <answer>盗窃 | 18</answer>", Judgement(THEFT, 18)),
    "closed-twice": ("<answer>盗窃 | 18</answer></answer>", Judgement(THEFT, 18)),
    "opened-again": ("<answer>盗窃 | 18</answer><answer>", Judgement(THEFT, 18)),
}


@pytest.mark.parametrize(("reply", "expected"), LAST.values(), ids=LAST)
def test_which_part_of_a_reply_counts(reply, expected):
    assert parse_judgement(reply) == expected


def case(*charges, months=18):
    return LegalCase("f", (), frozenset(charges), months)


JUDGED = {
    "right": (case("盗窃罪"), "盗窃 | 18", ""),
    "right-without-suffix": (case("盗窃"), "盗窃罪 | 1年6个月", ""),
    "term": (case("盗窃"), "盗窃 | 19", "wrong_term"),
    "charge": (case("盗窃"), "诈骗 | 18", "wrong_charge"),
    "charge-and-term": (case("盗窃"), "诈骗 | 19", "wrong_charge"),
    "longer-charge": (case("盗窃"), "盗窃枪支 | 18", "wrong_charge"),
    "unparsable": (case("盗窃"), "盗窃 | 约18", "unparsable"),
    "set": (case("盗窃罪", "诈骗罪"), "诈骗、盗窃 | 18", ""),
    "set-in-one-text": (case("盗窃罪、诈骗罪"), "诈骗、盗窃 | 18", ""),
    "set-too-small": (case("盗窃", "诈骗"), "盗窃 | 18", "wrong_charge"),
    "set-too-large": (case("盗窃"), "盗窃、诈骗 | 18", "wrong_charge"),
    "name-with-commas": (case(DRUGS), f"{DRUGS}罪 | 18", ""),
    "name-with-brackets": (case(DRUGS), "[走私、贩卖、运输、制造]毒品罪 | 18", ""),
    "part-of-a-name": (case(DRUGS), "贩卖毒品罪 | 18", "wrong_charge"),
    "names-with-commas": (
        case(DRUGS, "非法持有、私藏枪支、弹药"),
        f"非法持有、私藏枪支、弹药罪，{DRUGS}罪 | 18",
        "",
    ),
    "life": (case("盗窃", months="XT"), "盗窃 | XT", ""),
    "life-word": (case("盗窃", months="XT"), "盗窃 | 无期徒刑", ""),
    "life-as-a-term": (case("盗窃", months="XT"), "盗窃 | 180", "wrong_term"),
    "term-as-life": (case("盗窃"), "盗窃 | XT", "wrong_term"),
    "zero": (case("盗窃", months=0), "盗窃 | 0", ""),
    "none": (case(), "不违规", ""),
    "none-with-months": (case(months=0), "不违规", ""),
    "none-charged": (case(), "盗窃 | 18", "wrong_charge"),
    "charged-none": (case("盗窃"), "不违规", "wrong_charge"),
    "charged-none-zero": (case("盗窃", months=0), "不违规 | 0", "wrong_charge"),
    "unknown-term": (case("盗窃", months=None), "盗窃 | 18", "unknown_term"),
    "unknown-term-none": (case("盗窃", months=None), "不违规", "wrong_charge"),
    "charge-of-marks-only": (case("罪", months=None), "不违规", "unknown_term"),
}


@each(("case", "reply", "reason"), JUDGED.values(), ids=JUDGED)
def test_judging(case, reply, reason):
    assert judge(case, reply) == reason


THERE = {
    "NV": {"none"},
    "V": {"0", "35", "36", "37", "119", "120", "121", "XT"},
    "TU": {"120", "121", "XT"},
    "TD": {"0", "35", "36"},
    "XT": {"XT"},
    "NX": {"36", "37", "119", "120", "121"},
    "original": {"36", "37", "119", "120"},
}


@each("decided", ["unparsable", "none", "0", "35", "36", "37", "119", "120", "121", "XT"])
@each("label", LABELS)
def test_directions(label, decided):
    reply = {"none": "不违规", "unparsable": "?"}.get(decided, f"盗窃 | {decided}")
    assert direction(label, parse_judgement(reply)) == (decided in THERE[label])


def test_an_unknown_direction():
    with pytest.raises(ValueError, match="unknown label UP"):
        direction("UP", NONE)


DIGITS = "零一二三四五六七八九"


def written(number):
    """Chinese numerals of 0 to 999, written with every unit."""
    hundreds, tens, ones = number // 100, number // 10 % 10, number % 10
    text = f"{DIGITS[hundreds]}百" if hundreds else ""
    text += f"{DIGITS[tens]}十" if tens else ("零" if hundreds and ones else "")
    text += DIGITS[ones] if ones or not number else ""
    return text.removeprefix("一") if 10 <= number < 20 else text


def test_every_chinese_numeral_there_and_back():
    assert [parse_term(written(number) + "个月") for number in range(1000)] == list(range(1000))
    assert [parse_term(written(number) + "年") for number in range(1000)] == [12 * n for n in range(1000)]


NAMES = st.sampled_from(
    ["盗窃", "诈骗", DRUGS, "非法持有、私藏枪支、弹药", "故意伤害", "掩饰、隐瞒犯罪所得、犯罪所得收益"]
)


@given(
    st.lists(NAMES, min_size=1, max_size=3, unique=True),
    st.integers(0, 400) | st.just("XT"),
    st.sampled_from(["、", "，", ",", "；", "和"]),
    st.sampled_from(["罪", ""]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.text(alphabet="分析 甲乙。\n|", max_size=30),
)
def test_a_rendered_answer_is_read_back(names, months, comma, suffix, wide, years, tagged, before):
    term = str(months)
    if years and months != "XT":
        term = f"{months // 12}年{months % 12}个月"
    answer = comma.join(name + suffix for name in names) + " | " + term
    answer = full_width(answer) if wide else answer
    reply = before + (f"<answer>{answer}</answer>" if tagged else f"\n{answer}")
    assert parse_judgement(reply) == Judgement(charge_parts(names), months)
    assert judge(LegalCase("f", (), frozenset(names), months), reply) == ""


PIECES = [
    "<answer>",
    "</answer>",
    "|",
    "｜",
    "盗窃",
    "罪",
    "、",
    "不违规",
    "18",
    "十八",
    "三年",
    "零",
    "个月",
    "XT",
    "\n",
    " ",
    "。",
    "<",
    "*",
    "死刑",
    "9" * 10,
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join))
def test_nothing_makes_it_raise(reply):
    judgement = parse_judgement(reply)
    assert judge(case("盗窃"), reply) in ("", "wrong_charge", "wrong_term", "unparsable")
    if judgement is not None:
        assert (judgement.term is None) == (not judgement.charges)
        assert all(part.strip() for part in judgement.charges)


@pytest.mark.timeout(60)  # minutes if it were quadratic
@pytest.mark.parametrize(
    "piece", ["。", "|", "<answer>", "</answer>", " ", "零", "9", "、", "\n", "罪", "一百"]
)
def test_a_long_reply_costs_little(piece):
    parse_judgement(piece * 200_000)
    parse_judgement(f"盗窃 | {piece * 200_000}")
