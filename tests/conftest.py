"""What tests of every kind share."""

from __future__ import annotations

import os
from pathlib import Path

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

pytest.register_assert_rewrite("tests.integration.kills", "tests.support")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of two layers, tokenizer and chat template; nobody writes to it."""
    from tests.fixtures.tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
