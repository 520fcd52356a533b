"""A burst of jobs, many finished jobs at start, and a bare kopf handler beside: see README.md.

KUBECONFIG=… python bench/operator/burst.py burst|peer|finished [COUNT]
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import httpx2
import lightkube
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import PatchType

JOB = create_namespaced_resource("tunesmith.dev", "v1alpha1", "FineTuneJob", "finetunejobs")
CHILD = create_namespaced_resource("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs")
CONFIG_MAP = create_namespaced_resource("", "v1", "ConfigMap", "configmaps")
METRICS, HEALTH = 18092, 18091
WRITES = ("create", "patch", "delete")


def job(i: int) -> dict:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": f"job{i}"},
        "spec": {
            "model": {"uri": "s3://models/base"},
            "datasets": [{"uri": "s3://data/train.jsonl", "chat": {}}],
            "method": {"lora": {}},
            "output": {"uri": f"s3://models/job{i}"},
        },
    }


def client() -> lightkube.AsyncClient:
    return lightkube.AsyncClient(timeout=httpx2.Timeout(60))


async def in_parallel(make, count: int, at_once: int = 20) -> None:
    gate = asyncio.Semaphore(at_once)

    async def one(i: int) -> None:
        async with gate:
            await make(i)

    await asyncio.gather(*(one(i) for i in range(count)))


async def count_of(api: lightkube.AsyncClient, kind, namespace: str) -> int:
    return sum([1 async for _ in api.list(kind, namespace=namespace, chunk_size=500)])


def start(namespace: str, module: list[str], log: Path) -> subprocess.Popen:
    settings = {
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


def calls(found: dict[str, float], verbs) -> float:
    return sum(found.get(f'tunesmith_api_calls_total{{verb="{verb}"}}', 0) for verb in verbs)


def attempts(found: dict[str, float]) -> float:
    return sum(value for name, value in found.items() if name.startswith("tunesmith_attempts_total"))


def megabytes(process: subprocess.Popen) -> float:
    """Resident memory now."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu(process: subprocess.Popen) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def quiet(process: subprocess.Popen, seconds: float = 10.0) -> float:
    """CPU seconds used in some seconds when nothing happens."""
    before = cpu(process)
    await asyncio.sleep(seconds)
    return cpu(process) - before


async def until(look, every: float = 0.5, most: float = 900.0) -> None:
    deadline = time.monotonic() + most
    while not await look():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(every)


async def settled(last: dict) -> bool:
    """Whether no call was made since the last time."""
    before = last.get("calls")
    last["calls"] = sum(value for name, value in metrics().items() if "api_calls_total" in name)
    return last["calls"] > 0 and last["calls"] == before


async def burst(api, namespace: str, count: int, log: Path) -> dict:
    process = start(namespace, [sys.executable, "-m", "tunesmith_operator"], log)
    try:
        await until(lambda: asyncio.sleep(0, bool(metrics())))
        await asyncio.sleep(3)
        empty, begun = megabytes(process), time.monotonic()
        await in_parallel(lambda i: api.create(JOB(job(i)), namespace=namespace), count)
        applied = time.monotonic() - begun
        await until(lambda: asyncio.sleep(0, attempts(metrics()) >= count))
        done = time.monotonic() - begun
        assert await count_of(api, CHILD, namespace) == count
        last: dict = {}
        await until(lambda: settled(last), 3)
        found, used = metrics(), cpu(process)
        idle = await quiet(process)
        return {
            "jobs": count,
            "seconds to apply": applied,
            "seconds until all have their PyTorchJob": done,
            "writes a job": calls(found, WRITES) / count,
            "errors": sum(v for n, v in found.items() if "api_errors_total" in n),
            "CPU seconds": used,
            "MiB before": empty,
            "MiB after": megabytes(process),
            "CPU seconds in 10 quiet seconds": idle,
            "calls in 10 quiet seconds": calls(metrics(), (*WRITES, "get")) - calls(found, (*WRITES, "get")),
        }
    finally:
        process.kill()
        process.wait()


async def peer(api, namespace: str, count: int, log: Path) -> dict:
    module = [sys.executable, str(Path(__file__).with_name("peer.py"))]
    process = start(namespace, module, log)
    try:
        await asyncio.sleep(5)
        empty, begun = megabytes(process), time.monotonic()
        await in_parallel(lambda i: api.create(JOB(job(i)), namespace=namespace), count)
        applied = time.monotonic() - begun

        async def all_there() -> bool:
            found = api.list(CONFIG_MAP, namespace=namespace, labels={"bench": "peer"}, chunk_size=500)
            return sum([1 async for _ in found]) >= count

        await until(all_there, 2)
        return {
            "jobs": count,
            "seconds to apply": applied,
            "seconds until all have their object": time.monotonic() - begun,
            "CPU seconds": cpu(process),
            "MiB before": empty,
            "MiB after": megabytes(process),
            "CPU seconds in 10 quiet seconds": await quiet(process),
        }
    finally:
        process.kill()
        process.wait()


FINISHED = {
    "phase": "Succeeded",
    "reason": "Published",
    "message": "The result is there.",
    "attempts": 1,
    "launches": 1,
    "startTime": "2026-01-01T00:00:00Z",
    "completionTime": "2026-01-01T01:00:00Z",
}


async def finished(api, namespace: str, count: int, log: Path) -> dict:
    async def make(i: int) -> None:
        await api.create(JOB(job(i)), namespace=namespace)
        patch = {"status": FINISHED}
        await api.patch(JOB.Status, f"job{i}", patch, namespace=namespace, patch_type=PatchType.MERGE)

    await in_parallel(make, count)
    begun = time.monotonic()
    process = start(namespace, [sys.executable, "-m", "tunesmith_operator"], log)
    try:
        await until(lambda: asyncio.sleep(0, bool(metrics())), 0.2)
        listed = time.monotonic() - begun
        last = [0.0]

        async def calm() -> bool:
            before, last[0] = last[0], cpu(process)
            return last[0] - before < 0.1

        await asyncio.sleep(2)
        await until(calm, 1)
        return {
            "jobs": count,
            "seconds until listed": listed,
            "seconds until quiet": time.monotonic() - begun,
            "writes": calls(metrics(), WRITES),
            "CPU seconds": cpu(process),
            "MiB": megabytes(process),
            "CPU seconds in 10 quiet seconds": await quiet(process),
        }
    finally:
        process.kill()
        process.wait()


async def main() -> None:
    what = {"burst": burst, "peer": peer, "finished": finished}[sys.argv[1]]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else {"finished": 5000}.get(sys.argv[1], 1000)
    api, namespace = client(), f"tunesmith-bench-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", namespace)
    log = Path(tempfile.mkdtemp()) / "operator.log"
    try:
        seen = await what(api, namespace, count, log)
        print(json.dumps({name: round(value, 2) for name, value in seen.items()}, indent=1))
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def kubectl(*arguments: str) -> None:
    subprocess.run(["kubectl", *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    asyncio.run(main())
