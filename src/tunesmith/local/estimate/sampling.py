"""What a RejectionSampleJob, or an evaluation, will need: tokens, replies at once, hours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tunesmith.api.manifest import Job
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.data.prompts.expected import expected_replies, longest_reply
from tunesmith.data.prompts.load import prepare_prompts
from tunesmith.engines.cards import GpuCard
from tunesmith.engines.positions import max_positions
from tunesmith.errors import StoragePermanentError, StorageTemporaryError
from tunesmith.local.estimate.model import DescribedModel, describe_model
from tunesmith.local.estimate.options import EstimateOptions, Values, chosen_card, smallest_first
from tunesmith.local.preview.asked import PreviewRequest
from tunesmith.sampling.expected_time import (
    BESIDE,
    OF_BANDWIDTH,
    WRITTEN,
    ExpectedSampling,
    SamplingAmount,
    expected_sampling,
)
from tunesmith.sampling.verifiers import check_record, task_of

PROMPT_TOKENS = 512
"""Tokens of a prompt on average, if nothing is known."""


def estimate_sampling(
    asked: PreviewRequest, spec: RejectionSampleSpec, jobs: Sequence[Job], options: EstimateOptions
) -> Values:
    """Return what a RejectionSampleJob needs, as plain values; bytes, seconds. Raises TunesmithError."""
    model = describe_model(asked, spec.model, jobs)
    amount, notes = _amount(asked, spec, model, options)
    gpus = spec.resources.gpus_per_node * spec.resources.nodes
    asked_for = chosen_card(options, spec) if gpus else None
    rows = [
        _row(spec, model, amount, card, gpus) for card in ([asked_for] if asked_for else smallest_first())
    ]
    fitting = next((row for row in rows if row["fits"]), rows[-1])
    return {
        "gpus": gpus,
        "card": fitting["card"] if gpus else None,
        "cardAsked": asked_for is not None,
        "model": {
            "type": model.shape.family,
            "verified": model.shape.known,
            "parameters": model.shape.parameters,
            "activeParameters": model.shape.active_parameters,
        },
        "memory": fitting if gpus else None,
        "run": {
            "prompts": amount.prompts,
            "replies": amount.replies,
            "promptTokens": amount.prompt_tokens,
            "mostReplyTokens": amount.reply_tokens,
            "replyTokens": round(WRITTEN * amount.reply_tokens),
            "seconds": fitting["seconds"] if gpus else None,
            "mostSeconds": fitting["mostSeconds"] if gpus else None,
        },
        "disk": {"download": round(model.size) if model.fetched else 0},
        "cards": rows if gpus and not asked_for else [],
        "notes": [*model.notes, *notes, *(_assumptions(spec) if gpus else [])],
    }


def _amount(
    asked: PreviewRequest, spec: RejectionSampleSpec, model: DescribedModel, options: EstimateOptions
) -> tuple[SamplingAmount, list[str]]:
    """Return what is sampled, and what was assumed of it."""
    if options.tokens is not None:
        return _assumed(spec, model, options)
    try:
        with asked.counting("reading the prompts") as status:
            prompts = prepare_prompts(
                spec.prompts,
                model.tokenizer,
                asked.options,
                asked.folder / "prompts",
                check=partial(check_record, task_of(spec.verifier, "verifier")),
                progress=status.records,
            )
    except (StoragePermanentError, StorageTemporaryError) as error:
        amount, notes = _assumed(spec, model, options)
        return amount, [f"The prompts were not read: {error.message}", *notes]
    with prompts:
        return _of_lengths(spec, model, list(map(int, prompts.lengths))), []


def _assumed(
    spec: RejectionSampleSpec, model: DescribedModel, options: EstimateOptions
) -> tuple[SamplingAmount, list[str]]:
    average = options.sample_tokens or PROMPT_TOKENS
    count = max(1, round(options.tokens / average)) if options.tokens else 1
    of = "" if options.tokens else "; the numbers are those of one prompt"
    note = f"Assumed: prompts of {average:,} tokens{of}."
    return _of_lengths(spec, model, [average] * count), [note]


def _of_lengths(spec: RejectionSampleSpec, model: DescribedModel, lengths: list[int]) -> SamplingAmount:
    longest = longest_reply(spec.engine, max_positions(model.files.base), model.tokenizer.tokenizer)
    found = expected_replies(lengths, longest, spec.sampling)
    return SamplingAmount(found.prompts, found.replies, found.prompt_tokens, found.reply_tokens)


def _row(
    spec: RejectionSampleSpec, model: DescribedModel, amount: SamplingAmount, card: GpuCard, gpus: int
) -> Values:
    found: ExpectedSampling = expected_sampling(model.shape, amount, spec.engine, card, max(1, gpus))
    return {
        "card": card.name,
        "memory": card.memory,
        "weights": round(found.weights),
        "cachePerToken": round(found.token),
        "needed": round(found.weights + BESIDE + found.token * amount.prompt_tokens / max(1, amount.prompts)),
        "fits": found.at_once > 0,
        "repliesAtOnce": found.at_once,
        "seconds": found.seconds if found.at_once else None,
        "mostSeconds": found.most_seconds if found.at_once else None,
    }


def _assumptions(spec: RejectionSampleSpec) -> list[str]:
    kind = "vllm" if spec.engine.vllm is not None else "transformers"
    return [
        f"Assumed: replies of {WRITTEN:.0%} of maxNewTokens, {OF_BANDWIDTH[kind]:.0%} of the card's "
        "bandwidth, each prompt computed once for all of its replies.",
        "Not counted in the hours: loading the model, verifying, uploads.",
    ]
