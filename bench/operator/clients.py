"""What requests cost the operator's process: plain dicts, or the official client's models. See README.md.

KUBECONFIG=… python bench/operator/clients.py plain|models [COUNT]
"""

import asyncio
import json
import os
import sys
import time
import uuid
from pathlib import Path

import kopf  # noqa: F401 what the operator has in memory anyway

from tunesmith_operator.api_client import ApiClient
from tunesmith_operator.cluster import CONFIG_MAP


def config_map(name: str) -> dict:
    labels = {f"example.dev/label{i}": "value" for i in range(8)}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"run.json": "x" * 3000}}


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Plain:
    """As the operator does it."""

    @classmethod
    async def connect(cls) -> "Plain":
        api = cls()
        api.client = await ApiClient.connect()
        return api

    async def create(self, body: dict) -> None:
        await self.client.create(CONFIG_MAP, "default", body)

    async def patch(self, name: str, patch: dict) -> None:
        await self.client.patch(CONFIG_MAP, "default", name, patch)

    async def list_all(self) -> list[dict]:
        return [body async for body in self.client.pages(CONFIG_MAP, "default")]

    async def close(self) -> None:
        await self.client.close()


class Models(Plain):
    """By CoreV1Api, and back to the dicts that the rest of the operator needs."""

    @classmethod
    async def connect(cls) -> "Models":
        from kubernetes.aio import client, config

        await config.load_kube_config()
        api = cls()
        api.client = client.ApiClient()
        api.core = client.CoreV1Api(api.client)
        return api

    async def create(self, body: dict) -> None:
        self._plain(await self.core.create_namespaced_config_map("default", body))

    async def patch(self, name: str, patch: dict) -> None:
        merge = "application/merge-patch+json"
        done = await self.core.patch_namespaced_config_map(name, "default", patch, _content_type=merge)
        self._plain(done)

    async def list_all(self) -> list[dict]:
        found, token = [], None
        while token != "":
            page = await self.core.list_namespaced_config_map("default", limit=500, _continue=token)
            found += map(self._plain, page.items)
            token = page.metadata._continue or ""
        return found

    def _plain(self, model: object) -> dict:
        return self.client.sanitize_for_serialization(model)


async def spent(make, count: int) -> float:
    """CPU seconds for so many requests, 10 at a time."""
    gate, before = asyncio.Semaphore(10), time.process_time()

    async def one(i: int) -> None:
        async with gate:
            await make(i)

    await asyncio.gather(*(one(i) for i in range(count)))
    return time.process_time() - before


async def main() -> None:
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    name, start = f"bench-{uuid.uuid4().hex[:6]}", megabytes()
    api = await {"plain": Plain, "models": Models}[sys.argv[1]].connect()
    seen = {
        "CPU seconds, creating": await spent(lambda i: api.create(config_map(f"{name}-{i}")), count),
        "patching": await spent(lambda i: api.patch(f"{name}-{i}", {"data": {"more": "x"}}), count),
        "listing five times": await spent(lambda _: api.list_all(), 5),
        "MiB before": start,
        "MiB after": megabytes(),
    }
    await api.close()
    print(json.dumps({key: round(value, 2) for key, value in seen.items()}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
