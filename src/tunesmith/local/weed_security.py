"""The file by which the parts of the embedded S3 know each other, and nobody else.

Over HTTP they ask for a token, over gRPC for a certificate. Keys of both are made anew at each start and are
in the data folder, which only its user can read.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
from pathlib import Path

log = logging.getLogger(__name__)
_TOKENS = ("signing", "signing.read", "filer_signing", "filer_signing.read")
_PARTS = ("master", "volume", "filer", "s3", "admin", "worker", "client", "msg_broker", "msg_agent")
_CERTIFICATE, _KEY = "grpc.crt", "grpc.key"


def write_security(path: Path) -> None:
    """Write the file: without a token or the certificate of it, no part gives or takes a thing."""
    tables = [f'[jwt.{name}]\nkey = "{secrets.token_urlsafe(30)}"\n' for name in _TOKENS]
    tables.append('[cors.allowed_origins]\nvalues = ""\n')
    if _make_certificate(path.parent):
        tables.append(f'[grpc]\nca = "{_CERTIFICATE}"\n')
        tables += [f'[grpc.{part}]\ncert = "{_CERTIFICATE}"\nkey = "{_KEY}"\n' for part in _PARTS]
    write_private(path, "\n".join(tables))


def _make_certificate(folder: Path) -> bool:
    """Make one certificate that all parts have and trust; return False if the machine has no openssl."""
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
    command = [
        "openssl",
        "req",
        "-x509",
        *kind,
        "-subj",
        "/CN=tunesmith",
        "-keyout",
        _KEY,
        "-out",
        _CERTIFICATE,
    ]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60, umask=0o077)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning(
            "openssl could not create a certificate (%s): programs of other users on this machine can reach "
            "the embedded S3's inner servers.",
            error,
        )
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file, complete or not at all, for this user only."""
    temp = path.with_suffix(".new")
    temp.unlink(missing_ok=True)
    with os.fdopen(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temp.replace(path)
