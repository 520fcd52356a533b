"""The environment that vLLM's tests run in is the one of the constraints, like the one below it."""

import os

import pytest

pytestmark = pytest.mark.vllm


@pytest.mark.skipif("TUNESMITH_NEWEST" in os.environ, reason="the newest versions are installed on purpose")
def test_what_is_installed_beside_vllm_is_what_the_constraints_say():
    from tests.unit.test_locks import installed_otherwise

    assert installed_otherwise() == {}
