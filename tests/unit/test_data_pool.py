"""Processes that help: nobody waits until they have started."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.tokenizers import BY_NAME, build_backend

from tunesmith.data.tokenizer_pool import WORTH_HELP, TokenizerPool
from tunesmith.tokens.chat import ChatTokenizer

pytestmark = pytest.mark.engine


def test_this_process_works_until_others_have_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_backend(BY_NAME["chatml"]).save_pretrained(tmp_path / "model")
    pool = TokenizerPool(ChatTokenizer.load(tmp_path / "model"), 2, operator.__name__)
    may_start, start = threading.Event(), pool._start
    monkeypatch.setattr(pool, "_start", lambda source: (may_start.wait(), start(source)))

    def batches() -> Iterator[str]:
        yield from "ab"
        may_start.set()
        assert pool._starting is not None
        pool._starting.join()
        yield from "cd"

    pool.expect(WORTH_HELP)
    made = pool.ordered(batches(), "here {}".format, lambda batch: (operator.add, ("there ", batch)))
    assert [result() for _, result in made] == ["here a", "here b", "there c", "there d"]
    pool.close()
