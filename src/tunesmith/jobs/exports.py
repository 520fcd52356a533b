"""Export a model's folder, so that other programs load it and stop its replies correctly.

Checkpoints and the final model get the same files; `rehearse` tries all of it on a model without weights
first, so that what would fail at the first save fails before the first step.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.prompts.presets import Preset, card_section, save_presets
from tunesmith.engines.adapter import ADAPTER_CONFIG
from tunesmith.engines.load import read_config
from tunesmith.engines.positions import max_positions
from tunesmith.engines.vllm.adapter import refuse_experts
from tunesmith.engines.vllm.settings import refuse_early
from tunesmith.errors import ModelError
from tunesmith.jobs.card import CARD, ends_note, experts_note, model_card
from tunesmith.jobs.evaluate import default_engine
from tunesmith.jobs.inputs import Inputs
from tunesmith.training.adapters import trained_parameters
from tunesmith.training.export import describe_weights, ends_of, save_ends, save_final, save_tokenizer
from tunesmith.training.model import method_name
from tunesmith.training.rehearsal import empty_model, no_weights_written, refusals_explained

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class Exports:
    """Writes the folders of one job's models. `scratch` is kept between calls."""

    def __init__(
        self, name: str, spec: FineTuneSpec, inputs: Inputs, dtype: torch.dtype, scratch: Path
    ) -> None:
        self._name, self._spec, self._inputs, self._dtype = name, spec, inputs, dtype
        self._scratch, self._tokenizer = scratch, scratch / "tokenizer"
        self._turns = any(dataset.text is None for dataset in spec.datasets)

    def save_final(self, model: Any, folder: Path, weights: Any = None) -> None:
        """Write the whole model except its card; `weights` if the model itself has only a shard."""
        source, tokenizer = self._inputs.files.source, self._inputs.tokenizer
        save_final(model, tokenizer, source, self._dtype, folder, weights, turns=self._turns)
        self._save_presets(folder)

    def complete(self, model: Any, folder: Path, made: str, notes: Sequence[str]) -> None:
        """Add to a checkpoint's weights what makes them a loadable model, with its card."""
        tokenizer = self._inputs.tokenizer
        ends = ends_of(model, tokenizer, turns=self._turns)
        describe_weights(folder, self._inputs.files.source, self._dtype)
        save_ends(model, folder, ends)
        if not self._tokenizer.is_dir():  # written once: that takes ten times as long as a copy
            save_tokenizer(tokenizer, self._tokenizer, ends)
        shutil.copytree(self._tokenizer, folder, dirs_exist_ok=True)
        self.write_card(
            model, folder, made, [*notes, *filter(None, [card_section(self._save_presets(folder))])]
        )

    def write_card(self, model: Any, folder: Path, made: str, notes: Sequence[str]) -> None:
        """Write the card; `made` is a phrase, `notes` are sentences."""
        method, tokenizer = method_name(self._spec.method), self._inputs.tokenizer
        ids = ends_of(model, tokenizer, turns=self._turns).ids
        tokens = [(tokenizer.decode([id_]), id_) for id_ in ids]
        experts = trained_parameters(model)
        card = model_card(
            self._name,
            self._inputs.files.source,
            made=made,
            method=method,
            datasets=self._inputs.prepared.report(),
            notes=[
                ends_note(tokens, adapter=method != "full"),
                *([experts_note(experts)] if experts else []),
                *notes,
            ],
        )
        (folder / CARD).write_text(card, "utf-8")

    def rehearse(self) -> None:
        """Write all but weights, as the first save will, for a model without weights.

        Raises ModelError for what would fail then or in an evaluation's engine.
        """
        adapter: dict[str, Any] = {}
        self._scratch.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="rehearsal-", dir=self._scratch) as place,
            refusals_explained(),
        ):
            model, folder = empty_model(self._spec, self._inputs.files), Path(place) / "model"
            with no_weights_written():
                self.save_final(model, folder)
            self.write_card(model, folder, method_name(self._spec.method), [])
            adapter = read_config(folder / ADAPTER_CONFIG)
        self._check_engines(adapter)

    def _check_engines(self, adapter: Mapping[str, Any]) -> None:
        """Raise ModelError for what the evaluations' engines, which start after training, would reject."""
        positions = max_positions(self._inputs.files.base)
        for number, evaluation in enumerate(self._spec.evaluation):
            engine = evaluation.engine or default_engine()
            if engine.vllm is None:
                continue
            try:
                refuse_early(engine.vllm, positions=positions, rank=adapter.get("r", 0))
                refuse_experts(adapter)
            except ModelError as error:
                raise ModelError(f"spec.evaluation[{number}]: {error.message}") from None

    def _save_presets(self, folder: Path) -> list[Preset]:
        """Write the presets of the prompts in training into a model's folder."""
        files, reports = self._inputs.files, self._inputs.prepared.reports
        return save_presets(folder, self._spec.datasets, reports, (files.base, *files.adapters))
