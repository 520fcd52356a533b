"""`make images`, after the build: a list of contents beside each image's archive, and the check sums anew."""

from __future__ import annotations

from release.contents import SUFFIX, scan
from release.dist import DIST, commit_date
from release.sums import write_sums

ARCHIVE = ".oci.tar"


def main() -> None:
    """List what is in each archive of build/dist."""
    for archive in sorted(DIST.glob(f"*{ARCHIVE}")):
        name = archive.name.removesuffix(ARCHIVE)
        scan(f"oci-archive:{archive}", name, archive.with_name(name + SUFFIX), commit_date())
    write_sums(DIST)


if __name__ == "__main__":
    main()
