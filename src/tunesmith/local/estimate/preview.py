"""What a training run will need, in a few sentences below its preview."""

from __future__ import annotations

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.prepared import Prepared
from tunesmith.engines.files import ModelFiles
from tunesmith.errors import ModelError
from tunesmith.local.estimate.data import prepared_work
from tunesmith.local.estimate.model import described
from tunesmith.local.estimate.options import EstimateOptions
from tunesmith.local.estimate.show import sentences
from tunesmith.local.estimate.training import training_values
from tunesmith.tokens.chat import ChatTokenizer


def training_needs(
    spec: FineTuneSpec, files: ModelFiles, tokenizer: ChatTokenizer, prepared: Prepared
) -> list[str]:
    """Return the sentences; a model of unknown size needs what nobody knows."""
    try:
        model = described(files, tokenizer)
    except ModelError:
        return []
    world = max(1, spec.resources.gpus_per_node) * spec.resources.nodes
    values = training_values(spec, model, prepared_work(spec, prepared, world), EstimateOptions())
    return [*sentences(values), "tunesmith estimate shows it by part, for any GPU, and what else would fit."]
