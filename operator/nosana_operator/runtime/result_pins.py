"""The market host's Pinner over the pin services of a network's settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

import aiohttp

from nosana_operator.api.result import MAX_RAW
from nosana_operator.content import (
    FetchTimeouts,
    IpfsGateways,
    KuboPinner,
    PinataPinner,
    PinRefused,
    PinUnavailable,
    cid_from_digest,
    cid_of,
    digest_of,
)
from nosana_operator.content import Pinner as ContentPinner
from nosana_operator.errors import NosanaError
from nosana_operator.runtime.errors import SettingsError
from nosana_operator.runtime.settings import IpfsSettings, PinSettings

log = logging.getLogger(__name__)

_HEAD_START = 5.0
"""Seconds after which the next pin service is called too, while the first has not answered."""


class ResultPinner:
    """`market.ports.Pinner` over the network's pin services; one that keeps the bytes is enough.

    `gateways`: where `gives` looks for what was pinned; None: nowhere.
    """

    def __init__(self, services: Collection[ContentPinner], gateways: IpfsGateways | None) -> None:
        self._services = tuple(services)
        self._gateways = gateways

    def cid_of(self, data: bytes) -> str:
        """See `Pinner.cid_of`."""
        return cid_of(data)

    def digest_of(self, cid: str) -> bytes:
        """See `Pinner.digest_of`."""
        return digest_of(cid)

    def cid_from_digest(self, digest: bytes) -> str:
        """See `Pinner.cid_from_digest`."""
        return cid_from_digest(digest)

    async def pin(self, data: bytes, *, name: str) -> None:
        """See `Pinner.pin`. Raises the last service's error.

        The next service is called when one refuses or does not answer soon, because pay waits for the pin.
        """
        problem: NosanaError = PinUnavailable(
            "no pin service is configured for this network; add one under networks.<name>.ipfs.pin"
        )
        waiting = list(self._services)
        tasks: list[asyncio.Task[str]] = []
        pending: set[asyncio.Task[str]] = set()
        try:
            while waiting or pending:
                if waiting:
                    tasks.append(asyncio.create_task(waiting.pop(0).pin(data, name), name=f"pin of {name}"))
                    pending.add(tasks[-1])
                done, pending = await asyncio.wait(
                    pending, timeout=_HEAD_START if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    try:
                        task.result()
                    except NosanaError as error:
                        problem = error
                    else:
                        return
            raise problem
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def gives(self, cid: str) -> bool:
        """See `Pinner.gives`. What a gateway returns is verified against the CID."""
        if self._gateways is None:
            return True
        try:
            await self._gateways.fetch(cid)
        except NosanaError as error:
            log.info("the gateways do not serve the result yet: %s", error, extra={"cid": cid})
            return False
        return True


def result_gateways(ipfs: IpfsSettings, http: aiohttp.ClientSession) -> IpfsGateways | None:
    """The gateways that are checked for a result once it is pinned; None where the settings name none."""
    if not ipfs.gateways:
        return None
    return IpfsGateways(ipfs.gateways, http, FetchTimeouts(request=30.0, gateway=60.0), size_limit=MAX_RAW)


def make_pinners(name: str, ipfs: IpfsSettings, http: aiohttp.ClientSession) -> list[ContentPinner]:
    """A client for each pin service of the network `name`, in the order of its settings. Raises SettingsError."""
    return [
        ConfiguredService(f"networks.{name}.ipfs.pin[{at}]", pin, http) for at, pin in enumerate(ipfs.pin)
    ]


def pin_token(where: str, pin: PinSettings) -> str | None:
    """The secret in a pin service's file; None when the service needs none.

    Raises SettingsError; its message begins with `where`, the path in the settings.
    """
    if pin.token_file is None:
        if pin.type == "pinata":
            raise SettingsError(f"{where}.tokenFile is needed: a file with the Pinata account's JWT.")
        return None
    try:
        return pin.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where}.tokenFile {pin.token_file} cannot be read: {error}.") from None


class ConfiguredService:
    """A pin service of the settings. Its token is read for each pin, because the file may change: a rotated Secret
    appears in a running pod.

    Raises SettingsError at once when the token cannot be read at the start.
    """

    def __init__(self, where: str, pin: PinSettings, http: aiohttp.ClientSession) -> None:
        self._where = where
        self._settings = pin
        self._http = http
        pin_token(where, pin)

    async def pin(self, data: bytes, name: str) -> str:
        """See `content.Pinner.pin`."""
        try:
            token = pin_token(self._where, self._settings)
        except SettingsError as error:
            raise PinRefused(str(error)) from error
        return await self._client(token).pin(data, name)

    def _client(self, token: str | None) -> ContentPinner:
        if self._settings.type == "kubo":
            return KuboPinner(self._settings.url, self._http, authorization=token, label=self._where)
        return PinataPinner(self._settings.url, self._http, token or "", label=self._where)
