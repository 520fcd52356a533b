"""What tests of every kind share."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Tests run side by side, so time says nothing. On CI the same examples each time: a run says something about
# the change and not about luck.
settings.register_profile(
    "shared",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("shared")

pytest.register_assert_rewrite(
    "tests.cluster.killing",
    "tests.cluster.world",
    "tests.integration.kills",
    "tests.support",
)

# What takes seconds to import. Every process that runs tests collects all of them.
ENGINES = ("torch", "transformers", "peft", "accelerate")
_imported: dict[str, list[str]] = {}


# Fixtures whose tests need one; others are marked by hand.
OF_ENGINES = {"libraries", "tiny_model", "s3"}


def pytest_configure(config: pytest.Config) -> None:
    """Without tests that need an engine, none can be imported: a test that lacks its mark fails."""
    if "not engine" in config.option.markexpr:
        vars(sys)["modules"].update(dict.fromkeys(ENGINES))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs an engine by the fixtures it uses, and whatever is no test of a unit."""
    units = Path(__file__).parent / "unit"
    for item in items:
        if OF_ENGINES & set(getattr(item, "fixturenames", ())) or not item.path.is_relative_to(units):
            item.add_marker("engine")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Note who imports an engine when it is collected."""
    before = set(sys.modules)
    report = yield
    if new := [name for name in ENGINES if name in sys.modules and name not in before]:
        _imported[collector.nodeid] = new
    return report


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """A level that a test leaves behind would hide what later tests of the same process look for."""
    log = logging.getLogger("tunesmith")
    before = log.level
    yield
    after, log.level = log.level, before
    assert after == before, "the test changed the level of the log"


@pytest.fixture(scope="session")
def imported_while_collecting() -> dict[str, list[str]]:
    """Engines by the test modules that imported them when they were collected."""
    return _imported


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of two layers, tokenizer and chat template; nobody writes to it."""
    from tests.fixtures.tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
