"""`result.json` and `report.html`, and the report's values, so that a part can be replaced later."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.names import REPORT_DATA_KEY, REPORT_KEY, RESULT_KEY
from tunesmith.report.finetune import render_finetune_report


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write result.json."""
    (folder / RESULT_KEY).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_report(folder: Path, data: Mapping[str, Any]) -> None:
    """Write report.html and, as report.json, the values it shows (see `render_finetune_report`)."""
    (folder / REPORT_DATA_KEY).write_text(json.dumps(data, ensure_ascii=False) + "\n", "utf-8")
    (folder / REPORT_KEY).write_text(render_finetune_report(data), "utf-8")


def device() -> str:
    """Describe the hardware of this machine."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(0)}"
    return f"CPU, {os.cpu_count()} cores"
