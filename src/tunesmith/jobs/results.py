"""The files a FineTuneJob leaves behind, written by rank 0: previews, logs, final model, report, result.

Everything goes to one folder first; publishing it is the last act of the job.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.data.prepared import FirstSample
from tunesmith.engines.generate import preview_messages, reply
from tunesmith.jobs.inputs import Inputs
from tunesmith.jobs.versions import versions
from tunesmith.jobs.written import device, write_report, write_result
from tunesmith.names import (
    BEFORE_KEY,
    FINAL_MODEL,
    LOGS,
    METRICS_KEY,
    SAMPLES_PREVIEW_KEY,
    TRAINING_LOG_KEY,
)
from tunesmith.tokens.show import as_plain, spans
from tunesmith.training.deepspeed import zero_stage
from tunesmith.training.metrics import Metrics
from tunesmith.training.model import base_name, method_name, save_final

if TYPE_CHECKING:
    import torch

    from tunesmith.jobs.evaluate import Evaluated
    from tunesmith.jobs.session import Session

log = logging.getLogger(__name__)


class Results:
    """Rank 0's writer; other ranks take part in `previews`, and may pass `upload_logs` around."""

    def __init__(self, session: Session, inputs: Inputs, model: Any, dtype: torch.dtype) -> None:
        self._session, self._inputs, self._model, self._dtype = session, inputs, model, dtype
        self._folder, self._store = session.folder, session.store
        self._before: dict[str, Any] = {}
        self.metrics: Metrics | None = None

    def begin(self) -> None:
        """Start the training log (going on with an earlier attempt's) and publish the first samples."""
        path = self._folder / TRAINING_LOG_KEY
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._store.exists(TRAINING_LOG_KEY):
            self._store.get_file(TRAINING_LOG_KEY, path)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        first = self._inputs.prepared.first
        text = samples_preview(first, self._inputs)
        log.info("The first samples, labels between « and »:\n%s", text)
        (self._folder / SAMPLES_PREVIEW_KEY).write_text(text, "utf-8")
        self._store.put(SAMPLES_PREVIEW_KEY, text.encode())

    def upload_logs(self) -> None:
        """Bring log and metrics in the output up to date."""
        for key in (TRAINING_LOG_KEY, METRICS_KEY):
            self._store.put_file(key, self._folder / key)

    def before_known(self) -> bool:
        """Whether an earlier attempt has looked at the model before training; then that is used."""
        if not self._store.exists(BEFORE_KEY):
            return False
        self._before = json.loads(self._store.read(BEFORE_KEY))
        (self._folder / BEFORE_KEY).write_text(json.dumps(self._before, ensure_ascii=False), "utf-8")
        return True

    def write_before(self, loss: float | None, replies: dict[str, str]) -> None:
        """Keep validation loss and replies to the previews of the model as it came."""
        self._before = {"validationLoss": loss, "previews": replies}
        text = json.dumps(self._before, ensure_ascii=False)
        (self._folder / BEFORE_KEY).write_text(text, "utf-8")
        self._store.put(BEFORE_KEY, text.encode())

    def previews(self) -> dict[str, str]:
        """The model's replies to the previews; where its weights are shared out, every rank takes part."""
        spec = self._session.spec
        if not self._session.first and zero_stage(spec) != 3:
            return {}
        return {
            preview.name: reply(
                self._model,
                self._inputs.tokenizer,
                preview_messages(preview),
                preview.generation,
                seed=spec.training.seed,
            )
            for preview in spec.previews
        }

    def save_model(self, weights: Any) -> None:
        """Final model, in the output's folder; `weights` is what was trained, where the model has a share."""
        base = self._inputs.files.source
        target = self._folder / FINAL_MODEL
        save_final(self._model, self._inputs.tokenizer, base, self._dtype, target, weights)

    def write_after(
        self, state: Any, used_step: int, after: dict[str, str], evaluated: Sequence[Evaluated]
    ) -> None:
        """Report and result, in the output's folder, beside the final model.

        `after` are the replies to the previews, `evaluated` what all models did in the evaluations.
        """
        spec, folder = self._session.spec, self._folder
        assert self.metrics is not None
        evals = [row for row in self.metrics.rows if "eval_loss" in row]
        at_used = [row["eval_loss"] for row in evals if row["step"] == used_step]
        result = {
            "job": {"kind": self._session.run.kind, "name": self._session.run.name},
            "model": spec.model.uri,
            "method": method_name(spec.method),
            "steps": state.global_step,
            "usedStep": used_step,
            "stoppedEarly": state.global_step < state.max_steps,
            "trainingLoss": next((r["loss"] for r in reversed(self.metrics.rows) if "loss" in r), None),
            "validationLoss": {
                "before": self._before["validationLoss"],
                "after": at_used[-1] if at_used else None,
            },
            "previews": [
                {
                    "name": preview.name,
                    "messages": [message.as_dict() for message in preview_messages(preview)],
                    "before": self._before["previews"].get(preview.name, ""),
                    "after": after[preview.name],
                }
                for preview in spec.previews
            ],
            "evaluation": [each.as_dict() for each in evaluated],
            "datasets": self._inputs.prepared.report(),
            "seconds": round(time.monotonic() - self._session.started, 1),
            "world": {"processes": self._session.world.size, "device": device()},
            "versions": versions(),
        }
        write_result(folder, result)
        write_report(folder, self._report(result))
        (folder / FINAL_MODEL / "README.md").write_text(self._card(result), "utf-8")
        (folder / LOGS).mkdir(exist_ok=True)
        self.metrics.close()

    def _report(self, result: dict[str, Any]) -> dict[str, Any]:
        assert self.metrics is not None
        prepared, loss = self._inputs.prepared, result["validationLoss"]
        summary = [("Model", result["model"]), ("Method", result["method"]), ("Steps", result["steps"])]
        if loss["before"] is not None:
            summary += [("Validation loss before", loss["before"]), ("Validation loss after", loss["after"])]
        summary += [("Seconds", result["seconds"]), ("Device", result["world"]["device"])]
        return {
            "title": f"{self._session.run.name}",
            "summary": summary,
            "metrics": [row for row in self.metrics.rows if "loss" in row],
            "evals": [row for row in self.metrics.rows if "eval_loss" in row],
            "samples": [
                {
                    "place": s.place,
                    "spans": [list(span) for span in spans(s.sample, self._inputs.tokenizer)],
                }
                for s in prepared.first
            ],
            "previews": result["previews"],
            "evaluations": result["evaluation"],
            "datasets": result["datasets"],
            "lengths": prepared.lengths(),
            "config": self._session.run.result_fields(),
            "versions": result["versions"],
            "notes": self._notes(result),
        }

    def _notes(self, result: dict[str, Any]) -> list[str]:
        notes = [f"{result['world']['processes']} process(es) on {result['world']['device']}."]
        if result["stoppedEarly"]:
            notes.append(f"Stopped early; the weights of step {result['usedStep']} are the final model.")
        if self._session.spec.training.packing == "tree":
            notes.append(self._packing())
        return notes

    def _packing(self) -> str:
        """What tree packing saved, from the metrics' counts."""
        assert self.metrics is not None
        tokens, computed = (
            sum(row.get(name, 0) for row in self.metrics.rows) for name in ("tokens", "tokens_computed")
        )
        if any(row.get("tree_packing") == 0 for row in self.metrics.rows):
            return "Tree packing was off (the log says why): samples were padded, with the same loss."
        share = f", {tokens / computed:.1f} times as many as were computed" if computed else ""
        return f"Tree packing: beginnings that samples share were computed once. {tokens:,} tokens{share}."

    def _card(self, result: dict[str, Any]) -> str:
        loss = result["validationLoss"]
        lines = [
            "---",
            f"base_model: {json.dumps(base_name(self._inputs.files.source), ensure_ascii=False)}",
            "library_name: " + ("transformers" if result["method"] == "full" else "peft"),
            "tags: [tunesmith]",
            "---",
            f"# {self._session.run.name}",
            "",
            f"Made by Tunesmith {result['versions']['tunesmith']}: {result['method']} on {result['model']}, "
            f"{result['steps']} steps.",
            "",
            *(
                f"- {d['name']}: {d['samples']} samples, {d['label_tokens']} label tokens"
                for d in result["datasets"]
            ),
        ]
        if loss["before"] is not None:
            lines += ["", f"Validation loss: {loss['before']:.4f} before, {loss['after']:.4f} after."]
        return "\n".join(lines) + "\n"


def samples_preview(first: list[FirstSample], inputs: Inputs) -> str:
    """The first samples as plain text, labels between « and »."""
    parts = []
    for number, sample in enumerate(first, 1):
        text = as_plain(sample.sample, inputs.tokenizer)
        parts.append(f"--- sample {number}: {sample.place}, {len(sample.sample.ids)} tokens\n{text}\n")
    return "\n".join(parts)
