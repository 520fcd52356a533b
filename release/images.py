"""`make images`, after the build: a list of contents beside each image's archive, and the check sums anew."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from release.contents import SUFFIX, scan
from release.dist import DIST, commit_date
from release.sums import write_sums

ARCHIVE = ".oci.tar"


def scan_image(archive: Path, date: int) -> Path:
    """List what is in an image's archive; return the list's path.

    Unpacked first, beside it: Syft takes no archive with a layer of more than 2 GiB, and /tmp may be small.
    """
    name = archive.name.removesuffix(ARCHIVE)
    output = archive.with_name(name + SUFFIX)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        scan(f"oci-dir:{folder}", name, output, date)
    return output


def main() -> None:
    """List what is in each archive of build/dist."""
    for archive in sorted(DIST.glob(f"*{ARCHIVE}")):
        scan_image(archive, commit_date())
    write_sums(DIST)


if __name__ == "__main__":
    main()
