"""Samples longer than the model has positions for, and what `maxLength` means where it is absent."""

import pytest
from tests.cases import each
from tests.fixtures.steps import small_spec
from tests.support import write_jsonl

from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.lengths import longest_sample
from tunesmith.errors import DataError

TALK = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is a lamp."}]


def chat(turns):
    return {"messages": TALK * turns}


@pytest.fixture
def make(tmp_path):
    from tests.fixtures.tokenizers import load_family

    from tunesmith.data.prepare import prepare

    def made(records, fmt="chat", asked=None, **options):
        name = f"{len(list(tmp_path.iterdir()))}"
        data = write_jsonl(tmp_path / f"{name}.jsonl", records)
        spec = small_spec({"maxLength": asked}, datasets=[{"uri": f"file://{data}", fmt: {}}])
        return prepare(spec, load_family("chatml"), StorageOptions(), tmp_path / f"out-{name}", **options)

    return made


@each("asked, positions, longest", [
    (None, None, 4096), (None, 2048, 2048), (None, 131072, 4096), (512, 2048, 512), (8192, 2048, 8192),
])  # fmt: skip
def test_how_long_samples_are(asked, positions, longest):
    assert longest_sample(asked, positions) == longest


@pytest.mark.engine
def test_a_sample_beyond_the_positions_is_a_bad_record(make):
    for fmt, record in (("chat", chat(40)), ("text", {"text": "It is a lamp. " * 200})):
        with pytest.raises(DataError) as caught:
            make([record], fmt, asked=1000, positions=300)
        assert "longer than the model's 300 positions (max_position_embeddings" in str(caught.value)
        assert "Lower maxLength from 1000 to 300 or less" in str(caught.value)
        assert ".jsonl, line 1: " in str(caught.value)


@pytest.mark.engine
def test_a_shorter_limit_is_for_cutting(make):
    for asked in (None, 300):
        prepared = make([chat(40)], asked=asked, positions=300)
        assert 250 < max(prepared.train.lengths) <= 300, asked


@pytest.mark.engine
def test_without_positions_nothing_is_refused(make):
    assert max(make([chat(40)], asked=100_000).train.lengths) > 600
