"""Waiting for CRDs. `kubectl wait` fails where a slow controller has not written a status yet."""

import json
import time
from collections.abc import Callable, Sequence
from subprocess import CompletedProcess
from typing import Any


def established(crd: dict[str, Any]) -> bool:
    """Whether the API server serves the kind; false too while there is no status, or no condition in it."""
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def wait_until_established(
    kubectl: Callable[..., CompletedProcess[str]], what: Sequence[str], seconds: float = 120
) -> None:
    """Wait until all CRDs that `kubectl get WHAT` names are there and served."""
    deadline = time.monotonic() + seconds
    while True:
        done = kubectl("get", *what, "-o", "json", check=False)
        found = json.loads(done.stdout) if done.returncode == 0 else {"items": []}
        crds = found.get("items", [found])
        if crds and all(map(established, crds)):
            return
        assert time.monotonic() < deadline, (
            f"not served within {seconds} s: {done.stderr}{json.dumps(crds)[-2000:]}"
        )
        time.sleep(0.2)
