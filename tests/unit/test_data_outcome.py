"""What a generation job says of its outcome, and what a job says whose input is empty for that reason."""

import json

import pytest

from tunesmith.api.datasets import DatasetSpec
from tunesmith.artifacts.open import find_files
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.bad_records import collect_bad
from tunesmith.data.outcome import (
    ADVICE,
    acceptance,
    nothing_accepted,
    sampled,
    too_many_failed,
    too_many_not_sampled,
)
from tunesmith.data.read import Reader
from tunesmith.errors import DataError
from tunesmith.sampling.verdict import REASONS

STATISTICS = {
    "job": "warm-up", "max_new_tokens": 32, "accepted": 0, "planned_generations": 18, "cancelled": 2,
    "reasons": {"truncated": 16},
}  # fmt: skip
NONE = "RejectionSampleJob warm-up accepted none of 16 replies (16 truncated at maxNewTokens 32); raise "


def test_counts_come_first_then_the_reasons_then_what_to_change():
    assert acceptance(STATISTICS) == "0 of 16 accepted (16 truncated)"
    assert sampled(STATISTICS).startswith("0 of 16 accepted (16 truncated); raise sampling.maxNewTokens, or")
    assert nothing_accepted(STATISTICS).startswith(NONE)
    some = {**STATISTICS, "accepted": 7, "reasons": dict(zip("abcde", (1, 3, 2, 2, 1), strict=True))}
    assert sampled(some) == "7 of 16 accepted (3 b, 2 c, 2 d, 2 for other reasons)"
    assert nothing_accepted(some) == ""
    assert sampled({**STATISTICS, "accepted": 16, "reasons": {}}) == "16 of 16 accepted"


def test_the_advice_is_that_of_the_most_frequent_reason_and_there_is_one_for_each():
    assert ADVICE.keys() == set(REASONS)
    for reason in REASONS:
        found = {**STATISTICS, "reasons": {"truncated": 1, reason: 15}}
        assert sampled(found).endswith(f"; {ADVICE[reason]}"), reason


def message(folder):
    dataset = DatasetSpec(uri=folder.as_uri(), sampled={})
    reader = Reader(*find_files(folder.as_uri(), StorageOptions()), dataset)
    with pytest.raises(DataError) as refused:
        list(collect_bad(reader.items(), 5))
    return refused.value.message


def test_an_empty_output_of_another_job_is_refused_with_that_jobs_reason(tmp_path):
    """The file itself is given, as `fromJob` does, or a folder; statistics that say nothing do no harm."""
    output = tmp_path / "out"
    output.mkdir()
    data, statistics = output / "sampled_data.json", output / "sampling_stats.json"
    data.write_text("[]\n")
    assert message(data) == "sampled_data.json: the file has no records. It needs at least one record."
    for useless in ("{", "[1]", '{"accepted": 0}', json.dumps({**STATISTICS, "accepted": 3})):
        statistics.write_text(useless)
        assert message(data).startswith("sampled_data.json: the file has no records"), useless
    statistics.write_text(json.dumps(STATISTICS))
    assert message(data).startswith(f"sampled_data.json: {NONE}")
    assert "maxBadRecords" not in message(data)
    messages = output / "messages.jsonl"
    messages.write_text("")
    stats = {"dialogues": {"finished": 0, "planned": 5, "reasons": {"rate_limited": 5}}}
    (output / "stats.json").write_text(json.dumps(stats))
    assert "The DialogueGenJob finished none of 5 dialogues (5 rate_limited); see failed.jsonl" in message(
        messages
    )


def test_files_without_a_record_are_named_and_not_called_unreadable(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.jsonl").write_text("\n")
    assert message(tmp_path) == (
        "2 files have no records, and each needs at least one:\n"
        "a.json: the file has no records\nb.jsonl: the file is empty"
    )
    (tmp_path / "c.jsonl").write_text('{"response": ""}\n')
    said = message(tmp_path).split("\n")
    assert said[0] == "3 bad records, 5 allowed by maxBadRecords:"
    assert said[-1] == "maxBadRecords does not cover a file without a record."


@pytest.mark.parametrize(
    ("failed", "planned", "allowed", "too_many"),
    [
        (0, 0, 0.5, False),
        (0, 10, 0.0, False),
        (1, 10, 0.0, True),
        (1, 10, 0.1, False),
        (2, 10, 0.1, True),
        (5, 10, 0.5, False),
        (6, 10, 0.5, True),
        (9, 10, 1.0, False),
        (10, 10, 1.0, True),
    ],
)
def test_a_job_fails_if_more_than_a_share_has_failed_or_all(failed, planned, allowed, too_many):
    dialogues = {"failed": failed, "planned": planned, "reasons": {"blocked": failed}}
    said = too_many_failed({"dialogues": dialogues}, allowed, "s1, answer of round 2: No.")
    assert bool(said) == too_many
    assert not said or ": No. Every reply" in said
    assert said == too_many_failed({"dialogues": dialogues}, allowed, "s1, answer of round 2: No")
    prompts = {
        "prompts_not_sampled": failed,
        "total_prompts": planned,
        "reasons": {"prompt_too_long": failed},
    }
    assert bool(too_many_not_sampled(prompts, allowed)) == too_many
    if too_many:
        assert said.startswith(f"{failed} of {planned} dialogues failed ({failed} blocked)")
        assert "s1, answer of round 2: No." in said
        assert too_many_not_sampled(prompts, allowed).startswith(f"{failed} of {planned} prompts")
