"""JSON log records, one per line, with the job they are about."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from tunesmith import names
from tunesmith.api.references import Key

# They log every request, and every object that kopf passes on.
_NOISY = ("kopf.objects", "aiohttp.access")
# It warns of kinds that the cluster does not serve.
_OF_KINDS = "kopf._core.reactor.observation"


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, and namespace, kind and job if known."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        key = getattr(record, "key", None)
        if key is not None:
            values |= dict(zip(("namespace", "kind", "job"), key, strict=True))
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


def is_news(record: logging.LogRecord) -> bool:
    """Return False if kopf misses kinds of others only: of PyTorchJob and TrainJob, one is enough.

    What is then missing, a job's status says: BackendMissing.
    """
    message = record.getMessage()
    return not message.startswith("Unresolved resources") or f"group='{names.GROUP}'" in message


def about(key: Key) -> dict[str, Any]:
    """Return `extra` for a log line about a job."""
    return {"key": key}


def set_up() -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger(_OF_KINDS).addFilter(is_news)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
