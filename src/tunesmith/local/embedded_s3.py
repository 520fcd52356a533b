"""A real S3 server (SeaweedFS) for one machine: the quick start's storage, and the tests'.

It listens on 127.0.0.1 only, keeps everything in one folder, and ends with the process that started it,
however that one ends. What it has acknowledged survives `kill -9` of either; it does not fsync every
write, so a power cut may cost the last seconds. Its credentials guard S3; what its parts say to each other
is guarded by `weed_security`. Does not depend on what is stored.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from tunesmith.errors import StorageTemporaryError, UsageError
from tunesmith.local.folder_lock import take_lock
from tunesmith.local.weed import HOST, SERVERS, flags, free_ports, has_volumes, port_was_taken, weed
from tunesmith.local.weed_security import write_private, write_security

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
PORT_TRIES = 4


class EmbeddedS3:
    """Started by `start()` or `with`. `data_dir` holds objects, credentials (mode 0600), ports and log."""

    def __init__(self, data_dir: Path, *, ready_seconds: float = 60.0, stop_seconds: float = 10.0) -> None:
        self._dir = data_dir.absolute()
        self._ready_seconds, self._stop_seconds = ready_seconds, stop_seconds
        self._lock: IO[str] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self._key = self._secret = self._weed = ""

    @property
    def endpoint_url(self) -> str:
        """Return where it answers; the same at the next start unless something else took the port."""
        return f"http://{HOST}:{self._ports['s3.port']}"

    @property
    def log_path(self) -> Path:
        """Return what the server has written since its last start."""
        return self._dir / "server.log"

    @property
    def _see_log(self) -> str:
        return f"Its log is {self.log_path}."

    def environment(self) -> dict[str, str]:
        """Return the variables by which boto3, and so every process of Tunesmith, finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self._key,
            "AWS_SECRET_ACCESS_KEY": self._secret,
            "AWS_REGION": REGION,
        }

    def start(self) -> Self:
        """Start and wait until it answers. StorageTemporaryError if it does not, or runs already."""
        weed()  # if it is not installed, nothing is created either
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._dir / "objects").mkdir(exist_ok=True)
        self._lock = take_lock(self._dir / "lock", self._stop_seconds + 5)
        self._owner = os.getpid()
        atexit.register(self.stop)
        try:
            self._weed = weed()
            self._key, self._secret = _credentials(self._dir / "s3.json")
            write_security(self._dir / "security.toml")
            self._start_on_free_ports()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop it: gracefully first, then by force. Does nothing if it does not run."""
        if self._lock is None or self._owner != os.getpid():
            return
        atexit.unregister(self.stop)
        self._end_guard()
        self._lock.close()
        self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def create_bucket(self, name: str) -> None:
        """Create a bucket, unless it exists."""
        from botocore.exceptions import ClientError, ParamValidationError

        client = self._client(read_timeout=30, attempts=10)
        try:
            client.create_bucket(Bucket=name)
        except client.exceptions.BucketAlreadyOwnedByYou:
            return
        except (ClientError, ParamValidationError) as error:
            raise UsageError(f"The embedded S3 cannot create the bucket {name!r}: {error}") from error

    def _start_on_free_ports(self) -> None:
        known = self._dir / "ports.json"
        wanted = json.loads(known.read_text()) if known.exists() else {}
        for _ in range(PORT_TRIES):
            self._ports = free_ports(wanted)
            self._launch()
            if self._wait_until_ready():
                _write(known, self._ports)
                return
            self._end_guard()
            wanted = {}
        raise StorageTemporaryError(f"The embedded S3 found no free ports. {self._see_log}")

    def _launch(self) -> None:
        assert self._lock is not None
        command = [self._weed, "-logtostderr=true", "mini", *flags(self._ports)]
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        with self.log_path.open("wb") as log:
            self._guard = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "tunesmith.local.parent_watchdog",
                    str(self._lock.fileno()),
                    *command,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._dir,
                # HOME: no configuration of another SeaweedFS on this machine.
                env={**environment, "HOME": str(self._dir)},
                pass_fds=[self._lock.fileno()],
                start_new_session=True,  # Ctrl-C is for the jobs; the server must outlive them
            )

    def _wait_until_ready(self) -> bool:
        """Wait; return True when it answers, False if a port was taken in the meantime."""
        from botocore.exceptions import BotoCoreError, ClientError

        assert self._guard is not None
        client = self._client(read_timeout=5, attempts=1)
        deadline = time.monotonic() + self._ready_seconds
        while time.monotonic() < deadline:
            with suppress(BotoCoreError, ClientError):
                client.list_buckets()
                if has_volumes(self.log_path):
                    return True
            if port_was_taken(self.log_path):
                return False
            if self._guard.poll() is not None:
                raise StorageTemporaryError(f"The embedded S3 exited at its start. {self._see_log}")
            time.sleep(0.05)
        waited = f"did not respond within {self._ready_seconds:.0f} s"
        raise StorageTemporaryError(f"The embedded S3 {waited}. {self._see_log}")

    def _client(self, read_timeout: float, attempts: int) -> S3Client:
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=2,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )
        client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self._key,
            aws_secret_access_key=self._secret,
            region_name=REGION,
            config=config,
        )
        return client

    def _end_guard(self) -> None:
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            self._guard.stdin.close()
        try:
            self._guard.wait(self._stop_seconds + 5)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        self._guard = None
        for server in SERVERS:  # left behind when killed; their place cannot be chosen
            port = self._ports[f"{server}.port.grpc"]
            Path(f"/tmp/seaweedfs-{server}-grpc-{port}.sock").unlink(missing_ok=True)


def _credentials(path: Path) -> tuple[str, str]:
    """The server's only key pair, made at the first start. The file is the server's own configuration."""
    if not path.exists():
        key, secret = "TS" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30)
        identity = {
            "name": "tunesmith",
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        _write(path, {"identities": [identity]})
    pair = json.loads(path.read_text())["identities"][0]["credentials"][0]
    return pair["accessKey"], pair["secretKey"]


def _write(path: Path, value: object) -> None:
    write_private(path, json.dumps(value))
