"""Why the kubelet ended a pod, in its own words: the pod's use of disk or memory, or its node.

The kubelet says so in `status.reason` and `status.message` (pkg/kubelet/eviction and kubelet.go of Kubernetes
1.30 to 1.36). A pod beyond a limit of its own is evicted without the condition DisruptionTarget; one of a
node that runs low, with it.
"""

from __future__ import annotations

import re

from tunesmith.names import Reason

EVICTED = "Evicted"
_REJECTED = "Pod was rejected: "
# A container that used more than it had asked for while its node ran low. One that asked for nothing is named
# whatever it used, so that says nothing.
_MORE_THAN_ASKED = re.compile(
    r"Container \S+ was using \S+, request is (?!0,)\S+, has larger consumption of (\S+)"
)
_OVERUSE = (
    (
        re.compile(r'EmptyDir volume "shared-memory"'),
        (Reason.OUT_OF_MEMORY, "Give the job a larger resources.sharedMemory."),
    ),
    (
        re.compile(r"EmptyDir volume|ephemeral[- ](?:local )?storage|\binodes\b"),
        (Reason.DISK_FULL, "Give the job a larger resources.scratch.size."),
    ),
    (re.compile(r"\bmemory\b"), (Reason.OUT_OF_MEMORY, "Give the job more resources.memory.")),
)


def never_ran(message: str) -> bool:
    """Whether a failed pod was refused by the kubelet of its node, before anything of it was started."""
    return message.startswith(_REJECTED)


def overuse(message: str, disrupted: bool) -> tuple[Reason, str] | None:
    """What an evicted pod used too much of and the remedy, None if its node was the reason.

    `disrupted` is whether the pod has the condition DisruptionTarget: without it, its node is never believed
    to be the reason.
    """
    more = _MORE_THAN_ASKED.search(message)
    if disrupted and not more:
        return None
    words = more[1] if more else message
    known = (cause for pattern, cause in _OVERUSE if pattern.search(words))
    return next(known, (Reason.PROCESS_DIED, ""))
