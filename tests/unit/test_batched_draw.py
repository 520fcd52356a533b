"""Which token is drawn from logits: the same likelihoods as transformers' own warpers give."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.errors import ModelError


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global sample_tokens, torch, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, SamplingParams
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    from tunesmith.engines.hf.sample_tokens import SamplingParams, sample_tokens


WIDE = 1000  # more tokens than are looked at first


def warped(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Likelihoods by transformers, as `generate` applies its warpers."""
    scores = logits
    if params.temperature != 1:
        scores = TemperatureLogitsWarper(params.temperature)(None, scores)
    if params.top_k is not None:
        scores = TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(None, scores)
    return scores.softmax(-1)


def drawn(logits: torch.Tensor, params: SamplingParams, points: int) -> torch.Tensor:
    """How often each token comes out of evenly spaced chances, as a share."""
    chances = [(point + 0.5) / points for point in range(points)]
    tokens = sample_tokens(logits.expand(points, -1), chances, params)
    return torch.bincount(tokens, minlength=logits.shape[-1]) / points


def random_logits(size: int, spread: float, seed: int) -> torch.Tensor:
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * spread


CASES = {
    "plain": (20, 2.0, (1.0, 1.0, None)),
    "cold": (20, 2.0, (0.3, 1.0, None)),
    "hot": (20, 2.0, (2.0, 1.0, None)),
    "top-p": (20, 2.0, (1.0, 0.8, None)),
    "narrow-top-p": (20, 2.0, (1.0, 1e-6, None)),
    "top-k": (20, 2.0, (1.0, 1.0, 5)),
    "top-k-of-one": (20, 2.0, (1.0, 1.0, 1)),
    "more-than-there-are": (20, 2.0, (1.0, 1.0, 50)),
    "all-of-them": (20, 3.0, (0.7, 0.9, 8)),
    "wide": (WIDE, 2.0, (1.0, 1.0, None)),
    "wide-and-flat": (WIDE, 0.1, (1.0, 1.0, None)),
    "wide-top-p": (WIDE, 4.0, (0.8, 0.95, None)),
    "wide-and-flat-top-p": (WIDE, 0.1, (0.8, 0.95, None)),
    "wide-top-k": (WIDE, 1.0, (0.8, 0.95, 600)),
    "wide-top-k-alone": (WIDE, 0.1, (1.0, 1.0, 300)),
}


@each(("size", "spread", "settings"), CASES.values(), ids=CASES)
def test_each_token_is_as_likely_as_transformers_says(
    size: int, spread: float, settings: tuple[Any, ...]
) -> None:
    logits, points, params = random_logits(size, spread, 3), 3000, SamplingParams(*settings)
    expected, found = warped(logits, params)[0], drawn(logits, params, points)
    assert (
        found - expected
    ).abs().max() <= 1.5 / points  # chances are even, so each share is off by one point
    assert not bool(((found > 0) & (expected == 0)).any())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-20, 20, width=16), min_size=1, max_size=12),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0.1, 0.7, 1.0, 2.0]),
    st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    st.sampled_from([None, 1, 2, 5]),
)
def test_no_token_that_is_left_out(
    values: list[float], chance: float, temperature: float, top_p: float, top_k: int | None
) -> None:
    logits, params = torch.tensor([values]), SamplingParams(temperature, top_p, top_k)
    token = int(sample_tokens(logits, [chance], params))
    likely = warped(logits, SamplingParams(temperature, min(1.0, top_p + 1e-4), top_k))[
        0
    ]  # rounding at the edge
    ties = {at for at, value in enumerate(values) if value == values[token]}
    assert float(likely[list(ties)].max()) > 0  # of equal tokens at the edge either may be kept


def test_ties_at_the_edge_of_top_k_are_all_kept() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0]])
    found = drawn(logits, SamplingParams(1.0, 1.0, 2), 300)
    assert found.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0], abs=0.01)


@pytest.mark.parametrize("top_p", [1.0, 0.99], ids=["all", "top-p"])
def test_the_largest_chance_takes_a_likely_token(top_p: float) -> None:
    logits = torch.full((1, WIDE), -math.inf)
    logits[0, 7], logits[0, 800] = 1.0, 1.0
    last = 1 - 2**-53
    assert int(sample_tokens(logits, [last], SamplingParams(1.0, top_p, None))) in (7, 800)
    assert int(sample_tokens(logits, [0.0], SamplingParams(1.0, top_p, None))) in (7, 800)


def test_zero_temperature_takes_the_likeliest() -> None:
    logits = random_logits(WIDE, 1.0, 1).repeat(2, 1)
    logits[1] = logits[1].flip(0)
    assert (
        sample_tokens(logits, [0.9, 0.1], SamplingParams(0.0, 0.5, 3)).tolist() == logits.argmax(-1).tolist()
    )


@pytest.mark.parametrize("spread", [0.05, 4.0], ids=["flat", "steep"])
@pytest.mark.parametrize("top_p", [1.0, 0.9], ids=["all", "top-p"])
def test_a_row_does_not_depend_on_the_others(spread: float, top_p: float) -> None:
    torch.manual_seed(0)
    logits, params = torch.randn(6, WIDE) * spread, SamplingParams(0.8, top_p, None)
    chances = [0.02, 0.999, 0.4, 0.7, 0.95, 0.0]
    together = sample_tokens(logits, chances, params)
    others = logits.flip(0).contiguous()
    for row, chance in enumerate(chances):
        others[row] = logits[row]
        assert (
            sample_tokens(others, [chance if at == row else 0.5 for at in range(6)], params)[row]
            == together[row]
        )


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers(value: float, temperature: float) -> None:
    logits = torch.zeros(2, 4)
    logits[1, 2] = value
    with pytest.raises(ModelError, match=r"model\.dtype"):
        sample_tokens(logits, [0.5, 0.5], SamplingParams(temperature, 0.9, None))


def test_excluded_logits_are_fine() -> None:
    logits = torch.tensor([[0.0, -math.inf, 1.0]])
    assert set(
        sample_tokens(
            logits.expand(50, -1), [at / 50 for at in range(50)], SamplingParams(1.0, 1.0, None)
        ).tolist()
    ) == {
        0,
        2,
    }
