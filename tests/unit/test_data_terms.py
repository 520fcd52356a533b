from tunesmith.data.formats.judgement import Judgement, judge, parse_judgement, parse_term
from tunesmith.data.formats.legal import LegalCase, case_from

THEFT = frozenset({"盗窃"})
TERMS = {
    "18月": 18,
    "18个月": 18,
    "3年6月": 42,
    "三年六月": 42,
    "3年半": 42,
    "一年半": 18,
    "半年": 6,
    "一年又六个月": 18,
    "有期徒刑18个月": 18,
    "有期徒刑三年六个月": 42,
    "有期徒刑 3 年 6 个月": 42,
    "有期徒刑３年": 36,
    "有期徒刑十年零六个月": 126,
    "判处有期徒刑八个月": 8,
    "判处有期徒刑一年二个月": 14,
    "处拘役四个月": 4,
    "决定执行有期徒刑五年": 60,
    "拘役3个月": 3,
    "拘役三个月": 3,
    "管制六个月": 6,
    "管制一年": 12,
    "有期徒刑三年，缓刑四年": 36,
    "有期徒刑三年,缓刑四年": 36,
    "有期徒刑一年，宣告缓刑一年六个月": 12,
    "三年（缓刑四年）": 36,
    "拘役五个月，缓刑": 5,
    "18，并处罚金": 18,
    "18, 并处罚金": 18,
    "18（并处罚金5000元）": 18,
    "18 并处罚金人民币5,000元": 18,
    "18，罚金2万元": 18,
    "18个月，并处罚金人民币五千元。": 18,
    "六个月，并处罚款壹仟元整": 6,
    "有期徒刑三年，缓刑四年，并处罚金人民币1.5万元": 36,
    "有期徒刑十二年，剥夺政治权利二年，并处没收个人财产十万元": 144,
    "XT，剥夺政治权利终身": "XT",
    "无期徒刑，剥夺政治权利终身，并处没收个人全部财产": "XT",
    "判处死刑": "XT",
    "死缓": "XT",
    "死刑，缓期二年执行": "XT",
    "死刑缓期2年执行，剥夺政治权利终身": "XT",
    "18 months": 18,
    "1 month": 1,
    "3 years": 36,
    "3 years 6 months": 42,
    "3 years and 6 months": 42,
    "1 year, 2 months": 14,
    "18 months' imprisonment": 18,
    "18 months in prison": 18,
    "Imprisonment of 18 months": 18,
    "18 months and a fine": 18,
    "18 months, and a fine of RMB 5,000": 18,
    "life imprisonment": "XT",
    "Death penalty": "XT",
}
NO_TERMS = [
    "有期徒刑",
    "有期徒刑18",  # months or years?
    "有期徒刑3",
    "拘役3",
    "拘役十五日",
    "有期徒刑无期",
    "有期徒刑三年至五年",
    "有期徒刑三年以下",
    "三年以上",
    "有期徒刑三年或拘役",
    "有期徒刑三年，拘役三个月",
    "有期徒刑约三年",
    "有期徒刑3年12个月",
    "有期徒刑3年18月",
    "2018年6月",
    "一个半月",
    "三年半六个月",
    "缓刑四年",
    "缓刑",
    "罚金5000元",
    "并处罚金",
    "单处罚金",
    "18，或单处罚金",
    "18，并处罚金，24",
    "18，24",
    "18 36",
    "18，并处",
    "18，缓刑四",
    "免予刑事处罚",
    "nv",
    "18 days",
    "3 to 5 years",
    "3 years or a fine",
    "up to 18 months",
    "3 years 12 months",
    "eighteen months",
    "life",
    "a fine",
]


def test_a_term_with_its_kind_and_what_is_beside_it():
    wrong = [f"{text}: {parse_term(text)}" for text, months in TERMS.items() if parse_term(text) != months]
    for text, months in TERMS.items():
        reply = f"理由。\n盗窃罪 | {text}"
        if parse_judgement(reply) != Judgement(THEFT, months):
            wrong.append(f"{reply!r}: {parse_judgement(reply)}")
    assert not wrong


def test_what_may_mean_something_else_is_no_term():
    wrong = [f"{text}: {parse_term(text)}" for text in NO_TERMS if parse_term(text) is not None]
    wrong += [text for text in NO_TERMS if parse_judgement(f"盗窃罪 | {text}") is not None]
    assert not wrong


def test_nv_is_no_violation():
    replies = ["NV", "NV。", "**NV**", "nv", "<answer>NV</answer>", "NV | 0", "理由。\nNV"]
    assert [r for r in replies if parse_judgement(r) != Judgement(frozenset(), None)] == []
    unparsable = ["NV | 18", "NV | XT", "NV、盗窃 | 18", "盗窃 | NV", "NV | "]
    assert [r for r in unparsable if parse_judgement(r) is not None] == []
    case = case_from({"fact": "f", "relevant_articles": ["1"], "charge": "NV", "prison_time": 0})
    assert case.charges == frozenset()
    assert judge(case, "NV") == ""
    assert judge(LegalCase("f", (), THEFT, 18), "NV") == "wrong_charge"


def test_a_long_text_costs_little():
    pieces = ["，缓刑四年", "，并处罚金", "有期徒刑", "18，", "9", "三年", "罚金5", "a fine of ", " 元", "一"]
    for piece in pieces:
        assert parse_term(f"18{piece * 100_000}") is None
        parse_term(f"18{piece * 60}")
