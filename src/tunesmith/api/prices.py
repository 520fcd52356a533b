"""What tokens cost: as the manifest says, or as the table that comes with genai-prices does.

The network is not asked. Where a price depends on the prompt's length or on the hour, the dearest counts,
since a budget is a wall.
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
    """What tokens cost."""

    input_per_million: Annotated[float, Field(ge=0)]
    """USD for a million tokens of prompt."""
    output_per_million: Annotated[float, Field(ge=0)]
    """USD for a million tokens of reply."""
    cached_input_per_million: Annotated[float, Field(ge=0)] | None = None
    """USD for a million tokens of prompt that the server had in its cache; those of others if absent."""


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A price of the table; `source` names the table's version, the provider and the model."""

    price: PriceSpec
    source: str


def listed(base_url: str, model: str, now: datetime | None = None) -> ListedPrice | None:
    """The table's price of a model at an address; None where it knows none.

    A model of a known provider is looked for there alone; at an address that the table does not know, as a
    proxy's, the model's name decides. `now` is for prices that begin at a date; by default this moment.
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
    """The highest of prices that are numbers or tiers; None where one is missing."""
    found: list[Decimal] = []
    for price in prices:
        if price is None:
            return None
        tiers = [price.base, *(tier.price for tier in price.tiers)] if hasattr(price, "tiers") else [price]
        found += tiers
    return float(max(found))
