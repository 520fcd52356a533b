"""The one way to everything that is opened by its address, and the rules of this process for it.

The rules come with the environment, so that every process of a job has them, whoever starts it. Without the
variable it is a user's own machine.
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
    """What this process may open."""
    text = os.environ.get(names.ENV_RULES)
    return _read(text) if text else MACHINE


@lru_cache
def _read(text: str) -> Rules:
    return rules_from(json.loads(text))


def locate(uri: str) -> S3Location | FolderLocation:
    """Where an address of data leads, if this process may open it. Raises PermanentError, UsageError."""
    location = split_uri(uri)
    if isinstance(location, FolderLocation):
        check_path(location.path)
    else:
        check_address(uri)
    return location


def check_address(uri: str) -> None:
    """Raise PermanentError for an address of S3 or of a hub that may not be opened."""
    if not rules().allow_uri(uri):
        raise _refused(f"The address {uri} is not among those that this job may open")


def check_path(path: Path) -> None:
    """Raise PermanentError for a file that may not be opened, wherever its links lead."""
    allowed = rules()
    scratch = Path(os.environ.get(names.ENV_SCRATCH, names.SCRATCH_DIR))
    if allowed.allow_path(str(path.absolute()), os.path.realpath):
        return
    if not allowed.own_files and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(scratch)):
        return
    if allowed.own_files:
        raise _refused(
            f"The file {path} is in or leads to {', '.join(NEVER)}, whose files are never read as data"
        )
    raise _refused(
        f"The file {path} is not below a folder that this job may open; files need a rule of their own"
    )


def check_lead(path: Path) -> None:
    """Raise PermanentError for a path that was found in a file, if a file is there that may not be opened.

    Where files come and go with processes, none needs to be there.
    """
    if os.path.exists(path) or is_never(str(path)):  # noqa: PTH110 - a path may be any text
        check_path(path)


def check_endpoint(url: str, default_of: str = "") -> None:
    """Raise PermanentError for a server that may not be talked to; `default_of` is a field that is absent.

    A default that the environment sets needs no check: in a pod that is the administrator's.
    """
    if not rules().allow_endpoint(url):
        why = f", which {default_of} is by default," if default_of else ""
        raise _refused(f"The endpoint {url}{why} is not among those that this job may talk to")


def check_redirect(asked: str, led: str) -> None:
    """Raise PermanentError for the address `led` if an answer of the server `asked` may not lead there."""
    if not rules().allow_redirect(asked, led, is_inside):
        raise _refused(
            f"The server {asked} leads to {_server(led)}, which is neither its own address, nor one of the "
            "public internet by https, nor named by a rule's endpoints"
        )


def check_connected(led: str, address: str) -> None:
    """Raise PermanentError where the name of a public server has led to an address of the inside."""
    host = urlsplit(led).hostname or ""
    if address and is_inside(address) and not is_inside(host) and not getproxies():
        raise _refused(f"The name {host} is of the public internet, and led to {address}, which is not")


def _server(url: str) -> str:
    """An address without its path, which may hold a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def check_code(uri: str) -> None:
    """Raise PermanentError for a model, or a tokenizer, whose own code may not run."""
    if not rules().allow_code(uri):
        raise _refused(f"The code of {uri} may not run (trustRemoteCode)")


def check_module(name: str) -> None:
    """Raise PermanentError for a Python module whose functions may not be called."""
    if not rules().allow_module(name):
        how = f"run with --allow-python {name}" if rules().own_files else "name it in a rule's pythonModules"
        raise _refused(f"Functions of the module {name} may not be called; {how}")


def _refused(what: str) -> PermanentError:
    return PermanentError(f"{what}.", reason=Reason.NOT_ALLOWED)
