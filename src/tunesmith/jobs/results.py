"""Output files of a FineTuneJob, written by rank 0: previews, logs, final model, report, result.

Everything goes to one folder first; publishing it is the last act of the job.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.prompts.presets import card_section, read_presets
from tunesmith.engines.hf.generate import preview_messages, reply
from tunesmith.errors import MemoryShortError, StoppedError
from tunesmith.jobs.exports import Exports
from tunesmith.jobs.inputs import Inputs
from tunesmith.jobs.previews import show_previews
from tunesmith.jobs.tracking import open_sinks, usage
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
from tunesmith.report.samples import sample_values, samples_text
from tunesmith.text import VisibleFormatter
from tunesmith.training.deepspeed.config import zero_stage
from tunesmith.training.fit import Fit
from tunesmith.training.metrics import (
    CLOSE_SECONDS,
    STOP_SECONDS,
    AttemptEnd,
    Metrics,
    processes_by_step,
    processes_in_words,
)
from tunesmith.training.model import method_name
from tunesmith.training.trained import count_trained

if TYPE_CHECKING:
    from tunesmith.jobs.evaluate import Evaluated
    from tunesmith.jobs.session import TrainingSession

log = logging.getLogger(__name__)


class Results:
    """Rank 0's writer; other ranks take part in `previews`, and may pass `upload_logs` around."""

    def __init__(self, session: TrainingSession, inputs: Inputs, model: Any, exports: Exports) -> None:
        self._session, self._inputs, self._model, self._exports = session, inputs, model, exports
        self._folder, self._store = session.folder, session.store
        self._before: dict[str, Any] = {}
        self._trained = count_trained(model)
        self.metrics: Metrics | None = None
        self._first_processes = session.world.size

    def begin(self, steps: int, resume: Path | None, first: int) -> None:
        """Start log and metrics (continuing an earlier attempt's) and publish the first samples.

        `first` is the number of processes of the first attempt.
        """
        self._first_processes = first
        self._start_log()
        self._publish_samples()
        logging_steps = self._session.spec.training.logging_steps
        sinks = [*open_sinks(self._session, self._folder), self._session.progress.live]
        self.metrics = Metrics(self._folder, logging_steps, steps, sinks, usage)
        if resume is not None:
            self.metrics.restore(resume)

    def trained_with(self, step: int) -> None:
        """Note the number of processes of this attempt, which resumes after `step`."""
        if self.metrics is None:
            return
        self.metrics.processes(step, self._session.world.size, self._first_processes)
        numbers = processes_by_step(self._first_processes, self.metrics.rows)
        if len(numbers) > 1 or self._session.world.size != self._first_processes:
            log.info("Trained by %s; a step has the samples that it had.", processes_in_words(numbers))

    def _start_log(self) -> None:
        path = self._folder / TRAINING_LOG_KEY
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._store.exists(TRAINING_LOG_KEY):
            self._store.get_file(TRAINING_LOG_KEY, path)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        log.info("Trained: %s.", self._trained.sentence())

    def _publish_samples(self) -> None:
        text = samples_text(self._inputs.prepared, self._inputs.tokenizer)
        log.info("The first samples, labels between « and »:\n%s", text)
        (self._folder / SAMPLES_PREVIEW_KEY).write_text(text, "utf-8")
        self._session.patient.put(SAMPLES_PREVIEW_KEY, text.encode())

    def upload_logs(self) -> None:
        """Update log and metrics in the output."""
        for key in (TRAINING_LOG_KEY, METRICS_KEY):
            self._store.put_file(key, self._folder / key)

    def before_known(self) -> bool:
        """Return whether an earlier attempt evaluated the model before training; then that is used."""
        if not self._store.exists(BEFORE_KEY):
            return False
        self._before = json.loads(self._store.read(BEFORE_KEY))
        (self._folder / BEFORE_KEY).write_text(json.dumps(self._before, ensure_ascii=False), "utf-8")
        self.show("before training", self._before["previews"])
        return True

    def write_before(self, loss: float | None, replies: dict[str, str]) -> None:
        """Keep validation loss and preview replies of the model before training."""
        self._before = {"validationLoss": loss, "previews": replies}
        text = json.dumps(self._before, ensure_ascii=False)
        (self._folder / BEFORE_KEY).write_text(text, "utf-8")
        self._session.patient.put(BEFORE_KEY, text.encode())
        self.show("before training", replies)

    def previews(self) -> dict[str, str]:
        """Return the model's replies to the previews; if its weights are sharded, every rank takes part."""
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

    def show(self, when: str, replies: Mapping[str, str]) -> None:
        """Show replies to the previews on the page of the running job."""
        show_previews(self._session, when, replies)

    def save_model(self, weights: Any) -> None:
        """Write the final model to the output's folder; `weights` are the trained ones of a sharded model."""
        self._exports.save_final(self._model, self._folder / FINAL_MODEL, weights)

    def complete_checkpoint(self, folder: Path, step: int, total: int) -> None:
        """Add to a checkpoint's weights what makes them a loadable model, with its card."""
        assert self.metrics is not None
        spec, rows = self._session.spec, self.metrics.rows
        losses = [row["eval_loss"] for row in rows if row["step"] == step and "eval_loss" in row]
        made = f"{method_name(spec.method)} on {spec.model.uri}, the checkpoint of step {step} of {total}"
        notes = [f"Validation loss: {loss:.4f}." for loss in losses[-1:]]
        self._exports.complete(self._model, folder, made, notes)

    def write_after(
        self, state: Any, used_step: int, after: dict[str, str], evaluated: Sequence[Evaluated]
    ) -> None:
        """Write report and result to the output's folder, beside the final model.

        `after` are the replies to the previews, `evaluated` all models' results in the evaluations.
        """
        spec, folder = self._session.spec, self._folder
        assert self.metrics is not None
        evals = [row for row in self.metrics.rows if "eval_loss" in row]
        at_used = [row["eval_loss"] for row in evals if row["step"] == used_step]
        result = {
            "job": {"kind": self._session.run.kind, "name": self._session.run.name},
            "model": spec.model.uri,
            "method": method_name(spec.method),
            "trained": self._trained.as_dict(),
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
            **self._memory(),
            "seconds": round(time.monotonic() - self._session.started, 1),
            "world": {"processes": self._session.world.size, "device": device()},
            "processes": processes_by_step(self._first_processes, self.metrics.rows),
            "versions": versions(),
        }
        write_result(folder, result)
        if self.metrics.validation.get("step") == used_step:
            self.metrics.save_validation(folder)
        write_report(folder, self._report(result))
        self._write_card(result)
        (folder / LOGS).mkdir(exist_ok=True)
        self.metrics.close()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Have trackers show if this attempt fails, or is to be resumed by another one."""
        try:
            yield
        except BaseException as error:
            if self.metrics is not None:
                self._end_early(self.metrics, error)
            raise

    def _end_early(self, metrics: Metrics, error: BaseException) -> None:
        resumes = isinstance(error, StoppedError | MemoryShortError)
        left = self._session.stop.seconds_left()
        # One second is left to report the end.
        seconds = CLOSE_SECONDS if left is None else max(0.0, min(STOP_SECONDS, left - 1))
        metrics.end_early(AttemptEnd.STOPPED if resumes else AttemptEnd.FAILED, seconds)

    def _memory(self) -> dict[str, Any]:
        """Return what each attempt took of memory, if it ran out in one."""
        notes = self._session.notes
        return {"memory": notes.all} if notes.any_short else {}

    def _report(self, result: dict[str, Any]) -> dict[str, Any]:
        assert self.metrics is not None
        prepared, loss = self._inputs.prepared, result["validationLoss"]
        summary = [("Model", result["model"]), ("Method", result["method"])]
        summary += [("Trained", self._trained.sentence()), ("Steps", result["steps"])]
        if loss["before"] is not None:
            summary += [("Validation loss before", loss["before"]), ("Validation loss after", loss["after"])]
        summary += [("Seconds", result["seconds"]), ("Device", result["world"]["device"])]
        summary += [("Processes", processes_in_words(result["processes"]))]
        return {
            "title": f"{self._session.run.name}",
            "summary": summary,
            "metrics": [row for row in self.metrics.rows if "loss" in row],
            "evals": [row for row in self.metrics.rows if "eval_loss" in row],
            "samples": sample_values(prepared, self._inputs.tokenizer),
            "previews": result["previews"],
            "evaluations": result["evaluation"],
            "datasets": result["datasets"],
            "lengths": prepared.lengths(),
            "config": self._session.run.result_fields(),
            "versions": result["versions"],
            "notes": self._notes(result),
        }

    def _notes(self, result: dict[str, Any]) -> list[str]:
        notes = [f"Trained on {result['world']['device']}, by {processes_in_words(result['processes'])}."]
        if memory := result.get("memory"):
            short = [str(note["attempt"]) for note in memory if note["ranShort"]]
            fit = Fit.from_json(memory[-1]).sentence(int(self._inputs.prepared.train.lengths.max(initial=1)))
            notes.append(f"Memory ran out in attempt {', '.join(short)}; the last one had {fit}.")
        if result["stoppedEarly"]:
            notes.append(f"Stopped early; the weights of step {result['usedStep']} are the final model.")
        if self._session.spec.training.packing == "tree":
            notes.append(self._packing())
        return notes

    def _packing(self) -> str:
        """Describe what tree packing saved, from the metrics' counts."""
        assert self.metrics is not None
        tokens, computed = (
            sum(row.get(name, 0) for row in self.metrics.rows) for name in ("tokens", "tokens_computed")
        )
        if any(row.get("tree_packing") == 0 for row in self.metrics.rows):
            return "Tree packing was off (see the log): samples were padded, with the same loss."
        share = f", {tokens / computed:.1f} times as many as were computed" if computed else ""
        return f"Tree packing: prefixes that samples share were computed once. {tokens:,} tokens{share}."

    def _write_card(self, result: dict[str, Any]) -> None:
        loss, notes, folder = result["validationLoss"], [], self._folder / FINAL_MODEL
        if loss["before"] is not None:
            notes.append(f"Validation loss: {loss['before']:.4f} before, {loss['after']:.4f} after.")
        notes += filter(None, [card_section(read_presets(folder))])
        made = f"{result['method']} on {result['model']}, {result['steps']} steps"
        self._exports.write_card(self._model, folder, made, notes)
