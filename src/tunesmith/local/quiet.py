"""Keep other libraries' advice off the terminal of a command that loads them; our own lines stay.

Errors are exceptions and are reported as such. Who wants the advice sets the libraries' own variables, such
as TRANSFORMERS_VERBOSITY, or PYTHONWARNINGS. Jobs are separate processes and log everything.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

from tunesmith.text import visible

_VARIABLES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "BITSANDBYTES_NOWELCOME": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


class _OwnLines(logging.Handler):
    """Writes warnings of this package as lines of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(f"tunesmith: {record.getMessage()}"), file=sys.stderr)


def quiet() -> None:
    """Silence libraries. Call this before they are imported: they read their variables then."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    root, own = logging.getLogger(), logging.getLogger("tunesmith")
    if not root.handlers:
        root.addHandler(logging.NullHandler())  # else Python prints warnings that nobody handles
    if not own.handlers:
        own.addHandler(_OwnLines(logging.WARNING))
