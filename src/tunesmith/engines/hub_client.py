"""How huggingface_hub asks a hub: only where the hub's answers may lead by the rules of this process.

An answer may name another address: a redirect, or where a large file is. Each request, whatever led to it, is
looked at before it is sent.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from tunesmith.artifacts.opening import check_connected, check_redirect

VENDOR = "https://huggingface.co"


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
        check_redirect(hub, _as_asked(request.url))

    def after(response: Any) -> None:
        address = response.extensions["network_stream"].get_extra_info("server_addr")
        check_connected(_as_asked(response.url), str(address[0]))

    client = default_client_factory()
    client.event_hooks["request"].append(before)
    client.event_hooks["response"].append(after)
    return client


def _as_asked(url: Any) -> str:
    """A client's address, put together from the parts that it connects to."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}"
