"""How huggingface_hub asks a hub: only where the hub's answers may lead by the rules of this process.

An answer may name another address: a redirect, or where a large file is. Each request, whatever led to it, is
looked at before it is sent. An answer also names commits and files, and huggingface_hub makes paths of its
cache of these: what would lead out of the cache is refused.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any
from urllib.parse import unquote, urlsplit

from tunesmith.artifacts.opening import check_connected, check_endpoint, check_redirect
from tunesmith.errors import ModelError

VENDOR = "https://huggingface.co"
_NAMES = ("etag", "x-linked-etag", "x-repo-commit")
"""Headers whose values become names of files."""


def open_hub(endpoint: str | None, offline: bool) -> bool:
    """Check that this process may ask the hub at `endpoint`, and have it asked so. Returns whether it is.

    None is the hub that the environment names, or the vendor's. Raises PermanentError.
    """
    from huggingface_hub import constants

    offline = offline or constants.HF_HUB_OFFLINE
    if endpoint:
        check_endpoint(endpoint)
    elif not offline and constants.ENDPOINT == VENDOR:
        check_endpoint(VENDOR, default_of="hub.endpoint")
    ask_only(endpoint or constants.ENDPOINT)
    return not offline


@lru_cache(maxsize=1)
def ask_only(hub: str) -> None:
    """Have every request of this process that huggingface_hub makes start from the hub at this address.

    Its client of the storage called Xet goes where it is led without asking here; it is used with the
    vendor's hub only, the one that has such a storage.
    """
    from huggingface_hub import constants, set_client_factory

    set_client_factory(partial(_client, hub))
    constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET or hub.rstrip("/") != VENDOR


def _client(hub: str) -> Any:
    """The client that huggingface_hub makes itself, and our questions before and after each request."""
    from huggingface_hub.utils._http import default_client_factory

    def before(request: Any) -> None:
        url = _as_asked(request.url)
        check_redirect(hub, url)
        if url.startswith(f"{hub.rstrip('/')}/"):  # the commit that an earlier answer named is part of it
            _check_name(hub, unquote(urlsplit(url).path).strip("/"))

    def after(response: Any) -> None:
        address = response.extensions["network_stream"].get_extra_info("server_addr")
        check_connected(_as_asked(response.url), str(address[0]))
        for header in _NAMES:
            _check_name(hub, response.headers.get(header, "").removeprefix("W/").strip('"') or "none")

    client = default_client_factory()
    client.event_hooks["request"].append(before)
    client.event_hooks["response"].append(after)
    return client


def _as_asked(url: Any) -> str:
    """Return a client's address, put together from the parts that it connects to."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}"


def _check_name(hub: str, name: str) -> None:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ModelError(
            f"The hub {hub} names a commit or a file {name[:80]!r}, which leads out of the cache."
        )
