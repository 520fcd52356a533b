import re

import pytest
from tests.fixtures.sampling_rows import Asked, row, rows
from tests.unit.test_report_finetune import HOSTILE, Page

from tunesmith.report.evaluation import evaluation_values, interval_line, reason_rows
from tunesmith.report.finetune import environment
from tunesmith.report.sampling import correct_bars, render_sampling_report, shares_by_length
from tunesmith.report.shares import between, of_all, percent
from tunesmith.sampling.models import count_models
from tunesmith.sampling.outputs import write_outputs
from tunesmith.tokens.conversation import Message

CASE = {"fact": "甲。", "relevant_articles": ["1"], "charge": "盗窃罪", "prison_time": 12}
SECTION = '{% import "evaluation.html.j2" as part with context %}{{ part.section(evaluations) }}'


def outcome(folder, letters, prompts=None, num_samples=4, **changes):
    prompts = prompts or [Asked(f"p{i}", CASE, label="TU") for i in range(len(letters))]
    found = {p.id: rows(p.id, one, **changes) for p, one in zip(prompts, letters, strict=True)}
    written = write_outputs(prompts, found.__getitem__, folder, num_samples=num_samples)
    return {"statistics": written.statistics, "examples": written.examples}


def full(folder, text="plain"):
    prompts = [Asked(f"{text} {i}", CASE, [Message("user", text)], "TU") for i in range(6)]
    details = {"details": {text: text}}
    data = outcome(
        folder, ["aacw", "aaaa", "wwte", "nnnn", "a---", "cccu"], prompts, **details, response=text
    )
    return {
        **data,
        "title": text,
        "summary": [(text, text)],
        "notes": [text],
        "config": {text: [text, 1]},
        "versions": {text: text},
    }


CASES = {
    "no-prompts": [],
    "one-right": ["aaaa"],
    "one-wrong": ["wwww"],
    "nothing-drawn": ["nnnn"],
    "all-called-off": ["----"],
    "mixed": ["aawt", "uwca", "nnnn", "a---"],
}


@pytest.mark.parametrize("letters", CASES.values(), ids=CASES)
def test_page_is_well_formed_and_asks_for_nothing_from_outside(tmp_path, letters):
    check(render_sampling_report(outcome(tmp_path, letters)))


def check(page):
    parsed = Page(page)
    assert not {"script", "img", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    for _, attrs in parsed.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "src"]
        assert re.fullmatch(r"(width|left): [0-9.]+%", attrs.get("style", "width: 0%"))
        assert (attrs.get("href") or "#").startswith(("#", "data:,"))
    assert not re.search(r"url\(|@import|https?:|nan", page.replace(HOSTILE, ""))
    return parsed


def test_links_lead_to_sections_that_are_there(tmp_path):
    parsed = Page(render_sampling_report(full(tmp_path)))
    targets = {attrs["href"][1:] for tag, attrs in parsed.tags if tag == "a"}
    assert targets == {attrs["id"] for _, attrs in parsed.tags if "id" in attrs}
    assert len(targets) == 7


def test_sections_without_values_are_left_out(tmp_path):
    page = render_sampling_report(outcome(tmp_path, ["nnnn"], [Asked("p")]))
    assert set(re.findall(r'href="#([a-z-]+)"', page)) == {"acceptance", "examples"}


def test_hostile_text_is_shown_as_text_everywhere(tmp_path):
    parsed = check(render_sampling_report(full(tmp_path, HOSTILE)))
    begin = HOSTILE.split("{{")[0]
    # title 2, summary 2, note 1, prompts 5 by id, message and replies with details (2 names and values), …
    assert parsed.text.count(begin) >= 2 + 2 + 1 + 5 * 2 + 5 * 3 + 2 + 2
    assert "49" not in parsed.text


def test_characters_that_reorder_or_break_text_are_shown_by_code(tmp_path):
    page = render_sampling_report(full(tmp_path, "a\u202eb\x00c\ud800d\x1b[31m"))
    assert "a⟨U+202E⟩b⟨U+0000⟩c?d⟨U+001B⟩[31m" in page
    page.encode("utf-8")


def test_very_long_replies_are_cut_with_a_note(tmp_path):
    text = HOSTILE + "x" * 100_000 + HOSTILE
    page = render_sampling_report(
        outcome(tmp_path, ["aw"] * 12, [Asked(f"p{i}") for i in range(12)], 2, response=text)
    )
    parsed = check(page)
    assert len(page) < 150_000
    assert f"[… {len(text) - 2500:,} characters are left out here …]" in page
    assert parsed.text.count(HOSTILE) == 2 * 12
    assert parsed.text.count(f"xxx{HOSTILE}") == 12


def test_nothing_accepted_is_what_the_page_begins_with(tmp_path):
    found = outcome(tmp_path, ["tttt", "tttt"])
    found["statistics"] |= {"job": "sums", "max_new_tokens": 32}
    text = re.sub(
        r"\s+", " ", Page(render_sampling_report({**found, "notes": ["2 records → 2 prompts"]})).text
    )
    said = [
        "0 of 8 accepted (8 truncated)",
        "RejectionSampleJob sums accepted none of 8 replies (8 truncated at maxNewTokens 32); raise",
        "2 records → 2 prompts",
    ]
    places = [text.find(sentence) for sentence in said]
    assert -1 not in places, text
    assert places == sorted(places)


def test_the_numbers_on_top(tmp_path):
    parsed = Page(render_sampling_report(outcome(tmp_path, ["aawt", "uwca", "nnnn", "a---"])))
    text = re.sub(r"\s+", " ", parsed.text)
    for shown in (
        "Prompts4",
        "Replies sampled9",
        "Replies4 of 13 accepted (4 prompt_too_long, 2 wrong_answer, 1 wrong_charge, 2 for other reasons)",
        "Acceptance rate44.4 %",
        "Accepted per prompt1.00 of 4",
        "Prompts with none accepted1 (25.0 %)",
        "(see sampling.maxNewTokens): 1.",
        "cancelled by stopAfterAccepted, which are not counted: 3.",
        "could not be sampled, since their prompts do not fit: 4.",
        "0 of 41 (25.0 %)",
        "Right is 盗窃罪 | 12",
    ):
        assert shown in text


@pytest.mark.parametrize(
    ("correct", "names"),
    [
        ([3, 1], ["0 of 1", "1 of 1"]),
        ([1, 2, 3], ["0 of 2", "1 of 2", "2 of 2"]),
        ([1] * 17, [f"{k} of 16" for k in range(17)]),
        (
            [1] * 1025,
            [f"{name} of 1024" for name in ("0", *(f"{1 + 69 * k} to {69 + 69 * k}" for k in range(14)))]
            + ["967 to 1023 of 1024", "1024 of 1024"],
        ),
        ([0], ["0 of 0"]),
    ],
)
def test_difficulty_is_shown_in_few_bars(correct, names):
    bars = correct_bars(correct)
    assert [name for name, _, _ in bars] == names
    assert sum(int(text.split(" ")[0].replace(",", "")) for _, _, text in bars) == sum(correct)
    assert all(0 <= share <= 1 for _, share, _ in bars)


def test_lengths_are_shares_of_their_own_kind():
    bins = [
        {"low": 0, "high": 9, "accepted": 1, "rejected": 0},
        {"low": 10, "high": 19, "accepted": 3, "rejected": 0},
    ]
    assert shares_by_length(bins, "accepted") == [(4.5, 25.0), (14.5, 75.0)]
    assert shares_by_length(bins, "rejected") == []


NAMES = ("base", "tuned", "third")


def evaluation(
    folder, name="test", before=("awwc", "wwww"), after=("aaaw", "wwwa"), text=None, third=None, sets=()
):
    """Two models, or three, on the same prompts; the second one is held against the others."""
    asked = [
        Asked(f"{text or ''}p{i}", CASE, [Message("user", text or "Q")], "TU", set=sets[i] if sets else "")
        for i in range(len(before))
    ]
    changes = {"response": text, "details": {text: text}} if text else {}
    sides = []
    for side, letters in zip(NAMES, (before, after, third), strict=True):
        if letters is not None:
            found = {p.id: rows(p.id, one, **changes) for p, one in zip(asked, letters, strict=True)}
            sides.append((side, found.__getitem__))
    models = [
        {"name": side, "statistics": write_outputs(asked, rows_of, folder, num_samples=4).statistics}
        for side, rows_of in sides
    ]
    return {"name": name, "models": models, "compared": count_models(asked, sides, 1)}


def section(evaluations):
    page = environment().from_string(SECTION).render(evaluations=evaluation_values(evaluations))
    return check(page)


def words(parsed):
    return re.sub(r"\s+", " ", parsed.text)


def test_an_evaluation_shows_both_models(tmp_path):
    parsed = section([evaluation(tmp_path)])
    text = words(parsed)
    assert "base12.5 %" in text
    assert "tuned50.0 %" in text
    assert "tuned against base: +37.5 points accepted" in text
    assert "2 of 2 prompts improved, 0 got worse." in text
    assert "wrong_charge10" in text.replace(" ", "")
    assert "Each two models" not in text


def test_sets_have_a_line_each_below_their_totals(tmp_path):
    """Of 62 sets and three models: totals first, then each set, and each two models."""
    count = 62
    given = {"before": ("w",), "after": ("a",), "third": ("w",)}
    made = evaluation(
        tmp_path,
        sets=[f"kind_{i % 31}/{'original' if i < 31 else 'poisoned'}" for i in range(count)],
        **{side: letters * count for side, letters in given.items()},
    )
    parsed = section([made])
    text = words(parsed)
    assert text.index("All 62 sets") < text.index("kind_0/original")
    assert sum(f"kind_{i}/{half}" in text for i in range(31) for half in ("original", "poisoned")) == count
    assert "tuned − base+100.0 (" in text
    assert "base − third+0.0 (" in text


def test_hostile_text_of_evaluations(tmp_path):
    parsed = section([evaluation(tmp_path, name=HOSTILE, text=HOSTILE, sets=(HOSTILE, HOSTILE))])
    assert parsed.text.count(HOSTILE.split("{{")[0]) >= 2 + 2 * (1 + 1 + 2 * 3)


def test_an_evaluation_that_drew_nothing(tmp_path):
    empty = evaluation(tmp_path, before=(), after=())
    unfit = evaluation(tmp_path, before=("nnnn",), after=("nnnn",))
    section([empty, unfit])


def test_reasons_of_all_models_are_listed():
    found = reason_rows([{"wrong_term": 2, "unparsable": 5}, {"truncated": 9}])
    assert [(row["reason"], row["counts"]) for row in found] == [
        ("unparsable", [5, 0]),
        ("wrong_term", [2, 0]),
        ("truncated", [0, 9]),
    ]


def test_intervals_are_drawn_in_percent_of_their_place():
    """So that marks keep their size and nothing is out of the picture, however narrow the page is."""
    for accuracy in (0.0, 0.3, 1.0):
        ends = [max(0, accuracy - 0.1), min(1, accuracy + 0.1)]
        found = {"accuracy": accuracy, "accuracy_interval": ends}
        drawn = str(interval_line(0, "base", found, "accuracy"))
        assert float(re.search(r'<circle cx="([0-9.]+)%"', drawn)[1]) == pytest.approx(100 * accuracy)
        line = re.search(r'<g class="m0"><line x1="([0-9.]+)%" x2="([0-9.]+)%"', drawn)
        assert [float(end) for end in line.groups()] == pytest.approx([100 * end for end in ends])
        assert "viewBox" not in drawn


def test_one_row_of_a_user_shows_its_reason(tmp_path):
    found = [row("p", letter="w", details={"answer": "4", "expected": {"a": [1]}})]
    data = write_outputs([Asked("p")], lambda _: found, tmp_path, num_samples=1)
    page = render_sampling_report({"statistics": data.statistics, "examples": data.examples})
    assert "rejected: wrong_answer, 10 tokens" in page
    assert "answer: 4" in page
    assert "expected: {&#39;a&#39;: [1]}" in page


def test_shares_and_intervals_as_text():
    assert [percent(share) for share in (None, 0.0, 0.61249, 1.0)] == ["–", "0.0 %", "61.2 %", "100.0 %"]
    assert [between(ends) for ends in (None, [0.571, 0.652])] == ["–", "57.1 to 65.2 %"]
    assert [of_all(1, 0), of_all(1200, 4800)] == ["1", "1,200 (25.0 %)"]
