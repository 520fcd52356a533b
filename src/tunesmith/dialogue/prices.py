"""The prices of a job's endpoints, those that the manifest leaves to the table among them."""

from __future__ import annotations

from tunesmith.api.dialogue import DialogueGenSpec, EndpointSpec
from tunesmith.api.prices import listed


def priced(spec: DialogueGenSpec) -> DialogueGenSpec:
    """Return the spec with the table's price at each endpoint that has none, if there is a budget."""
    if spec.budget is None:
        return spec
    endpoints = {name: _priced(endpoint) for name, endpoint in spec.endpoints.items()}
    return spec.model_copy(update={"endpoints": endpoints})


def _priced(endpoint: EndpointSpec) -> EndpointSpec:
    found = None
    if endpoint.openai is not None and endpoint.price is None:
        found = listed(endpoint.openai.base_url, endpoint.openai.model)
    return endpoint.model_copy(update={"price": found.price}) if found else endpoint


def price_sentences(spec: DialogueGenSpec) -> list[str]:
    """Return which price counts for each endpoint and where it is from; `spec` is the manifest's."""
    sentences = []
    for name, endpoint in priced(spec).endpoints.items():
        if endpoint.price is None:
            continue
        source = "the manifest"
        if endpoint.openai is not None and spec.endpoints[name].price is None:
            found = listed(endpoint.openai.base_url, endpoint.openai.model)
            source = found.source if found else source
        price, cached = endpoint.price, ""
        if price.cached_input_per_million is not None:
            cached = f", {price.cached_input_per_million:g} if the server had it cached"
        batch = endpoint.openai.batch if endpoint.openai else None
        share = f", times {batch.discount:g} for batches" if batch else ""
        sentences.append(
            f"Endpoint {name}: {price.input_per_million:g} USD per million prompt tokens{cached}, "
            f"{price.output_per_million:g} per million reply tokens ({source}{share})."
        )
    return sentences
