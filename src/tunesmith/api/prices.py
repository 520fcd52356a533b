"""Prices of tokens: those of the manifest, or of the table in genai-prices.

No network access. If a price depends on the prompt's length or on the hour, the highest counts, since a
budget is a hard limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from typing import Annotated, Any

from pydantic import Field

from tunesmith.api.base import Model

_HOURS = 24


class PriceSpec(Model):
    """Prices of tokens."""

    input_per_million: Annotated[float, Field(ge=0)]
    """USD per million prompt tokens."""
    output_per_million: Annotated[float, Field(ge=0)]
    """USD per million reply tokens."""
    cached_input_per_million: Annotated[float, Field(ge=0)] | None = None
    """USD per million prompt tokens that the server had cached; the regular price if absent."""


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A price of the table; `source` names the table's version, the provider and the model."""

    price: PriceSpec
    source: str


def listed(base_url: str, model: str, now: datetime | None = None) -> ListedPrice | None:
    """Return the table's price of a model at an address; None if it has none.

    A model of a known provider is looked up only there; at an address that the table does not list, such as a
    proxy's, the model's name decides. `now` is for prices that begin at a date; by default the current time.
    """
    from genai_prices.data_snapshot import get_snapshot

    table, now = get_snapshot(), now or datetime.now(UTC)
    try:
        provider = table.find_provider(None, None, base_url)
    except LookupError:
        provider = None
    try:
        provider, found = table.find_provider_model(model, provider, None, None)
    except LookupError:
        return None
    prices = [found.get_prices(now + timedelta(hours=hour)) for hour in range(_HOURS)]
    prompt, reply = _dearest(p.input_mtok for p in prices), _dearest(p.output_mtok for p in prices)
    if prompt is None or reply is None:
        return None
    source = f"genai-prices {version('genai-prices')}: {provider.id} {found.id}"
    cached = _dearest(p.cache_read_mtok for p in prices)
    price = PriceSpec(input_per_million=prompt, output_per_million=reply, cached_input_per_million=cached)
    return ListedPrice(price, source)


def _dearest(prices: Iterable[Any]) -> float | None:
    """Return the highest of prices that are numbers or tiers; None if one is missing."""
    found: list[Decimal] = []
    for price in prices:
        if price is None:
            return None
        tiers = [price.base, *(tier.price for tier in price.tiers)] if hasattr(price, "tiers") else [price]
        found += tiers
    return float(max(found))
