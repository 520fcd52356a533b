"""Why a whole job comes to an end at an endpoint, and not one call. Each names the field to change."""

from __future__ import annotations

from tunesmith.errors import PermanentError
from tunesmith.names import Reason


class EndpointError(PermanentError):
    """The endpoint refuses every request: key, model, address or a setting is wrong."""

    default_reason = Reason.INVALID_MANIFEST


class QuotaError(PermanentError):
    """What the account may ask is used up for hours, or there is none."""

    default_reason = Reason.NOT_ALLOWED


class BudgetError(PermanentError):
    """The next call might cost more than is left."""

    default_reason = Reason.NOT_ALLOWED
