"""The values that reports are made of: plain values, as in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]
