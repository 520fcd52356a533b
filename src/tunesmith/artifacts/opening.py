"""Check every address that this process opens against its rules.

The rules are in the environment, so that every process of a job has them, whoever starts it. Without the
variable, those of a user's own machine apply.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from tunesmith import names
from tunesmith.api.rules import MACHINE, NEVER, Rules, is_never, rules_from
from tunesmith.artifacts.inside import is_inside
from tunesmith.artifacts.location import FolderLocation, S3Location, split_uri
from tunesmith.errors import PermanentError
from tunesmith.names import Reason


def rules() -> Rules:
    """Return what this process may open."""
    text = os.environ.get(names.ENV_RULES)
    return _read(text) if text else MACHINE


@lru_cache
def _read(text: str) -> Rules:
    return rules_from(json.loads(text))


def locate(uri: str) -> S3Location | FolderLocation:
    """Return the location of a data address, if it may be opened. Raises PermanentError, UsageError."""
    location = split_uri(uri)
    if isinstance(location, FolderLocation):
        check_path(location.path)
    else:
        check_address(uri)
    return location


def check_address(uri: str) -> None:
    """Raise PermanentError for an address of S3 or a hub that may not be opened."""
    if not rules().allow_uri(uri):
        raise _refused(f"This job may not open the address {uri}")


def check_path(path: Path) -> None:
    """Raise PermanentError for a file that may not be opened, links followed."""
    allowed = rules()
    scratch = Path(os.environ.get(names.ENV_SCRATCH, names.SCRATCH_DIR))
    if allowed.allow_path(str(path.absolute()), os.path.realpath):
        return
    if not allowed.own_files and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(scratch)):
        return
    if allowed.own_files:
        raise _refused(
            f"The file {path} is in or links to {', '.join(NEVER)}, whose files are never read as data"
        )
    raise _refused(f"This job may not open the file {path}; files need a rule with their folder")


def check_lead(path: Path) -> None:
    """Raise PermanentError for a path found in a file, if it is an existing file that may not be opened.

    In folders like /proc, whose files come and go, it need not exist.
    """
    if os.path.exists(path) or is_never(str(path)):  # noqa: PTH110 - a path may be any text
        check_path(path)


def check_endpoint(url: str, default_of: str = "") -> None:
    """Raise PermanentError for a server that may not be contacted; `default_of` is an absent field.

    A default set by the environment needs no check: in a pod it is the administrator's.
    """
    if not rules().allow_endpoint(url):
        why = f" (the default of {default_of})" if default_of else ""
        raise _refused(f"This job may not use the endpoint {url}{why}")


def check_redirect(asked: str, led: str) -> None:
    """Raise PermanentError for the address `led` if the server `asked` may not redirect there."""
    if not rules().allow_redirect(asked, led, is_inside):
        raise _refused(
            f"The server {asked} redirects to {_server(led)}, which is neither its own address, nor on the "
            "public internet by https, nor in a rule's endpoints"
        )


def check_connected(led: str, address: str) -> None:
    """Raise PermanentError if the name of a public server resolved to an internal address."""
    host = urlsplit(led).hostname or ""
    if address and is_inside(address) and not is_inside(host) and not getproxies():
        raise _refused(f"The public name {host} resolved to {address}, which is an internal address")


def _server(url: str) -> str:
    """Return an address without its path, which may contain a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def check_code(uri: str) -> None:
    """Raise PermanentError for a model, or a tokenizer, whose own code may not run."""
    if not rules().allow_code(uri):
        raise _refused(f"The code of {uri} may not run (trustRemoteCode)")


def check_module(name: str) -> None:
    """Raise PermanentError for a Python module whose functions may not be called."""
    if not rules().allow_module(name):
        how = f"run with --allow-python {name}" if rules().own_files else "add it to a rule's pythonModules"
        raise _refused(f"Functions of the module {name} may not be called; {how}")


def _refused(what: str) -> PermanentError:
    return PermanentError(f"{what}.", reason=Reason.NOT_ALLOWED)
