"""Processes that help: nobody waits until they have started."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.tokenizers import BY_NAME, build_backend

from tunesmith.data import tokenizer_pool
from tunesmith.data.tokenizer_pool import WORTH_HELP, TokenizerPool
from tunesmith.tokens.chat import ChatTokenizer

pytestmark = pytest.mark.engine


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[TokenizerPool]:
    build_backend(BY_NAME["chatml"]).save_pretrained(tmp_path / "model")
    pool = TokenizerPool(ChatTokenizer.load(tmp_path / "model"), 2, operator.__name__)
    yield pool
    pool.close()


def made(pool: TokenizerPool, batches: Iterable[str]) -> list[str]:
    results = pool.ordered(batches, "here {}".format, lambda batch: (operator.add, ("there ", batch)))
    return [result() for _, result in results]


def test_this_process_works_until_others_have_started(
    pool: TokenizerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_start, start = threading.Event(), pool._start
    monkeypatch.setattr(pool, "_start", lambda source: (may_start.wait(), start(source)))

    def batches() -> Iterator[str]:
        yield from "ab"
        may_start.set()
        assert pool._starting is not None
        pool._starting.join()
        yield from "cd"

    pool.expect(WORTH_HELP)
    assert made(pool, batches()) == ["here a", "here b", "there c", "there d"]


def test_this_process_works_alone_where_none_can_be_started(
    pool: TokenizerPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(self: object, *_: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(tokenizer_pool.ProcessPoolExecutor, "submit", refused)
    pool.expect(WORTH_HELP)
    assert pool._starting is not None
    pool._starting.join()
    assert made(pool, "ab") == ["here a", "here b"]
    assert "none could be started: Resource temporarily unavailable" in caplog.text
