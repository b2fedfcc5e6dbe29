"""The keys in memory. A Secret is read when its NosanaMarket is looked at; a key once read is kept, so that
its runs still settle when the Secret is gone (DESIGN 4)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nosana_operator.api import MarketReason, NosanaMarketSpec, SecretRef
from nosana_operator.errors import NosanaError, NotFound, Unavailable
from nosana_operator.market.ports import Clock, Kube, Wallet, WalletReader

FRESH = 60.0
"""Seconds for which a Secret that was read is not read again."""


@dataclass(frozen=True, slots=True)
class LoadedWallet:
    """One `spec.wallets` entry: a key, or why there is none."""

    secret: str
    """`name/key` of the Secret: what the status names it by."""
    wallet: Wallet | None
    reason: str = ""
    message: str = ""
    unknown: bool = False
    """The API did not answer: neither there nor missing."""


class Wallets:
    """Keys by address and by where they were read from."""

    def __init__(self, kube: Kube, reader: WalletReader, clock: Clock) -> None:
        self._kube = kube
        self._reader = reader
        self._clock = clock
        self._by_ref: dict[tuple[str, str, str], Wallet] = {}
        self._read_at: dict[tuple[str, str, str], datetime] = {}
        self._by_address: dict[str, Wallet] = {}

    def get(self, address: str) -> Wallet | None:
        """The key of an address, if it was ever read since the start."""
        return self._by_address.get(address)

    async def load(self, namespace: str, spec: NosanaMarketSpec) -> tuple[LoadedWallet, ...]:
        """Read every Secret of a NosanaMarket."""
        return tuple([await self._one(namespace, wallet.secret_ref) for wallet in spec.wallets])

    async def _one(self, namespace: str, ref: SecretRef) -> LoadedWallet:
        label = f"{ref.name}/{ref.key}"
        where = (namespace, ref.name, ref.key)
        known, now = self._by_ref.get(where), self._clock.now()
        if known is not None and (now - self._read_at[where]).total_seconds() < FRESH:
            return LoadedWallet(label, known)
        try:
            secret = await self._kube.get("Secret", namespace, ref.name)
        except NotFound:
            return LoadedWallet(
                label,
                None,
                MarketReason.SECRET_MISSING,
                f"Secret {namespace}/{ref.name} does not exist; create it with the key under {ref.key!r}",
            )
        except Unavailable as exc:
            # Silence is not absence: go on with what is in memory.
            return LoadedWallet(label, known, MarketReason.SECRET_MISSING, str(exc), unknown=True)
        except NosanaError as exc:
            return LoadedWallet(
                label,
                None,
                MarketReason.SECRET_MISSING,
                f"Secret {namespace}/{ref.name} cannot be read: {exc}; give the operator `get` on it",
            )
        encoded = (secret.get("data") or {}).get(ref.key)
        if encoded is None:
            return LoadedWallet(
                label,
                None,
                MarketReason.SECRET_INVALID,
                f"Secret {namespace}/{ref.name} has no key {ref.key!r}; set spec.wallets[].secretRef.key",
            )
        try:
            wallet = self._reader(base64.b64decode(encoded, validate=True))
        except (NosanaError, binascii.Error) as exc:
            said = str(exc) if isinstance(exc, NosanaError) else "it is not base64"
            return LoadedWallet(
                label,
                None,
                MarketReason.SECRET_INVALID,
                f"Secret {namespace}/{ref.name} key {ref.key!r}: {said}",
            )
        self._by_ref[where] = wallet
        self._read_at[where] = now
        self._by_address[wallet.address] = wallet
        return LoadedWallet(label, wallet)

    def addresses(self, namespace: str, spec: Mapping[str, Any]) -> set[str]:
        """Addresses of a NosanaMarket's wallets, as far as they were read."""
        out = set()
        for wallet in spec.get("wallets") or ():
            ref = wallet.get("secretRef") or {}
            known = self._by_ref.get((namespace, ref.get("name", ""), ref.get("key", "id.json")))
            if known is not None:
                out.add(known.address)
        return out
