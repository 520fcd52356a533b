"""Pod Security Standards, level `restricted`, as a list of complaints about a pod's spec."""

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
PROFILES = {"RuntimeDefault", "Localhost"}


def complaints(pod):
    """Everything the admission plug-in would refuse."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        if len(kinds) != 1 or not kinds <= VOLUMES:
            yield f"volume {volume['name']}: {sorted(kinds)}"
    context = pod.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls"
    containers = pod["containers"] + pod.get("initContainers", []) + pod.get("ephemeralContainers", [])
    for container in containers:
        own = container.get("securityContext", {})
        yield from container_complaints(container["name"], {**context, **own}, own)
        for port in container.get("ports", []):
            if port.get("hostPort"):
                yield f"{container['name']}: hostPort"


def container_complaints(name, both, own):
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    if both.get("runAsNonRoot") is not True:
        yield f"{name}: runAsNonRoot"
    if both.get("runAsUser") in (None, 0):
        yield f"{name}: runAsUser is not a number above 0"
    if both.get("seccompProfile", {}).get("type") not in PROFILES:
        yield f"{name}: seccompProfile"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name}: capabilities are not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities added"
