"""Credentials: a kubeconfig (certificates, tokens, exec plugins) or the pod's service account.

The `kubernetes` package reads the configuration; an aiohttp session carries the requests. Bearer tokens are read
again every 30 s (service account tokens rotate, those of exec plugins expire), so a session lives as long as the
process.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from nosana_operator.kube.errors import CredentialsError

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_MAX_AGE = 30.0
"""Seconds for which a bearer token is used before it is read again (and renewed if needed)."""


class BearerToken:
    """The `Authorization` header, refreshed off the event loop (an exec plugin is a blocking program)."""

    def __init__(
        self, read: Callable[[], str | None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._value: str | None = None
        self._read_at: float | None = None
        self._lock = asyncio.Lock()

    async def header(self, *, refused: str | None = None) -> str | None:
        """The header's value, None without a token; a new one when the server `refused` the last."""
        if self._stale(refused):
            async with self._lock:
                if self._stale(refused):
                    self._value = await asyncio.to_thread(self._read)
                    self._read_at = self._clock()
        return self._value

    def _stale(self, refused: str | None) -> bool:
        if refused is not None and refused == self._value:
            return True
        return self._read_at is None or self._clock() - self._read_at > _TOKEN_MAX_AGE

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """aiohttp client middleware: send with the token, and once more with a fresh one after a 401."""
        sent = await self.header()
        if sent is not None:
            request.headers["Authorization"] = sent
        response = await handler(request)
        if response.status != 401 or sent is None:
            return response
        fresh = await self.header(refused=sent)
        if fresh is None or fresh == sent:
            return response
        response.release()
        request.headers["Authorization"] = fresh
        return await handler(request)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the API server is and how to authenticate. Holds no token itself, so that a repr shows none."""

    server: str
    namespace: str
    """Namespace of the kubeconfig's context or of the pod; "default" where neither names one."""
    tls: ssl.SSLContext | None = field(repr=False)
    read_token: Callable[[], str | None] = field(repr=False)
    proxy: str | None = field(default=None, repr=False)

    def open_session(
        self,
        *,
        user_agent: str = "nosana-operator",
        middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
    ) -> aiohttp.ClientSession:
        """A session for relative paths of the API server; the caller closes it. Needs a running loop.

        `middlewares` see each request before the one that authenticates it.
        """
        return aiohttp.ClientSession(
            base_url=self.server.rstrip("/") + "/",
            # No limit: watches hold connections permanently, and under a limit they would starve the requests.
            connector=aiohttp.TCPConnector(limit=0, ssl=self.tls if self.tls is not None else True),
            headers={"User-Agent": user_agent},
            middlewares=(*middlewares, BearerToken(self.read_token)),
            proxy=self.proxy,
        )


def load_credentials(kubeconfig: Path | None = None, *, context: str | None = None) -> Credentials:
    """The credentials of `kubeconfig`, else $KUBECONFIG, else the pod's service account, else ~/.kube/config.

    Raises CredentialsError.
    """
    explicit = kubeconfig is not None or bool(os.environ.get("KUBECONFIG")) or context is not None
    configuration = kubernetes_client.Configuration()
    try:
        if not explicit and "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes_config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
            namespace = _pod_namespace()
        else:
            # The package reads $KUBECONFIG once, when it is imported; this reads it at each call.
            file = str(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
            kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=file, context=context, client_configuration=configuration, persist_config=False
            )
            namespace = _context_namespace(file, context)
        return _from_configuration(configuration, namespace)
    except (kubernetes_config.ConfigException, OSError, yaml.YAMLError, ssl.SSLError) as error:
        raise CredentialsError(
            f"No usable Kubernetes credentials: {str(error).rstrip('.')}. Give a kubeconfig with --kubeconfig or "
            "$KUBECONFIG, or run in a pod with a service account."
        ) from error


def _from_configuration(configuration: Any, namespace: str) -> Credentials:
    if configuration.tls_server_name:
        raise CredentialsError(
            "The kubeconfig sets tls-server-name, which is not supported: use the server's name."
        )
    tls: ssl.SSLContext | None = None
    if str(configuration.host).startswith("https:"):
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            tls.load_cert_chain(configuration.cert_file, configuration.key_file)

    def read_token() -> str | None:
        header = configuration.get_api_key_with_prefix("BearerToken")
        # "bearer TOKEN", "Basic PAIR", or the bare token, depending on where the package read it.
        words = str(header or "").split()
        if not words:
            return None
        scheme = words[0].capitalize() if len(words) > 1 else "Bearer"
        return f"{scheme} {words[-1]}"

    return Credentials(
        server=str(configuration.host),
        namespace=namespace,
        tls=tls,
        read_token=read_token,
        proxy=configuration.proxy or None,
    )


def _pod_namespace() -> str:
    try:
        return (_SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


def _context_namespace(file: str, context: str | None) -> str:
    contexts, active = kubernetes_config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
        config_file=file
    )
    chosen = next((entry for entry in contexts if entry["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")
