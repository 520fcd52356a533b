"""kstatus: how Flux, Helm and kpt read the status of an object of a kind that they do not know.

As published in sigs.k8s.io/cli-utils, pkg/kstatus/status: generic properties first, then the condition Ready.
"""


def kstatus(body):
    """Return Terminating, InProgress, Failed or Current."""
    metadata, status = body["metadata"], body.get("status", {})
    generation = metadata["generation"]
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    for condition in status.get("conditions", []):
        if condition["status"] == "True":
            if condition["type"] == "Reconciling":
                return "InProgress"
            if condition["type"] == "Stalled":
                return "Failed"
    for condition in status.get("conditions", []):
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"
