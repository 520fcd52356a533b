"""`make publish`: copy the images and the chart of build/dist to an OCI registry; print each with its digest.

Logins are those of Skopeo and Helm (`skopeo login`, `helm registry login`), read from REGISTRY_AUTH_FILE.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

from release.dist import DIST
from release.images import ARCHIVE
from release.version import current

CHARTS = "charts"


def publish_image(archive: Path, registry: str, plain_http: bool) -> str:
    """Copy an image's archive as it is; return its name with the digest."""
    found = re.fullmatch(rf"(tunesmith-[a-z]+)-({re.escape(current())}.*){re.escape(ARCHIVE)}", archive.name)
    if not found:
        raise SystemExit(f"{archive} is not of version {current()}: run `make images` again")
    name, tag = found.groups()
    with tempfile.NamedTemporaryFile("r") as digest:
        options = ["--quiet", "--preserve-digests", "--digestfile", digest.name]
        places = [f"oci-archive:{archive}", f"docker://{registry}/{name}:{tag}"]
        subprocess.run(["skopeo", "copy", *options, _tls("dest-", plain_http), *places], check=True)
        return f"{registry}/{name}@{digest.read().strip()}"


def publish_chart(archive: Path, registry: str, plain_http: bool) -> str:
    """Push the chart below charts/; return its name with the digest."""
    import helm_python

    logins = os.environ.get("REGISTRY_AUTH_FILE")
    with helm_python.RegistryClient(plain_http=plain_http, credentials_file=logins) as client:
        helm_python.push(archive, f"oci://{registry}/{CHARTS}", client=client, plain_http=plain_http)
    name = f"{registry}/{CHARTS}/tunesmith"
    look = ["skopeo", "inspect", "--raw", _tls("", plain_http), f"docker://{name}:{current()}"]
    manifest = subprocess.run(look, capture_output=True, check=True).stdout
    return f"{name}@sha256:{hashlib.sha256(manifest).hexdigest()}"


def _tls(side: str, plain_http: bool) -> str:
    return f"--{side}tls-verify={str(not plain_http).lower()}"


def main() -> None:
    """Publish everything that build/dist has for a registry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("registry", help="such as mirror.example/team")
    parser.add_argument("--plain-http", action="store_true", help="for a registry on this machine")
    asked = parser.parse_args()
    for archive in sorted(DIST.glob(f"*{ARCHIVE}")):
        print(publish_image(archive, asked.registry, asked.plain_http), flush=True)
    for archive in DIST.glob("tunesmith-*.tgz"):
        print(publish_chart(archive, asked.registry, asked.plain_http), flush=True)


if __name__ == "__main__":
    main()
