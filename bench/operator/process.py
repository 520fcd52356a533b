"""The operator as a process: how it is started, and what it uses and says of itself."""

import asyncio
import os
import subprocess
import urllib.request
from pathlib import Path

METRICS, HEALTH = 18092, 18091


def start(namespace: str, module: list[str], log: Path, kubeconfig: Path | str) -> subprocess.Popen:
    settings = {
        "KUBECONFIG": str(kubeconfig),
        "TUNESMITH_NAMESPACES": namespace,
        "TUNESMITH_PORT": str(HEALTH),
        "TUNESMITH_METRICS_PORT": str(METRICS),
    }
    return subprocess.Popen(module, env=os.environ | settings, stderr=log.open("wb"))


def metrics() -> dict[str, float]:
    """Every sample of /metrics, by its name with labels; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line[0] != "#"}


def attempts() -> float:
    return sum(value for name, value in metrics().items() if name.startswith("tunesmith_attempts_total"))


def in_phase(phase: str) -> float:
    return metrics().get(f'tunesmith_jobs{{kind="FineTuneJob",phase="{phase}"}}', 0)


def megabytes(process: subprocess.Popen) -> float:
    """Resident memory now."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu(process: subprocess.Popen) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def quiet(process: subprocess.Popen, seconds: float) -> float:
    """CPU seconds used in some seconds when nothing happens."""
    before = cpu(process)
    await asyncio.sleep(seconds)
    return cpu(process) - before
