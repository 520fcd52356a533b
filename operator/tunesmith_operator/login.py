"""kopf's connection to the API server: at the same address as our own client, and with its watches observed.

In a pod kopf would use kubernetes.default.svc, which needs DNS; our client uses the address that
Kubernetes passes to every pod in KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import aiohttp
import kopf
from kubernetes.aio.client import Configuration

from tunesmith_operator.api_client import SERVICE_ACCOUNT, as_go_verifies, in_pod
from tunesmith_operator.watches import Watches


def connection(folder: str = SERVICE_ACCOUNT, **arguments: Any) -> kopf.ConnectionInfo | None:
    """Return kopf's credentials, with the address that our client has; None if there are none.

    `folder` has the token of the pod's service account, if there is one.
    """
    account = kopf.login_with_service_account(**arguments)
    if account is None:
        return kopf.login_with_kubeconfig(**arguments)
    ours = Configuration()
    in_pod(ours, folder)
    return dataclasses.replace(account, server=ours.host)


class Login:
    """Makes kopf's HTTP session: for the same credentials, the same session.

    That is how kopf notices that they were already rejected, and exits instead of retrying for ever.
    """

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        self._last: tuple[kopf.ConnectionInfo, kopf.AiohttpSession] | None = None

    def session(self, info: kopf.ConnectionInfo | None) -> kopf.AiohttpSession | None:
        """Return the session for these credentials."""
        if info is None:
            return None
        if self._last is None or self._last[0] != info:
            self._last = (info, self._open(info))
        return self._last[1]

    def _open(self, info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=as_go_verifies(info.as_ssl_context())),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            trace_configs=[self._watches.trace()],
        )
        return kopf.AiohttpSession(
            aiohttp_session=session, server=info.server, default_namespace=info.default_namespace
        )
