"""`tunesmith run`: the jobs of some manifests, one after the other, on this machine.

Plans each job as the operator does and starts its processes as the training operator does; knows nothing of
what the processes do inside.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tunesmith.api.manifest import Job
from tunesmith.api.references import Key, references, target_key
from tunesmith.artifacts.store import StorageOptions, open_store
from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.local.launch import Launch, Outcome, free_port, pod_environment
from tunesmith.local.show import JobProgress, show_result
from tunesmith.local.storage import (
    credentials,
    make_buckets,
    own_s3,
    put_seed,
    s3_uris,
    uses_embedded,
)
from tunesmith.local.workdir import JobFolder, WorkDir, result_of
from tunesmith.names import RESULT_KEY, USER_REASONS, Kind, Reason
from tunesmith.plan.build import build, output_uris
from tunesmith.plan.pytorchjob import processes_per_node


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run."""

    work_dir: Path
    keep_going: bool = False
    processes: int | None = None
    seeds: Sequence[tuple[str, Path]] = ()


@dataclass(slots=True)
class LocalRun:
    """One call of `tunesmith run`."""

    jobs: list[Job]
    options: RunOptions
    console: Console
    failed: dict[Key, int] = field(default_factory=dict)

    def run(self) -> int:
        """Run everything in order. Returns the exit code: 0, 1 (a job failed) or 2 (the user's mistake)."""
        work = WorkDir(self.options.work_dir)
        with ExitStack() as stack:
            environment = self._storage(work, stack)
            for job in self.jobs:
                code = self._one(job, work.job(job), environment)
                if code:
                    self.failed[job.key] = code
                    if not self.options.keep_going:
                        break
        return max(self.failed.values(), default=0)

    def _storage(self, work: WorkDir, stack: ExitStack) -> dict[str, str]:
        """Start the embedded S3 if it is meant, and put the seeds. Returns its environment."""
        using = [job for job in self.jobs if uses_embedded(job, os.environ)]
        environment: dict[str, str] = {}
        seeded = [uri for uri, _ in self.options.seeds]
        options = StorageOptions()
        if using or (seeded and not own_s3(os.environ) and not self._endpoint()):
            server = stack.enter_context(EmbeddedS3(work.s3))
            make_buckets(server, {uri for job in using for uri in s3_uris(job)} | set(seeded))
            environment = server.environment()
            self._say(f"s3:// is the embedded S3 at {server.endpoint_url}, data in {work.s3}")
        elif any(s3_uris(job) for job in self.jobs):
            where = self._endpoint() or f"what {own_s3(os.environ)} says"
            self._say(f"s3:// is {where}")
            options = StorageOptions(self._endpoint())
        os.environ.update(environment)  # for our own reading and writing, in this process
        for uri, path in self.options.seeds:
            put_seed(uri, path, options)
            self._say(f"seeded {uri} from {path}")
        return environment

    def _endpoint(self) -> str | None:
        return next((j.spec.storage.endpoint_url for j in self.jobs if j.spec.storage.endpoint_url), None)

    def _say(self, text: str) -> None:
        self.console.print(Text(text, style="dim"), soft_wrap=True)

    def _one(self, job: Job, folder: JobFolder, environment: Mapping[str, str]) -> int:
        blocked = [ref for ref in references(job) if target_key(job, ref) in self.failed]
        if blocked:
            target = blocked[0].target
            self._fail(job, Reason.DEPENDENCY_FAILED, f"{target.kind} {target.name} failed", None)
            return 1
        with folder.locked():
            outcome = self._launch(job, folder, environment)
            word = outcome.termination or {}
            if outcome.code == 0 and word.get("reason") == "Succeeded":
                folder.ended()
                self._succeed(job, folder)
                return 0
            return self._explain(job, folder, outcome)

    def _launch(self, job: Job, folder: JobFolder, environment: Mapping[str, str]) -> Outcome:
        plan = build(job, output_uris(self.jobs))
        folder.run_json.write_text(plan.run.to_json(), "utf-8")
        processes, gpus = self._devices(job)
        port = free_port()
        pod = pod_environment(
            folder,
            attempt=folder.attempt(),
            processes=processes,
            cores=os.cpu_count() or 1,
            progress_port=port,
            gpus=gpus,
        )
        launch = Launch(folder, {**environment, **credentials(job), **pod}, port)
        with JobProgress(self.console, job.name) as bar:
            try:
                return launch.wait(bar.tell)
            except KeyboardInterrupt:
                self.console.print(f"Stopping {job.subject}: the step under way is finished and saved.")
                launch.stop()
                raise

    def _devices(self, job: Job) -> tuple[int, bool]:
        """How many processes, and whether they have GPUs; the manifest's numbers are a wish here."""
        import torch

        wanted = processes_per_node(job.kind, job.spec) * job.spec.resources.nodes
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if available and job.spec.resources.gpus_per_node:
            processes = self.options.processes or min(wanted, available)
        else:
            processes = self.options.processes or 1
        gpus = available > 0 and job.spec.resources.gpus_per_node > 0
        asked = job.spec.resources
        if (asked.gpus_per_node or asked.nodes > 1) and not (gpus and processes == wanted):
            here = f"{processes} of this machine's {available} GPUs" if gpus else "the CPU"
            self._say(
                f"{job.subject} asks for {asked.nodes} × {asked.gpus_per_node} GPUs; "
                f"using {here} with {processes} process{'es' if processes > 1 else ''}"
            )
        return processes, gpus

    def _succeed(self, job: Job, folder: JobFolder) -> None:
        new = any(folder.scratch.glob("launch-*/output"))
        folder.keep_output() if new else None
        ending = "succeeded" if new else "was finished already; nothing was done"
        self.console.print(Text.assemble(("✔ ", "bold green"), f"{job.subject} {ending}"))
        if job.kind != Kind.FINE_TUNE:
            return
        result = result_of(folder) or self._fetch_result(job)
        show_result(self.console, result, folder, job.spec.output.uri)

    def _fetch_result(self, job: Job) -> dict[str, Any]:
        import json

        storage = job.spec.storage
        options = StorageOptions(storage.endpoint_url, storage.region, storage.checksums)
        result: dict[str, Any] = json.loads(open_store(job.spec.output.uri, options).read(RESULT_KEY))
        return result

    def _explain(self, job: Job, folder: JobFolder, outcome: Outcome) -> int:
        word = outcome.termination
        if word is None or word.get("reason") == "Succeeded":
            how = (
                f"a process was ended by signal or died without a word (launcher's exit code {outcome.code})"
            )
            self._fail(job, Reason.PROCESS_DIED, f"{how}. Run it again to go on.", folder)
            return 1
        if word.get("permanent"):
            folder.ended()
        reason = str(word.get("reason"))
        self._fail(job, reason, str(word.get("message", "")), folder)
        return 2 if reason in USER_REASONS else 1

    def _fail(self, job: Job, reason: str, message: str, folder: JobFolder | None) -> None:
        self.console.print(
            Text.assemble(("✘ ", "bold red"), f"{job.subject} failed: ", (reason, "bold"), f": {message}"),
            soft_wrap=True,
        )
        if folder is not None:
            log = folder.logs / "rank-0.log"
            self._say(f"log: {log if log.exists() else folder.logs / 'launcher.log'}")
