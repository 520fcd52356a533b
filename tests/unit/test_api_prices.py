"""What tokens cost by the table, and when a manifest must say it itself."""

from __future__ import annotations

from datetime import UTC, datetime

from genai_prices.data_snapshot import get_snapshot
from good_manifests import DIALOGUE, REMOVED, changed

from tunesmith.api.manifest import parse_documents
from tunesmith.api.prices import listed
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.prices import price_sentences, priced

OPENAI = "https://api.openai.com/v1"

MINI = {"inputPerMillion": 0.15, "outputPerMillion": 0.6, "cachedInputPerMillion": 0.075}


def test_a_model_is_found_by_its_provider_and_behind_a_proxy_by_its_name():
    found = {
        where: listed(url, model)
        for where, url, model in [
            ("its own", OPENAI, "gpt-4o-mini"),
            ("dated", OPENAI, "gpt-4o-mini-2024-07-18"),
            ("proxy", "http://proxy.example/v1", "gpt-4o-mini"),
        ]
    }
    prices = [each and each.price.to_json() for each in found.values()]
    assert prices == [MINI] * 3
    assert found["its own"].source.endswith(": openai gpt-4o-mini")


def test_what_no_table_knows_has_no_price():
    unknown = [(OPENAI, "gpt-of-ours"), ("http://vllm.example/v1", "our-model"), (OPENAI, "claude-3-5-haiku")]
    assert [listed(*each) for each in unknown] == [None] * 3


def test_of_prices_that_depend_on_hour_or_length_the_dearest_counts():
    """Against every price that the table itself gives for a model, at any hour and for any prompt."""
    now, wrong = datetime(2026, 6, 1, 12, 30, tzinfo=UTC), []
    looked_at = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            found = listed(url_of(provider.id), model.id, now) if url_of(provider.id) else None
            if found is None:
                continue
            looked_at += 1
            for hour in range(24):
                prices = model.get_prices(now.replace(hour=hour))
                highest = [highest_of(prices.input_mtok), highest_of(prices.output_mtok)]
                if [found.price.input_per_million, found.price.output_per_million] < highest:
                    wrong.append((model.id, hour, highest))
    assert looked_at > 10
    assert wrong == []


def highest_of(price):
    return float(
        max([price.base, *(tier.price for tier in price.tiers)] if hasattr(price, "tiers") else [price])
    )


def url_of(provider):
    return {"openai": OPENAI, "deepseek": "https://api.deepseek.com/v1"}.get(provider)


PRICED = {"spec.endpoints.big.price": REMOVED, "spec.endpoints.big.openai.model": "gpt-4o-mini"}


def spec_of(changes):
    (job,), problems = parse_documents([changed(DIALOGUE, changes)], "job.yaml")
    assert problems == []
    return job.spec


def test_a_job_with_a_budget_takes_the_price_of_the_table_and_says_so():
    at_home = {**PRICED, "spec.endpoints.big.openai.baseUrl": OPENAI}
    spec = spec_of(at_home)
    assert priced(spec).endpoints["big"].price.to_json() == MINI
    (said,) = price_sentences(spec)
    assert "0.15 USD per million prompt tokens, 0.075 if the server had it cached" in said
    assert "0.6 per million reply tokens (genai-prices " in said
    assert said.endswith(": openai gpt-4o-mini).")


def test_the_discount_of_batches_is_named_and_counts_for_every_kind_of_token():
    batch = {"spec.endpoints.big.openai.batch": {"discount": 0.4}}
    spec = spec_of({**batch, "spec.endpoints.big.price.cachedInputPerMillion": 0.05})
    assert price_sentences(spec)[0].endswith("(the manifest, times 0.4 for batches).")
    assert Price.at(spec.endpoints["big"]) == Price(40_000, 160_000, 20_000)
    assert Price.at(spec.endpoints["small"]) is None


def test_a_price_of_the_manifest_stays_and_without_a_budget_none_is_looked_for():
    (said,) = price_sentences(spec_of({}))
    assert said.endswith("(the manifest).")
    free = spec_of({**PRICED, "spec.budget": REMOVED})
    assert priced(free).endpoints["big"].price is None
    assert price_sentences(free) == []
