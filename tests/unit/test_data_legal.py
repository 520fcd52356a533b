import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.data.formats.legal import LegalCase, articles_from, case_from, prompt_messages, whole_number
from tunesmith.data.record import RecordProblem

ARTICLES = {"354-0-0": "容留他人吸毒的。", "264": "盗窃公私财物的。"}
LAWSHIFT = {
    "fact": "甲在家中。",
    "relevant_articles": ["354-0-0"],
    "charge": "容留他人吸毒罪",
    "prison_time": 9,
}


def cail(articles=(264,), charges=("盗窃",), **term):
    return {
        "fact": "甲在家中。",
        "meta": {
            "relevant_articles": list(articles),
            "accusation": list(charges),
            "term_of_imprisonment": {
                "imprisonment": 9,
                "death_penalty": False,
                "life_imprisonment": False,
                **term,
            },
        },
    }


ARTICLE_FILES = {
    "object": ({"354": "a", " 264 ": " b\n"}, {"354": "a", "264": "b"}),
    "list": ([{"id": "354", "content": "a"}, {"id": 264, "content": "b"}], {"354": "a", "264": "b"}),
    "twice-alike": ([{"id": "1", "content": "a"}, {"id": 1, "content": "a "}], {"1": "a"}),
    "more-fields": ([{"id": "1", "content": "a", "title": "t"}], {"1": "a"}),
}


@pytest.mark.parametrize(("value", "expected"), ARTICLE_FILES.values(), ids=ARTICLE_FILES)
def test_articles(value, expected):
    assert articles_from(value) == expected


BAD_ARTICLES = {
    "text": ("a", "the articles are a string; a list or an object is required"),
    "null": (None, "the articles are null; a list or an object is required"),
    "empty-object": ({}, "the file of articles has no articles"),
    "empty-list": ([], "the file of articles has no articles"),
    "number": ({"354": 1}, "article 354 is a number, not text"),
    "blank": ({"354": " "}, "article 354 is empty"),
    "null-text": ({"354": None}, "article 354 is missing"),
    "blank-id": ({" ": "a"}, "article   has an empty id"),
    "twice": (
        [{"id": "354", "content": "a"}, {"id": 354, "content": "b"}],
        "article 354 is repeated with a different text",
    ),
    "twice-object": ({"354": "a", "354 ": "b"}, "article 354 is repeated with a different text"),
    "not-objects": (["a"], "articles[0] is a string, not an object with id and content"),
    "no-id": ([{"content": "a"}], "articles[0].id is missing"),
    "list-id": ([{"id": [], "content": "a"}], "articles[0].id is a list, not an article's id"),
    "true-id": ([{"id": True, "content": "a"}], "articles[0].id is true or false, not an article's id"),
    "empty-id": ([{"id": "", "content": "a"}], "articles[0].id is empty"),
    "no-content": ([{"id": "1"}], "articles[0].content is missing"),
}


@each(("value", "reason"), BAD_ARTICLES.values(), ids=BAD_ARTICLES)
def test_articles_that_cannot_be_used(value, reason):
    with pytest.raises(RecordProblem) as problem:
        articles_from(value)
    assert problem.value.message == reason


def case(charges=("容留他人吸毒罪",), months=9, articles=("354-0-0",), label=None):
    return LegalCase("甲在家中。", tuple(articles), frozenset(charges), months, label)


DRUGS = "[走私、贩卖、运输、制造]毒品"
CASES = {
    "lawshift": (LAWSHIFT, case()),
    "articles-once-in-order": (
        {**LAWSHIFT, "relevant_articles": ["9", "354-0-0", 9]},
        case(articles=("9", "354-0-0")),
    ),
    "no-articles": ({**LAWSHIFT, "relevant_articles": []}, case(articles=())),
    "charge-missing": ({"fact": "甲在家中。", "relevant_articles": ["354-0-0"]}, case((), None)),
    "charge-null": ({**LAWSHIFT, "charge": None, "prison_time": None}, case((), None)),
    "charge-blank": ({**LAWSHIFT, "charge": " ", "prison_time": 0}, case((), 0)),
    "charge-no-violation": ({**LAWSHIFT, "charge": "不违规"}, case(())),
    "charge-no-violation-in-english": ({**LAWSHIFT, "charge": "No violation"}, case(())),
    "charge-list": ({**LAWSHIFT, "charge": ["盗窃罪", "诈骗罪"]}, case(("盗窃罪", "诈骗罪"))),
    "charge-brackets": ({**LAWSHIFT, "charge": DRUGS}, case(("走私、贩卖、运输、制造毒品",))),
    "life": ({**LAWSHIFT, "prison_time": 10000}, case(months="XT")),
    "death": ({**LAWSHIFT, "prison_time": 10001}, case(months="XT")),
    "beside-life": ({**LAWSHIFT, "prison_time": 9999}, case(months=9999)),
    "life-word": ({**LAWSHIFT, "prison_time": "无期徒刑"}, case(months="XT")),
    "xt": ({**LAWSHIFT, "prison_time": "XT"}, case(months="XT")),
    "life-digits": ({**LAWSHIFT, "prison_time": "10000"}, case(months="XT")),
    "term-digits": ({**LAWSHIFT, "prison_time": " 9 "}, case()),
    "term-float": ({**LAWSHIFT, "prison_time": 9.0}, case()),
    "term-zero": ({**LAWSHIFT, "prison_time": 0}, case(months=0)),
    "term-blank": ({**LAWSHIFT, "prison_time": ""}, case(months=None)),
    "label": ({**LAWSHIFT, "label": "TU"}, case(label="TU")),
    "label-blank": ({**LAWSHIFT, "label": ""}, case()),
    "cail": (cail(), case(("盗窃",), articles=("264",))),
    "cail-brackets": (cail(charges=[DRUGS]), case(("走私、贩卖、运输、制造毒品",), articles=("264",))),
    "cail-set": (cail([1, 2], ["盗窃", "诈骗", "盗窃"]), case(("盗窃", "诈骗"), articles=("1", "2"))),
    "cail-death": (cail(death_penalty=True), case(("盗窃",), "XT", ("264",))),
    "cail-life": (cail(life_imprisonment=True, imprisonment=0), case(("盗窃",), "XT", ("264",))),
    "cail-none": (cail(charges=[], imprisonment=0), case((), 0, ("264",))),
    "cail-no-months": (cail(imprisonment=None), case(("盗窃",), None, ("264",))),
    "table-row": ({**cail(), "charge": None, "prison_time": None}, case(("盗窃",), articles=("264",))),
    "row-without-meta": ({**LAWSHIFT, "meta": None}, case()),
}


@each(("record", "expected"), CASES.values(), ids=CASES)
def test_cases(record, expected):
    assert case_from(record) == expected


def test_the_files_label_is_for_records_without_one():
    assert case_from(LAWSHIFT, label="NV").label == "NV"
    assert case_from({**LAWSHIFT, "label": "V"}, label="NV").label == "V"


BAD_CASES = {
    "no-fact": ({"relevant_articles": []}, "fact is missing: the record has relevant_articles"),
    "blank-fact": ({**LAWSHIFT, "fact": "\n"}, "fact is empty"),
    "list-fact": ({**LAWSHIFT, "fact": []}, "fact is a list, not text"),
    "no-articles": ({"fact": "a"}, "relevant_articles is missing"),
    "text-articles": ({**LAWSHIFT, "relevant_articles": "264"}, "relevant_articles is a string, not a list"),
    "bad-article": (
        {**LAWSHIFT, "relevant_articles": ["1", 2.5]},
        "relevant_articles[1] is a number, not an article's id",
    ),
    "empty-article": ({**LAWSHIFT, "relevant_articles": [""]}, "relevant_articles[0] is empty"),
    "charge-number": ({**LAWSHIFT, "charge": 1}, "charge contains a number, not text"),
    "charge-suffix": ({**LAWSHIFT, "charge": "罪"}, 'charge is "罪", which is not a charge'),
    "charge-mark": ({**LAWSHIFT, "charge": "-"}, 'charge is "-", which is not a charge'),
    "charge-list": ({**LAWSHIFT, "charge": [["a"]]}, "charge contains a list, not text"),
    "term-negative": ({**LAWSHIFT, "prison_time": -1}, "prison_time is -1, not a whole number of 0 or more"),
    "term-half": ({**LAWSHIFT, "prison_time": 1.5}, "prison_time is 1.5, not a whole number of 0 or more"),
    "term-true": ({**LAWSHIFT, "prison_time": True}, "prison_time is True, not a whole number of 0 or more"),
    "term-text": (
        {**LAWSHIFT, "prison_time": "三年"},
        "prison_time is '三年', not a whole number of 0 or more",
    ),
    "term-wide": ({**LAWSHIFT, "prison_time": "９"}, "prison_time is '９', not a whole number of 0 or more"),
    "term-long": (
        {**LAWSHIFT, "prison_time": "9" * 5000},
        f"prison_time is '{'9' * 39}, not a whole number of 0 or more",
    ),
    "term-list": ({**LAWSHIFT, "prison_time": [1]}, "prison_time is a list, not a whole number of 0 or more"),
    "label": (
        {**LAWSHIFT, "label": "UP"},
        'label is "UP"; valid are NV, V, TU, TD, XT, NX, original',
    ),
    "meta": ({"fact": "a", "meta": []}, "meta is a list, not an object"),
    "cail-no-articles": ({"fact": "a", "meta": {}}, "meta.relevant_articles is missing"),
    "cail-accusation": (cail(charges=[1]), "meta.accusation contains a number, not text"),
    "cail-flag": (
        cail(death_penalty="no"),
        "meta.term_of_imprisonment.death_penalty is 'no', not true or false",
    ),
    "cail-months": (
        cail(imprisonment="x"),
        "meta.term_of_imprisonment.imprisonment is 'x', not a whole number of 0 or more",
    ),
    "cail-term": (
        {"fact": "a", "meta": {"relevant_articles": [1], "term_of_imprisonment": 3}},
        "meta.term_of_imprisonment is a number, not an object",
    ),
}


@each(("record", "reason"), BAD_CASES.values(), ids=BAD_CASES)
def test_a_bad_case_names_the_field(record, reason):
    with pytest.raises(RecordProblem) as problem:
        case_from(record)
    assert problem.value.message == reason


def test_the_prompt_holds_facts_articles_and_the_format():
    (message,) = prompt_messages(case(articles=("264", "354-0-0")), ARTICLES)
    assert message.role == "user"
    order = [
        "264：盗窃公私财物的。",
        "354-0-0：容留他人吸毒的。",
        "甲在家中。",
        "罪名 | 刑期",
        "XT",
        "不违规",
    ]
    places = [message.content.index(part) for part in order]
    assert places == sorted(places)
    assert "容留他人吸毒罪" not in message.content


def test_the_prompt_is_in_english_where_the_facts_are():
    found = LegalCase("Ann took a clock.", ("A1", "354-0-0"), frozenset({"theft"}), 6)
    (message,) = prompt_messages(found, {"A1": "Taking is theft.", **ARTICLES})
    order = ["A1: Taking is theft.", "354-0-0: ", "Ann took", "charge | term", "XT", "no violation"]
    places = [message.content.index(part) for part in order]
    assert places == sorted(places)
    assert "违规" not in message.content


def test_cases_of_one_article_share_the_beginning():
    one, two = (
        prompt_messages(LegalCase(fact, ("264",), frozenset()), ARTICLES)[0].content for fact in "甲乙"
    )
    assert one.split("甲")[0] == two.split("乙")[0]
    assert "盗窃公私财物的。" in one.split("甲")[0]


def test_without_articles_only_ids_are_named():
    content = prompt_messages(case(), None)[0].content
    assert "354-0-0" in content
    assert ARTICLES["354-0-0"] not in content
    assert "【法律条文】" not in prompt_messages(case(articles=()), ARTICLES)[0].content


def test_an_article_that_is_not_there():
    with pytest.raises(RecordProblem, match=r"relevant_articles names 999, which is not in the file"):
        prompt_messages(case(articles=("264", "999")), ARTICLES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(st.integers(0, 10**18))
def test_whole_numbers_in_every_form(number):
    assert whole_number(number, "n") == whole_number(str(number), "n") == number
    if number < 2**53:
        assert whole_number(float(number), "n") == number


@given(JSON)
def test_articles_are_read_or_refused(value):
    try:
        texts = articles_from(value)
    except RecordProblem:
        return
    assert all(key.strip() and text.strip() for key, text in texts.items())


@given(
    st.fixed_dictionaries(
        {"fact": JSON},
        optional=dict.fromkeys(("relevant_articles", "charge", "prison_time", "label", "meta"), JSON),
    )
)
def test_a_case_is_read_or_refused(record):
    try:
        found = case_from(record)
    except RecordProblem:
        return
    assert prompt_messages(found, None)[0].content


def test_the_old_law_is_shown_beside_the_new_one_that_counts():
    found = case(articles=("264", "354-0-0"))
    new = {key: f"改：{text}" for key, text in ARTICLES.items()}
    (message,) = prompt_messages(found, ARTICLES, new)
    heading, old, changed, *_ = message.content.split("\n\n")
    assert "只依据新法条文" in heading
    assert old.splitlines() == ["【旧法条文】", *(f"{key}：{ARTICLES[key]}" for key in found.articles)]
    assert changed.splitlines() == ["【新法条文】", *(f"{key}：{new[key]}" for key in found.articles)]
    one = prompt_messages(found, ARTICLES)[0].content
    assert message.content.rpartition("【案件事实】")[2] == one.rpartition("【案件事实】")[2]
    with pytest.raises(RecordProblem, match="264, which is not in the file of changed articles"):
        prompt_messages(found, ARTICLES, {"1": "x"})
    english = LegalCase("Bo took a bike.", ("264",), frozenset())
    text = prompt_messages(english, ARTICLES, new)[0].content
    assert "Articles as they were:\n264: " in text
    assert "Articles as they are now:\n264: 改" in text
