"""The keys in memory. A Secret is read when its NosanaMarket is looked at; a key once read is kept, so that
its runs still settle when the Secret is gone or holds another key (DESIGN 4)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nosana_operator.api import (
    MARKET_KIND,
    ApiError,
    MarketReason,
    NosanaMarketSpec,
    SecretRef,
    read,
)
from nosana_operator.errors import NosanaError, NotFound, Unavailable
from nosana_operator.market.ports import Cache, Clock, Kube, Wallet, WalletReader

FRESH = 60.0
"""Seconds for which a Secret that was read is not read again."""


@dataclass(frozen=True, slots=True)
class LoadedWallet:
    """One key of a NosanaMarket, or why there is none.

    With a `reason` it gets no new work. With a `wallet` its runs are served and settled all the same.
    """

    secret: str
    """`name/key` of the Secret: what the status names it by."""
    wallet: Wallet | None
    reason: str = ""
    message: str = ""
    unknown: bool = False
    """The API did not answer and nothing is in memory: neither there nor missing."""
    former: bool = False
    """The Secret held it before."""


@dataclass(slots=True)
class _Secret:
    """What was read of one Secret's key since the start."""

    current: Wallet | None = None
    read_at: datetime | None = None
    former: dict[str, Wallet] = field(default_factory=dict)
    """Keys that stood there before, by address."""


class Wallets:
    """Keys by address and by where they were read from."""

    def __init__(self, kube: Kube, cache: Cache, reader: WalletReader, clock: Clock) -> None:
        self._kube = kube
        self._cache = cache
        self._reader = reader
        self._clock = clock
        self._secrets: dict[tuple[str, str, str], _Secret] = {}

    async def of_market(self, body: Mapping[str, Any], spec: NosanaMarketSpec) -> tuple[LoadedWallet, ...]:
        """The keys that a NosanaMarket may use: each Secret's, then those that stood in them before.

        Of several NosanaMarkets for the same market the oldest has a key: two would serve each run twice.
        """
        namespace = body["metadata"]["namespace"]
        claimed, unknown = await self._claimed(body, spec)
        out: list[LoadedWallet] = []
        here: dict[str, str] = {}
        for one in await self._load(namespace, spec):
            address = one.wallet.address if one.wallet else None
            if address is not None and (address in claimed or address in here):
                owner = claimed.get(address) or f"Secret {here[address]}"
                said = f"the key {address} is used for this market by {owner} already; give this one its own"
                out.append(LoadedWallet(one.secret, None, MarketReason.WALLET_SHARED, said))
                continue
            if unknown:
                one = LoadedWallet(one.secret, None, one.reason, one.message, unknown=True)
            elif address is not None:
                here[address] = one.secret
            out.append(one)
        return tuple(out)

    def key(self, address: str, namespace: str, spec: NosanaMarketSpec) -> Wallet | None:
        """The key of an address, if it was ever read from one of the NosanaMarket's Secrets.

        Of this NosanaMarket: another one, whose author need not be trusted, must not sign with its keys.
        """
        for ref in (wallet.secret_ref for wallet in spec.wallets):
            known = self._secrets.get((namespace, ref.name, ref.key))
            if known is not None:
                if known.current is not None and known.current.address == address:
                    return known.current
                if address in known.former:
                    return known.former[address]
        return None

    def addresses(self, namespace: str, spec: Mapping[str, Any]) -> set[str]:
        """Addresses of a NosanaMarket's keys, former ones too, as far as they were read."""
        out: set[str] = set()
        for wallet in spec.get("wallets") or ():
            ref = wallet.get("secretRef") or {}
            known = self._secrets.get((namespace, ref.get("name", ""), ref.get("key", "id.json")))
            if known is not None:
                out |= known.former.keys()
                out |= {known.current.address} if known.current else set()
        return out

    async def _claimed(self, body: Mapping[str, Any], spec: NosanaMarketSpec) -> tuple[dict[str, str], bool]:
        """Addresses that older NosanaMarkets of the same market have, and whether some could not be read."""
        claimed: dict[str, str] = {}
        unknown = False
        for other in self._cache.list(MARKET_KIND):
            if not _older(other, body):
                continue
            try:
                theirs = read(NosanaMarketSpec, MARKET_KIND, "spec", other["spec"])
            except ApiError:
                continue
            if (theirs.network, theirs.address) != (spec.network, spec.address):
                continue
            meta = other["metadata"]
            for one in await self._load(meta["namespace"], theirs):
                unknown = unknown or one.unknown
            for address in self.addresses(meta["namespace"], other["spec"]):
                claimed[address] = f"NosanaMarket {meta['namespace']}/{meta['name']}"
        return claimed, unknown

    async def _load(self, namespace: str, spec: NosanaMarketSpec) -> list[LoadedWallet]:
        out = []
        for ref in dict.fromkeys((wallet.secret_ref.name, wallet.secret_ref.key) for wallet in spec.wallets):
            out += await self._one(namespace, SecretRef(name=ref[0], key=ref[1]))
        return out

    async def _one(self, namespace: str, ref: SecretRef) -> list[LoadedWallet]:
        label = f"{ref.name}/{ref.key}"
        known = self._secrets.setdefault((namespace, ref.name, ref.key), _Secret())
        now = self._clock.now()
        if known.read_at is None or (now - known.read_at).total_seconds() >= FRESH:
            try:
                wallet = await self._read(namespace, ref)
            except Unavailable as exc:
                # Silence is not absence: go on with what is in memory.
                if known.current is None:
                    return [LoadedWallet(label, None, MarketReason.SECRET_MISSING, str(exc), unknown=True)]
            except _NoKey as exc:
                said = (
                    f"{exc}; its runs still settle, from memory, until a restart"
                    if known.current
                    else str(exc)
                )
                return [LoadedWallet(label, known.current, exc.reason, said), *_former(label, known)]
            else:
                if known.current is not None and known.current.address != wallet.address:
                    known.former[known.current.address] = known.current
                known.former.pop(wallet.address, None)
                known.current, known.read_at = wallet, now
        return [LoadedWallet(label, known.current), *_former(label, known)]

    async def _read(self, namespace: str, ref: SecretRef) -> Wallet:
        """Raises Unavailable, or _NoKey with what to do about it."""
        where = f"Secret {namespace}/{ref.name}"
        try:
            secret = await self._kube.get("Secret", namespace, ref.name)
        except NotFound:
            raise _NoKey(
                MarketReason.SECRET_MISSING,
                f"{where} does not exist; create it with the key under {ref.key!r}",
            ) from None
        except Unavailable:
            raise
        except NosanaError as exc:
            raise _NoKey(
                MarketReason.SECRET_MISSING, f"{where} cannot be read: {exc}; give the operator `get` on it"
            ) from exc
        encoded = (secret.get("data") or {}).get(ref.key)
        if encoded is None:
            raise _NoKey(
                MarketReason.SECRET_INVALID,
                f"{where} has no key {ref.key!r}; set spec.wallets[].secretRef.key",
            )
        # `from None`: an exception's context could carry the secret into a log.
        try:
            return self._reader(base64.b64decode(encoded, validate=True))
        except binascii.Error:
            raise _NoKey(MarketReason.SECRET_INVALID, f"{where} key {ref.key!r} is not base64") from None
        except NosanaError as exc:
            raise _NoKey(MarketReason.SECRET_INVALID, f"{where} key {ref.key!r}: {exc}") from None


class _NoKey(NosanaError):
    """The Secret gives no key: a typed reason and a sentence."""

    def __init__(self, reason: MarketReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _former(label: str, known: _Secret) -> list[LoadedWallet]:
    """Keys that the Secret held before: no new work, but what they hold is served to its end."""
    said = (
        f"Secret {label} holds another key now; this one leaves the queue, and its runs settle from memory: put it "
        "into a Secret of its own before the operator is started again, or they cannot be paid"
    )
    return [
        LoadedWallet(f"{label}#{address}", wallet, MarketReason.SECRET_ROTATED, said, former=True)
        for address, wallet in known.former.items()
    ]


def _older(other: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    def age(of: Mapping[str, Any]) -> tuple[str, str]:
        return of["metadata"]["creationTimestamp"], of["metadata"]["uid"]

    return age(other) < age(body)
