"""Verifier `python`: a function of the image, called as `function(record, reply)`.

It returns True or False, or `{"accepted": True or False, …}`, whose other keys become the verdict's details.
Only a worker process imports and calls it: it may raise, hang or end its process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from tunesmith.artifacts.opening import check_module
from tunesmith.errors import PermanentError
from tunesmith.names import Reason
from tunesmith.sampling.verdict import NONSENSE, REFUSED, Verdict, rejected, small


class Function:
    """An imported function. Raises PermanentError if there is none that takes a record and a reply."""

    def __init__(self, function: str, path: str) -> None:
        self._function = _imported(function, f"{path}.function")

    def verify(self, record: Mapping[str, Any], reply: str) -> Verdict:
        """Return the function's verdict; raises what it raises."""
        result = self._function(dict(record), reply)
        details: dict[str, Any] = {}
        if isinstance(result, dict):
            details = {str(key): value for key, value in result.items() if key != "accepted"}
            result = result.get("accepted")
        if type(result) is bool or _is_numpy_bool(result):
            return Verdict(bool(result), "" if result else REFUSED, small(details))
        return rejected(NONSENSE, type=type(result).__name__)


def _is_numpy_bool(value: object) -> bool:
    """Return what comparing numpy's numbers gives; numpy itself need not be there."""
    return type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")


def _imported(name: str, path: str) -> Callable[[dict[str, Any], str], object]:
    module, _, attribute = name.partition(":")
    try:
        check_module(module)
        function = getattr(import_module(module), attribute)
        # A module that is allowed may have imported functions of others.
        check_module(getattr(function, "__module__", None) or module)
    except PermanentError as error:
        raise PermanentError(f"{path}: {error.message}", reason=error.reason) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - importing runs the user's code
        raise _wrong(path, f"{name} cannot be imported: {type(error).__name__}: {str(error)[:300]}") from None
    if not callable(function):
        raise _wrong(path, f"{name} is not a function")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise _wrong(path, f"{name} is async or a generator; it must be a plain function")
    try:
        inspect.signature(function).bind({}, "")
    except TypeError:
        raise _wrong(path, f"{name} cannot be called with a record and a reply") from None
    except ValueError:  # some functions written in C do not say what they take
        pass
    return function  # type: ignore[no-any-return]


def _wrong(path: str, what: str) -> PermanentError:
    return PermanentError(f"{path}: {what}.", reason=Reason.INVALID_MANIFEST)
