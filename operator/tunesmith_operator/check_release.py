"""What `helm test` runs in a pod: whether the CRDs are served and the operator is ready.

    python -m tunesmith_operator.check_release NAMESPACE DEPLOYMENT

Says what is missing, one problem a line; the exit code is 1 if something still is after a minute.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from tunesmith.plan.objects import get
from tunesmith_operator.api_client import NOT_FOUND, AnswerError, ApiClient, ApiResource
from tunesmith_operator.cluster import JOBS

DEPLOYMENT = ApiResource("apps/v1", "Deployment", "deployments")
TRIES, PAUSE = 30, 2.0


def not_ready(deployment: Any) -> str:
    """Return why the operator of a Deployment is not ready, "" if it is: its readiness probe asks /readyz."""
    name, status = get(deployment, "metadata", "name"), get(deployment, "status")
    if get(status, "observedGeneration") != get(deployment, "metadata", "generation"):
        return f"The Deployment {name} has changed and is not rolled out yet."
    if get(status, "updatedReplicas") and get(status, "readyReplicas"):
        return ""
    return f"The operator is not ready: see kubectl describe deployment {name}."


async def problems(client: Any, namespace: str, name: str) -> list[str]:
    """Return what is missing of the release."""
    served = await client.served(JOBS.values())
    found = [
        f"The API server does not serve {one.plural} ({one.api_version}): apply the CRDs."
        for one in JOBS.values()
        if one not in served
    ]
    try:
        unready = not_ready(await client.get(DEPLOYMENT, namespace, name))
    except AnswerError as error:
        if error.code != NOT_FOUND:
            raise
        unready = f"There is no Deployment {name} in namespace {namespace}."
    return found + [unready] * bool(unready)


async def check(client: Any, namespace: str, name: str, say: Callable[[str], Any] = print) -> int:
    """Ask until nothing is missing, for a minute at most. Returns the exit code."""
    for number in range(TRIES):
        await asyncio.sleep(PAUSE * bool(number))
        missing = await problems(client, namespace, name)
        if not missing:
            say(f"The CRDs are served, and the operator {name} is ready.")
            return 0
    say("\n".join(missing))
    return 1


async def main(namespace: str, name: str) -> int:
    """Connect and check."""
    client = await ApiClient.connect()
    try:
        return await check(client, namespace, name)
    finally:
        await client.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:3])))
