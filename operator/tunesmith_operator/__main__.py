"""`python -m tunesmith_operator`: run the operator until it is stopped."""

from __future__ import annotations

import logging
import os
import sys

import kopf
from kopf._cogs.structs.references import Insights

from tunesmith_operator import handlers, logs
from tunesmith_operator.liveness import EXIT_CODE
from tunesmith_operator.settings import read_settings

log = logging.getLogger(__name__)
# The API server accepts objects nested 10,000 deep. One of those in a list must not hide all the others.
MAX_RECURSION = 20_000


def main() -> int:
    """Return exit code 0 if stopped, 2 if a setting is invalid, 3 if a part of the operator has failed."""
    logs.set_up()
    sys.setrecursionlimit(MAX_RECURSION)
    try:
        settings = read_settings(os.environ)
    except ValueError as error:
        print(f"tunesmith_operator: {error}", file=sys.stderr)
        return 2
    insights = Insights()
    try:
        kopf.run(
            registry=kopf.get_default_registry(),
            clusterwide=not settings.namespaces,
            namespaces=list(settings.namespaces),
            standalone=True,
            insights=insights,
            memo=kopf.Memo(insights=insights),
        )
    except Exception as error:  # noqa: BLE001 the edge of the process; a watch that fails for good ends here
        cause = error.__cause__ or error
        kind = type(cause).__name__
        log.critical("Exiting, since a part of the operator has failed: %s: %s", kind, cause)
        return EXIT_CODE
    return 0


__all__ = ["handlers", "main"]

if __name__ == "__main__":
    sys.exit(main())
