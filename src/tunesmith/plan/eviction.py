"""Parse why the kubelet ended a pod: the pod's use of disk or memory, or its node.

The kubelet reports it in `status.reason` and `status.message` (pkg/kubelet/eviction and kubelet.go of
Kubernetes
1.30 to 1.36). A pod that exceeds its own limit is evicted without the condition DisruptionTarget; one of a
node under pressure, with it.
"""

from __future__ import annotations

import re

from tunesmith.names import Reason

EVICTED = "Evicted"
_REJECTED = "Pod was rejected: "
# A container that exceeded its request while its node was under pressure. One without a request is named
# whatever it used, so that is no evidence.
_MORE_THAN_ASKED = re.compile(
    r"Container \S+ was using \S+, request is (?!0,)\S+, has larger consumption of (\S+)"
)
_OVERUSE = (
    (
        re.compile(r'EmptyDir volume "shared-memory"'),
        (Reason.OUT_OF_MEMORY, "Give the job a larger resources.sharedMemory.", False),
    ),
    (
        re.compile(r"EmptyDir volume|ephemeral[- ](?:local )?storage|\binodes\b"),
        (Reason.DISK_FULL, "Give the job a larger resources.scratch.size.", False),
    ),
    (re.compile(r"\bmemory\b"), (Reason.OUT_OF_MEMORY, "Give the job more resources.memory.", True)),
)


def never_ran(message: str) -> bool:
    """Return whether a failed pod was rejected by the kubelet of its node, before anything was started."""
    return message.startswith(_REJECTED)


def overuse(message: str, disrupted: bool) -> tuple[Reason, str, bool] | None:
    """Return what an evicted pod used too much of and the remedy, None if its node was the reason.

    Also whether the job may need less of it by itself the next time.

    `disrupted` is whether the pod has the condition DisruptionTarget: without it, its node is never taken
    for the reason.
    """
    more = _MORE_THAN_ASKED.search(message)
    if disrupted and not more:
        return None
    words = more[1] if more else message
    known = (cause for pattern, cause in _OVERUSE if pattern.search(words))
    return next(known, (Reason.PROCESS_DIED, "", False))
