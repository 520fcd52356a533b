"""A burst of jobs, many finished jobs at start, and a bare kopf handler beside: see README.md.

KUBECONFIG=… [TUNESMITH_BACKEND=trainjob] python bench/operator/burst.py burst|peer|finished [COUNT]
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from counting import Counting
from process import attempts, cpu, in_phase, megabytes, metrics, quiet, start

from tunesmith_operator.api_client import ApiClient
from tunesmith_operator.cluster import CHILDREN, CONFIG_MAP, JOBS, POD

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.cluster.backends import PyTorchJobs, TrainJobs

BACKEND = TrainJobs() if os.environ.get("TUNESMITH_BACKEND") == "trainjob" else PyTorchJobs()
JOB, CHILD = JOBS["FineTuneJob"], CHILDREN[BACKEND.kind]
QUIET = 60.0


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


async def in_parallel(make, count: int, at_once: int = 20) -> None:
    gate = asyncio.Semaphore(at_once)

    async def one(i: int) -> None:
        async with gate:
            await make(i)

    await asyncio.gather(*(one(i) for i in range(count)))


async def until(look, every: float = 0.5, most: float = 900.0) -> None:
    deadline = time.monotonic() + most
    while not await look():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(every)


async def settled(proxy: Counting, last: dict) -> bool:
    """Whether nothing was written since the last time."""
    before, last["writes"] = last.get("writes"), proxy.writes().total()
    return last["writes"] > 0 and last["writes"] == before


async def still(process: subprocess.Popen, proxy: Counting) -> dict:
    """What is used and written in a minute when nothing happens."""
    before, used = proxy.writes(), await quiet(process, QUIET)
    late = proxy.writes() - before
    return {f"CPU seconds in {QUIET:.0f} quiet seconds": used, "writes in them": late.total()}


def a_job(writes, count: int) -> dict:
    """Writes a job, all and each kind."""
    return {"writes a job": writes.total() / count} | {
        f"  {name}": number / count for name, number in writes.most_common()
    }


class Moving:
    """Plays the kubelet and the controller of attempts' objects for all jobs of a namespace."""

    def __init__(self, api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    async def read(self) -> None:
        """The objects of attempts there are."""
        self.children = [child async for child in self.api.pages(CHILD, self.namespace)]

    async def condition(self, i: int, kind: str) -> None:
        child = self.children[i]
        status = BACKEND.status({"metadata": child["metadata"]}, kind, "")
        await self._patch(CHILD, child["metadata"]["name"], {"status": status})

    async def run(self, i: int) -> None:
        await self.condition(i, "Running")

    async def succeed(self, i: int) -> None:
        """A rank-0 pod that ended with the word of a published result, then its object's success."""
        name, labels, owner = BACKEND.pod(self.children[i], "master")
        # No scheduler gives it to a node, whose kubelet would write another status over ours.
        containers = [{"name": BACKEND.container, "image": "x"}]
        spec = {"containers": containers, "automountServiceAccountToken": False, "schedulerName": "none"}
        metadata = {"name": name, "labels": labels, "ownerReferences": [owner]}
        await self.api.create(POD, self.namespace, {"metadata": metadata, "spec": spec})
        word = json.dumps({"reason": "Succeeded", "manifest": "0" * 64})
        state = {"terminated": {"exitCode": 0, "reason": "Completed", "message": word}}
        container = {
            "name": BACKEND.container,
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
        }
        status = {"phase": "Succeeded", "containerStatuses": [container | {"state": state}]}
        await self._patch(POD, name, {"status": status})
        await self.condition(i, "Succeeded")

    async def _patch(self, resource, name: str, patch: dict) -> None:
        await self.api.patch(resource, self.namespace, name, patch, "status")


async def burst(api, namespace: str, count: int, log: Path, proxy: Counting) -> dict:
    """From creation to Succeeded, all jobs together; then a quiet minute."""
    process = start(namespace, [sys.executable, "-m", "tunesmith_operator"], log, proxy.kubeconfig)
    moving = Moving(api, namespace)
    try:
        await until(lambda: asyncio.sleep(0, bool(metrics())))
        await asyncio.sleep(3)
        empty, begun = megabytes(process), time.monotonic()
        await in_parallel(lambda i: api.create(JOB, namespace, job(i)), count)
        applied = time.monotonic() - begun
        await until(lambda: asyncio.sleep(0, attempts() >= count))
        made = time.monotonic() - begun
        last: dict = {}
        await until(lambda: settled(proxy, last), 3)
        launched, used = proxy.writes(), cpu(process)
        await moving.read()
        assert len(moving.children) == count
        await in_parallel(moving.run, count)
        await until(lambda: asyncio.sleep(0, in_phase("Running") >= count))
        await in_parallel(moving.succeed, count)
        await until(lambda: asyncio.sleep(0, in_phase("Succeeded") >= count))
        done = time.monotonic() - begun
        await until(lambda: settled(proxy, last), 3)
        total, writes = cpu(process), proxy.writes()
        return {
            "jobs": count,
            "seconds to apply": applied,
            "seconds until all have their object": made,
            "seconds until all have succeeded": done,
            "writes a job until its object is there": launched.total() / count,
            **a_job(writes, count),
            "failed requests": sum(v for n, v in metrics().items() if "api_errors_total" in n),
            "CPU seconds until all have their object": used,
            "CPU seconds": total,
            "MiB before": empty,
            "MiB after": megabytes(process),
            **await still(process, proxy),
        }
    finally:
        process.kill()
        process.wait()


async def peer(api, namespace: str, count: int, log: Path, proxy: Counting) -> dict:
    module = [sys.executable, str(Path(__file__).with_name("peer.py"))]
    process = start(namespace, module, log, proxy.kubeconfig)
    try:
        await asyncio.sleep(5)
        empty, begun = megabytes(process), time.monotonic()
        await in_parallel(lambda i: api.create(JOB, namespace, job(i)), count)
        applied = time.monotonic() - begun

        async def all_there() -> bool:
            found = api.pages(CONFIG_MAP, namespace, labelSelector="bench=peer")
            return sum([1 async for _ in found]) >= count

        await until(all_there, 2)
        made, last = time.monotonic() - begun, {}
        await until(lambda: settled(proxy, last), 3)
        return {
            "jobs": count,
            "seconds to apply": applied,
            "seconds until all have their object": made,
            **a_job(proxy.writes(), count),
            "CPU seconds": cpu(process),
            "MiB before": empty,
            "MiB after": megabytes(process),
            **await still(process, proxy),
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


async def finished(api, namespace: str, count: int, log: Path, proxy: Counting) -> dict:
    async def make(i: int) -> None:
        await api.create(JOB, namespace, job(i))
        patch = {"status": FINISHED}
        await api.patch(JOB, namespace, f"job{i}", patch, "status")

    await in_parallel(make, count)
    begun = time.monotonic()
    process = start(namespace, [sys.executable, "-m", "tunesmith_operator"], log, proxy.kubeconfig)
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
            "writes": proxy.writes().total(),
            "CPU seconds": cpu(process),
            "MiB": megabytes(process),
            **await still(process, proxy),
        }
    finally:
        process.kill()
        process.wait()


async def main() -> None:
    what = {"burst": burst, "peer": peer, "finished": finished}[sys.argv[1]]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else {"finished": 5000}.get(sys.argv[1], 1000)
    api, namespace = await ApiClient.connect(), f"tunesmith-bench-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", namespace)
    kubectl("create", "serviceaccount", "tunesmith-job", "--namespace", namespace)
    log = Path(tempfile.mkdtemp()) / "operator.log"
    try:
        with Counting(log.parent) as proxy:
            seen = await what(api, namespace, count, log, proxy)
        print(json.dumps({name: round(value, 2) for name, value in seen.items()}, indent=1))
    finally:
        await api.close()
        kubectl("delete", "namespace", namespace, "--wait=false")


def kubectl(*arguments: str) -> None:
    subprocess.run(["kubectl", *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    asyncio.run(main())
