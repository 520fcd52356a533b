"""What a job may open: addresses, servers, models' own code, Python modules. Pure; no file access.

The operator checks before a job starts; the job's own processes check again whenever something is opened
(`artifacts.opening`). Both compare normalised addresses: a path is decoded and its dots are resolved first.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from tunesmith.api.addresses import HUB_DATASETS

ALL = "*"
NEVER = ("/proc", "/sys", "/dev", "/run", "/var/run")
"""Folders of the kernel and of other programs, Secrets among them."""
_PORTS = {"http": 80, "https": 443}
Resolve = Callable[[str], str]
Inside = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be opened: address prefixes, `*` for all. Files need an entry of their own.

    `own_files`: every file of this machine but those in `NEVER`, for a user's own runs.
    `remote_code`: models whose code may run. `python_modules`: modules a verifier's function may be from.
    """

    uris: tuple[str, ...] = (ALL,)
    endpoints: tuple[str, ...] = (ALL,)
    remote_code: tuple[str, ...] = ()
    python_modules: tuple[str, ...] = ()
    own_files: bool = False

    def allow_uri(self, uri: str, resolve: Resolve = posixpath.normpath) -> bool:
        """Return whether an address of data or a model may be opened; `resolve` follows links, if it can."""
        path = file_path(uri)
        return _begins(uri, self.uris) if path is None else self.allow_path(path, resolve)

    def allow_path(self, path: str, resolve: Resolve = posixpath.normpath) -> bool:
        """Return whether a file may be opened."""
        real = resolve(path)
        if is_never(real) or is_never(path):
            return False
        folders = [folder for uri in self.uris if (folder := file_path(uri)) is not None]
        return self.own_files or any(_below(real, resolve(folder)) for folder in folders)

    def allow_endpoint(self, url: str) -> bool:
        """Return whether a server may be contacted."""
        return any(one == ALL or _is_part(url, one) for one in self.endpoints)

    def allow_redirect(self, asked: str, led: str, is_inside: Inside) -> bool:
        """Return whether the server `asked` may redirect to the address `led`.

        It may redirect below its own address, to allowed servers, and, by https, to the public internet.
        On a user's own machine an internal server may redirect to other internal ones too. `is_inside`
        returns whether a host is not on the public internet.
        """
        if _is_part(led, asked) or any(one != ALL and _is_part(led, one) for one in self.endpoints):
            return True
        (before, asked_host, *_), (after, led_host, *_) = _parts(asked), _parts(led)
        if self.own_files and is_inside(asked_host):
            return after == "https" or (after, before) == ("http", "http")
        return after == "https" and not is_inside(led_host)

    def allow_code(self, uri: str) -> bool:
        """Return whether a model's own code may run."""
        path = file_path(uri)
        if path is None:
            return _begins(uri, self.remote_code)
        return any(one == ALL or _below(path, file_path(one) or "") for one in self.remote_code)

    def allow_module(self, name: str) -> bool:
        """Return whether a function of this module may be called."""
        return any(name == one or name.startswith(f"{one}.") for one in self.python_modules)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as run.json has them."""
        return {
            "uris": list(self.uris),
            "endpoints": list(self.endpoints),
            "remoteCode": list(self.remote_code),
            "pythonModules": list(self.python_modules),
            "ownFiles": self.own_files,
        }

    def text(self) -> str:
        """Return one line, for an environment variable."""
        return json.dumps(self.to_json(), sort_keys=True)


def rules_from(values: Mapping[str, Any]) -> Rules:
    """Parse what `to_json` returned."""
    return Rules(
        uris=tuple(values["uris"]),
        endpoints=tuple(values["endpoints"]),
        remote_code=tuple(values["remoteCode"]),
        python_modules=tuple(values["pythonModules"]),
        own_files=bool(values["ownFiles"]),
    )


MACHINE = Rules(remote_code=(ALL,), own_files=True)
"""Rules of a user's own machine."""


def file_path(uri: str) -> str | None:
    """Return the normalised path of an address of this machine; None for another kind of address."""
    if uri.startswith("file:"):
        path = uri.removeprefix("file:")
        if path.startswith("//"):
            path = "/" + path[2:].partition("/")[2]
        return posixpath.normpath(unquote(path))
    return posixpath.normpath(uri) if uri.startswith("/") else None


def is_never(path: str) -> bool:
    """Return whether a file is in a folder of `NEVER`, by its name alone."""
    return any(_below(posixpath.normpath(path), folder) for folder in NEVER)


def _below(path: str, folder: str) -> bool:
    return bool(folder) and (path + "/").startswith(folder.rstrip("/") + "/")


def _begins(uri: str, beginnings: Iterable[str]) -> bool:
    """Whether an address is among `beginnings`; a data set of the hub at any revision is that data set."""
    named = uri.partition("@")[0] if uri.startswith(HUB_DATASETS) else uri
    others = [one for one in beginnings if file_path(one) is None]
    return any(one == ALL or _below(uri, one) or _below(named, one) for one in others)


def _is_part(url: str, beginning: str) -> bool:
    """Return whether two addresses are of one server, and the first path is below the second."""
    (*server, path), (*wanted, folder) = _parts(url), _parts(beginning)
    return server == wanted and _below(path, folder or "/")


def _parts(url: str) -> tuple[str, str, int | None, str]:
    try:
        split = urlsplit(url)
        port = split.port or _PORTS.get(split.scheme)
    except ValueError:
        return ("", url, None, "")
    path = posixpath.normpath(unquote(split.path) or "/").replace("//", "/")
    return split.scheme, (split.hostname or "").rstrip("."), port, path
