"""What kopf's own tutorial would do: a create handler that makes one object. No status, no retries."""

import asyncio
import os

import kopf
from kubernetes.aio import client, config


@kopf.on.startup()
async def startup(memo, settings, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.queueing.worker_limit = 50
    await config.load_kube_config()
    memo.api = client.CoreV1Api()


@kopf.on.create("tunesmith.dev", "v1alpha1", "finetunejobs")
async def created(name, namespace, body, memo, **_):
    child = {"metadata": {"name": f"{name}-peer", "labels": {"bench": "peer"}}, "data": {"run.json": "{}"}}
    kopf.append_owner_reference(child, owner=body)
    await memo.api.create_namespaced_config_map(namespace, child)


if __name__ == "__main__":
    asyncio.run(kopf.operator(namespaces=[os.environ["TUNESMITH_NAMESPACES"]], standalone=True))
