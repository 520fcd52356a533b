"""`tunesmith run`: the jobs of some manifests, one after the other, on this machine.

Plans each job as the operator does and starts its processes as the training operator does; does not depend on
what the processes do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.text import Text

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.manifest import Job
from tunesmith.api.references import Key, references, target_key
from tunesmith.api.status import MAX_OUT_OF_MEMORY
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import Store, storage_options
from tunesmith.artifacts.transfer import get_tree
from tunesmith.local.evaluation_display import show_evaluation
from tunesmith.local.job_display import JobProgress, show_dialogues, show_result, show_sampling
from tunesmith.local.launch import Devices, Launch, LaunchResult, free_port, pod_environment
from tunesmith.local.live import RunPage, open_browser
from tunesmith.local.storage import RunStorage, SeedUpload, own_s3_in_words, run_storage, variables
from tunesmith.local.workdir import JobFolder, WorkDir, ran_out_of_memory, shown_path
from tunesmith.names import (
    DRY_RUN,
    DRY_RUN_KEY,
    FINAL_MODEL,
    REPORT_KEY,
    RESULT_KEY,
    SAMPLING_STATS_KEY,
    STATS_KEY,
    USER_REASONS,
    Kind,
    Reason,
)
from tunesmith.plan.build import build, output_uris
from tunesmith.plan.pod_template import engines_of, processes_per_node
from tunesmith.text import visible

DEFAULT_WORK_DIR = Path(".tunesmith")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run."""

    work_dir: Path = DEFAULT_WORK_DIR
    keep_going: bool = False
    processes: int | None = None
    seeds: Sequence[SeedUpload] = ()
    open_page: bool = False


@dataclass(slots=True)
class LocalRun:
    """One call of `tunesmith run`. `jobs` are in order: those that others wait for come first."""

    jobs: list[Job]
    options: RunOptions
    console: Console
    failed: dict[Key, int] = field(default_factory=dict)
    page: RunPage = field(init=False)

    def __post_init__(self) -> None:
        self.page = RunPage(self.jobs)

    def run(self) -> int:
        """Run everything in order. Return the exit code: 0, 1 (a job failed) or 2 (the user's mistake)."""
        work = WorkDir(self.options.work_dir)
        done = 0
        if self.options.open_page:
            self._open_page()
        with closing(self.page), run_storage(self.jobs, self.options.seeds, work.s3) as storage:
            self._tell_storage(storage, work)
            for job in self.jobs:
                done += 1
                code = self._one(job, work.job(job), storage)
                if code:
                    self.failed[job.key] = code
                    if not self.options.keep_going:
                        break
        self._sum_up(self.jobs[done:])
        return max(self.failed.values(), default=0)

    def _open_page(self) -> None:
        if not self.page.url:
            self._say("No port of 127.0.0.1 could be opened for the page of this run")
            return
        opened = open_browser(self.page.url)
        self._say(f"{'opened' if opened else 'open'} {self.page.url} to watch this run")

    def _tell_storage(self, storage: RunStorage, work: WorkDir) -> None:
        if storage.server is not None:
            url = storage.server.endpoint_url
            self._say(f"s3:// is the embedded S3 at {url}, data in {shown_path(work.s3)}")
        if storage.other is not None:
            of_job = f" for {storage.other.subject}" if storage.server is not None else ""
            self._say(f"s3:// is {own_s3_in_words(storage.other, os.environ)}{of_job}")
        storage.put(self.options.seeds)
        for uri, path in self.options.seeds:
            self._say(f"seeded {uri} from {path}")

    def _say(self, text: str) -> None:
        self.console.print(Text(text, style="dim"), soft_wrap=True)

    def _one(self, job: Job, folder: JobFolder, storage: RunStorage) -> int:
        blocked = [ref for ref in references(job) if target_key(job, ref) in self.failed]
        if blocked:
            target = blocked[0].target
            self._fail(job, Reason.DEPENDENCY_FAILED, f"{target.kind} {target.name} failed", None)
            return 1
        environment = storage.environment(job)
        with folder.locked() as lock:
            outcome = self._attempts(job, folder, environment, lock)
            word = outcome.termination or {}
            if outcome.code == 0 and word.get("reason") == "Succeeded":
                folder.ended()
                self._succeed(job, folder, environment)
                return 0
            code = self._explain(job, folder, outcome)
        if word.get("reason") == Reason.STORAGE_REFUSED and job.key in storage.embedded:
            self._say(
                "The embedded S3 has outputs of earlier jobs and the files of --seed s3://bucket/key=PATH; "
                "--set FIELD=PATH uses a file or folder instead, such as --set model.uri=PATH."
            )
        return code

    def _attempts(
        self, job: Job, folder: JobFolder, environment: Mapping[str, str], lock: int
    ) -> LaunchResult:
        """Make one attempt, and the next ones at once as long as memory runs out: each takes less of it."""
        while True:
            outcome = self._launch(job, folder, environment, lock)
            if not ran_out_of_memory(outcome.termination):
                return outcome
            folder.note_out_of_memory()
            if len(folder.out_of_memory()) > MAX_OUT_OF_MEMORY:
                return outcome
            assert outcome.termination is not None
            said = visible(str(outcome.termination.get("message", "")))
            self._say(f"{job.subject} ran out of memory: {said}")

    def _launch(self, job: Job, folder: JobFolder, environment: Mapping[str, str], lock: int) -> LaunchResult:
        attempt = folder.attempt()
        plan = build(job, output_uris(self.jobs), out_of_memory=folder.out_of_memory())
        folder.run_json.write_text(plan.run.to_json(), "utf-8")
        port = free_port()
        pod = pod_environment(
            folder,
            attempt=attempt,
            devices=self._devices(job),
            cores=os.cpu_count() or 1,
            progress_port=port,
            page_key=self.page.key,
        )
        launch = Launch(folder, {**environment, **pod}, port, lock)
        self.page.begin(job, folder, launch.live)
        with JobProgress(self.console, job.name) as bar:
            try:
                return launch.wait(bar.tell)
            except KeyboardInterrupt:
                self.console.print(f"Stopping {job.subject}: the current step is finished and saved.")
                self.page.end(job, "stopped", "Stopped. Run the same command again to resume.")
                raise
            finally:
                launch.stop()

    def _devices(self, job: Job) -> Devices:
        """Return what the job gets of this machine; the manifest's numbers are an upper limit here."""
        asked = job.spec.resources
        available = _gpus() if asked.gpus_per_node else 0
        used = min(asked.gpus_per_node * asked.nodes, available)
        engines = engines_of(job.spec, used)
        wanted = engines_of(job.spec, asked.gpus_per_node) or processes_per_node(job.kind, job.spec)
        number = self.options.processes or engines or min(max(1, used), wanted * asked.nodes)
        if (asked.gpus_per_node or asked.nodes > 1) and not (used and number == wanted * asked.nodes):
            what = f"{used} of this machine's {available} GPUs" if used else "the CPU"
            word = ("engine" if engines else "process") + ("" if number == 1 else "s" if engines else "es")
            self._say(
                f"{job.subject} asks for {_wish(asked.nodes, asked.gpus_per_node)}; "
                f"using {what} with {number} {word}"
            )
        return Devices(1, number, used > 0) if engines else Devices(number, 1, used > 0)

    def _succeed(self, job: Job, folder: JobFolder, environment: Mapping[str, str]) -> None:
        new = folder.keep_output()
        ending = "succeeded" if new else "was already finished; nothing was done"
        self.page.end(job, "succeeded", f"{job.subject} {ending}")
        self.console.print(Text.assemble(("✔ ", "bold green"), f"{job.subject} {ending}"), soft_wrap=True)
        with variables(environment):
            store = open_store(job.spec.output.uri, storage_options(job.spec.storage))
            key = _result_key(job)
            result: dict[str, Any] = json.loads(store.read(key))
            if not folder.output.exists() and not key.startswith(DRY_RUN):
                _fetch_output(store, key, result, folder)
        if job.kind != Kind.FINE_TUNE:
            show = show_sampling if job.kind == Kind.REJECTION_SAMPLE else show_dialogues
            show(self.console, result, folder, job.spec.output.uri)
            return
        if result["method"] == "none":
            show_evaluation(self.console, result, folder, job.spec.output.uri)
            return
        work = self.options.work_dir
        options = "" if work == DEFAULT_WORK_DIR else f" --work-dir {quote(str(work))}"
        show_result(self.console, result, folder, job.spec.output.uri, options)

    def _explain(self, job: Job, folder: JobFolder, outcome: LaunchResult) -> int:
        word = outcome.termination
        if word is None or word.get("reason") == "Succeeded":
            how = "a process was killed or exited without reporting a reason"
            how = f"{how} (the launcher exited with {outcome.code})"
            self._fail(job, Reason.PROCESS_DIED, f"{how}. Run it again to resume.", folder)
            return 1
        if word.get("permanent"):
            folder.ended()
        reason = str(word.get("reason"))
        self._fail(job, reason, str(word.get("message", "")), folder)
        return 2 if reason in USER_REASONS else 1

    def _fail(self, job: Job, reason: str, message: str, folder: JobFolder | None) -> None:
        self.page.end(job, "failed", f"{job.subject} failed: {visible(reason)}: {visible(message)}")
        cross, why = ("✘ ", "bold red"), (visible(reason), "bold")
        text = Text.assemble(cross, f"{job.subject} failed: ", why, f": {visible(message)}")
        self.console.print(text, soft_wrap=True)
        if folder is not None:
            self._say(f"log: {shown_path(folder.log())}")

    def _sum_up(self, left: Sequence[Job]) -> None:
        """Print how several jobs ended, if not all of them succeeded."""
        if left:
            names = ", ".join(job.subject for job in left)
            self._say(f"not started: {names} (--keep-going runs what does not depend on a failed job)")
        elif self.failed and len(self.jobs) > 1:
            self._say(f"{len(self.jobs) - len(self.failed)} of {len(self.jobs)} jobs succeeded")


def _result_key(job: Job) -> str:
    """Return the file that says how the job went."""
    if isinstance(job.spec, DialogueGenSpec):
        return f"{DRY_RUN}/{DRY_RUN_KEY}" if job.spec.dry_run else STATS_KEY
    return RESULT_KEY if job.kind == Kind.FINE_TUNE else SAMPLING_STATS_KEY


def _gpus() -> int:
    """Return the number of GPUs of this machine; importing torch for it takes seconds."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _wish(nodes: int, gpus: int) -> str:
    each = f"{gpus} GPU{'s' if gpus != 1 else ''}"
    return each if nodes == 1 else f"{nodes} nodes of {each}"


def _fetch_output(store: Store, key: str, result: Mapping[str, Any], folder: JobFolder) -> None:
    """Download the report and an adapter, if the run that made them could not keep them."""
    folder.output.mkdir()
    for name in (key, REPORT_KEY):
        store.get_file(name, folder.output / name)
    if result.get("method") in ("lora", "qlora"):
        get_tree(store, FINAL_MODEL, folder.output / FINAL_MODEL)
