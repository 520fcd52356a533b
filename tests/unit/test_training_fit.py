"""From settings that take much memory to settings that take less, down to one sample at a time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each
from tests.fixtures.steps import small_spec

from tunesmith.training.fit import Fit, most_offload, smaller, with_offload


def way(fit, longest, offload="none"):
    """All settings from `fit` on."""
    found = [fit]
    while (less := smaller(found[-1], longest, offload)) is not None:
        found.append(less)
    return found


def test_half_the_tokens_then_gradient_checkpointing_then_offload_then_one_sample():
    found = way(Fit(4000, 8, False, "none"), 900, "all")
    assert [(fit.tokens, fit.samples, fit.gradient_checkpointing, fit.offload) for fit in found] == [
        (4000, 8, False, "none"),
        (2000, 4, False, "none"),
        (1000, 2, False, "none"),
        (900, 1, False, "none"),
        (900, 1, True, "none"),
        (900, 1, True, "all"),
        (1, 1, True, "all"),
    ]


def test_padded_samples_are_halved_likewise_and_one_is_one():
    found = way(Fit(None, 5, False, "none"), 900)
    assert [(fit.samples, fit.gradient_checkpointing) for fit in found] == [
        (5, False),
        (3, False),
        (2, False),
        (1, False),
        (1, True),
    ]


@given(
    st.one_of(st.none(), st.integers(1, 10**6)),
    st.integers(1, 4096),
    st.booleans(),
    st.sampled_from(["none", "optimizer", "all"]),
    st.integers(1, 10**5),
    st.sampled_from(["none", "optimizer", "all"]),
)
def test_every_setting_takes_less_than_the_one_before(tokens, samples, on, offload, longest, most):
    """No setting is tried twice, none takes more than one before, and there is an end."""
    found = way(Fit(tokens, samples, on, offload), longest, most)
    assert len(set(found)) == len(found) <= 32
    amount = ["none", "optimizer", "all"].index
    for before, after in pairwise(found):
        assert after.samples <= before.samples
        assert after.tokens is None or after.tokens <= before.tokens
        assert after.gradient_checkpointing >= before.gradient_checkpointing
        assert amount(after.offload) >= amount(before.offload)
    last = found[-1]
    assert (last.tokens or last.samples) == 1
    assert last.gradient_checkpointing


@given(st.one_of(st.none(), st.integers(1, 10**6)), st.integers(1, 99), st.booleans())
def test_settings_are_read_as_they_were_written(tokens, samples, on):
    fit = Fit(tokens, samples, on, "optimizer")
    assert Fit.from_json(fit.to_json() | {"part": "training"}) == fit


OFF, ON = ", gradient checkpointing off", ", gradient checkpointing on"


@each(
    ("fit", "said"),
    [
        (Fit(4000, 8, False, "none"), f"at most 4,000 tokens per micro-batch{OFF}"),
        (Fit(100, 1, True, "all"), f"at most 900 tokens per micro-batch{ON}, offload all"),
        (Fit(None, 2, False, "none"), f"at most 1,800 tokens per micro-batch{OFF}"),
        (Fit(1, 1, True, "none"), f"one sample per micro-batch, of at most 900 tokens{ON}"),
        (Fit(None, 1, False, "none"), f"one sample per micro-batch, of at most 900 tokens{OFF}"),
    ],
)
def test_settings_in_words(fit, said):
    assert fit.sentence(900) == said


@pytest.mark.parametrize(
    ("deepspeed", "most"),
    [
        (None, "none"),
        ({"zeroStage": 0}, "none"),
        ({"zeroStage": 1}, "optimizer"),
        ({"zeroStage": 2, "offload": "optimizer"}, "optimizer"),
        ({"zeroStage": 3}, "all"),
        ({"config": {"zero_optimization": {"stage": 3}}}, "none"),
    ],
)
def test_what_can_be_offloaded(deepspeed, most):
    spec = small_spec({}, **({"deepspeed": deepspeed} if deepspeed else {}))
    assert most_offload(spec) == most
    offloaded = with_offload(spec, most)
    assert (offloaded.deepspeed.offload if deepspeed else "none") == most
