"""The wallets in memory, read from their Secrets.

A Secret is read when its NosanaMarket is reconciled. A wallet that was read once is kept, so that its runs still
settle when the Secret is deleted or holds another key.

A wallet that `spec.wallets` or its Secret no longer has may still be in the queue or hold runs. It stays in the status
for as long, and is therefore known after a restart too.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from nosana_operator.api import (
    MARKET_KIND,
    ApiError,
    MarketReason,
    MarketRef,
    NosanaMarketSpec,
    SecretRef,
    parse_part,
)
from nosana_operator.errors import NosanaError, NotFound, Unavailable
from nosana_operator.market.job_spec import market_ref
from nosana_operator.market.ports import Cache, Clock, Kube, Wallet, WalletReader
from nosana_operator.market.unsettled import serving_wallets

REREAD_AFTER = 60.0
"""Seconds between reads of a Secret that gave a key."""
RETRY_AFTER = 5.0
"""Seconds between reads of a Secret that gave none."""


@dataclass(frozen=True, slots=True)
class LoadedWallet:
    """One wallet of a NosanaMarket, or why there is none.

    With a `reason` it gets no new work. With a `wallet` its runs are served and settled all the same.
    """

    secret: str
    """Its name in the status: `name/key` of the Secret, with `#address` once the Secret no longer has it."""
    wallet: Wallet | None
    reason: str = ""
    message: str = ""
    unknown: bool = False
    """The API did not answer and nothing is in memory, so it is not known whether the wallet exists."""
    former: bool = False
    """The spec or the Secret no longer has it: it is kept for what it still holds."""
    lost: str | None = None
    """Address of a wallet that the status names and that is not in memory: nothing can be signed with it."""

    @property
    def address(self) -> str | None:
        """The wallet's address, if it is known."""
        return self.wallet.address if self.wallet else self.lost


@dataclass(slots=True)
class _Secret:
    """What was read from one entry of a Secret since the start."""

    current: Wallet | None = None
    read_at: datetime | None = None
    problem: tuple[MarketReason, str] | None = None
    """Why the last read gave no wallet."""
    former: dict[str, Wallet] = field(default_factory=dict)
    """Wallets that were there before, by address."""


@dataclass(slots=True)
class _Claims:
    """Which wallets other NosanaMarkets of the same market have."""

    owners: dict[str, str] = field(default_factory=dict)
    """Address → the NosanaMarket that has precedence over this one."""
    elsewhere: set[str] = field(default_factory=set)
    """Addresses that are served there: a former wallet of this one need not be kept."""
    unknown: bool = False
    """A Secret of one that might have precedence could not be read."""


class Wallets:
    """Wallets by address and by the Secret that they were read from."""

    def __init__(self, kube: Kube, cache: Cache, reader: WalletReader, clock: Clock) -> None:
        self._kube = kube
        self._cache = cache
        self._reader = reader
        self._clock = clock
        self._secrets: dict[tuple[str, str, str], _Secret] = {}

    async def of_market(self, body: Mapping[str, Any], spec: NosanaMarketSpec) -> tuple[LoadedWallet, ...]:
        """The wallets of a NosanaMarket: one for each Secret of its spec, then the former ones and the lost.

        Of several NosanaMarkets for the same market only one gets a wallet, because two would serve each run twice.
        Precedence: the one that gave the wallet up while its jobs are not settled, then the oldest whose spec has
        it, then the oldest.
        """
        claims = await self._claims(body, spec)
        current, former = await self._load(body, spec)
        ours: dict[str, str] = {}
        out: list[LoadedWallet] = []
        for one in current:
            if one.wallet is not None:
                address = one.wallet.address
                owner = claims.owners.get(address)
                if owner is None and address in ours:
                    owner = f"Secret {ours[address]}"
                if owner is not None:
                    message = (
                        f"{owner} uses the wallet {address} for this market already; give this one its own"
                    )
                    out.append(LoadedWallet(one.secret, None, MarketReason.WALLET_SHARED, message))
                    continue
                ours[address] = one.secret
            out.append(one)
        serving = (
            serving_wallets(self._cache, market_ref(body), spec.job_namespace) if former else frozenset()
        )
        for one in former:
            if one.wallet is not None:
                address = one.wallet.address
                if address in ours or (address in claims.elsewhere and address not in serving):
                    continue
                ours[address] = one.secret
            out.append(one)
        out = _with_lost(out, _reported(body), ours.keys() | claims.owners.keys() | claims.elsewhere)
        if claims.unknown:
            out = [
                one
                if one.reason == MarketReason.WALLET_SHARED
                else replace(one, wallet=None, lost=one.address, unknown=True)
                for one in out
            ]
        return tuple(out)

    def by_address(self, address: str, ref: MarketRef, spec: NosanaMarketSpec) -> Wallet | None:
        """The wallet, if it was ever read from one of this NosanaMarket's Secrets.

        Another NosanaMarket, whose author need not be trusted, must not sign with its wallets.
        """
        body = self._cache.get(MARKET_KIND, ref.namespace, ref.name)
        reported = _reported(body) if body else {}
        secrets = _secrets_of(spec)
        for name, key in (*secrets, *(_removed(reported, secrets) if address in reported.values() else ())):
            wallet = self._in_memory(ref.namespace, name, key).get(address)
            if wallet is not None:
                return wallet
        return None

    def addresses(self, body: Mapping[str, Any]) -> set[str]:
        """Addresses of a NosanaMarket's wallets that were read, and of those that its status names."""
        out = set(_reported(body).values())
        for wallet in body["spec"].get("wallets") or ():
            ref = wallet.get("secretRef") or {}
            name, key = ref.get("name", ""), ref.get("key", "id.json")
            out |= self._in_memory(body["metadata"]["namespace"], name, key).keys()
        return out

    def _in_memory(self, namespace: str, name: str, key: str) -> dict[str, Wallet]:
        """The wallets that were read from an entry of a Secret since the start, by address."""
        known = self._secrets.get((namespace, name, key))
        if known is None:
            return {}
        return known.former | ({known.current.address: known.current} if known.current else {})

    async def _claims(self, body: Mapping[str, Any], spec: NosanaMarketSpec) -> _Claims:
        """Which wallets the other NosanaMarkets of the same market have."""
        out = _Claims()
        for other in self._cache.list(MARKET_KIND):
            if market_ref(other) == market_ref(body):
                continue
            try:
                theirs = parse_part(NosanaMarketSpec, MARKET_KIND, "spec", other["spec"])
            except ApiError:
                continue
            if (theirs.network, theirs.address) != (spec.network, spec.address):
                continue
            older, ref = _older(other, body), market_ref(other)
            current, former = await self._load(other, theirs)
            serving = serving_wallets(self._cache, ref, theirs.job_namespace) if former else frozenset()
            for one in (*current, *former):
                out.unknown = out.unknown or (one.unknown and (older or one.former))
                address = one.wallet.address if one.wallet else None
                if address is None:
                    continue
                if older or not one.former:
                    out.elsewhere.add(address)
                if address in serving if one.former else older:
                    out.owners.setdefault(address, f"NosanaMarket {ref.namespace}/{ref.name}")
        return out

    async def _load(
        self, body: Mapping[str, Any], spec: NosanaMarketSpec
    ) -> tuple[list[LoadedWallet], list[LoadedWallet]]:
        """The wallets of the spec, one for each Secret, and the former ones that are in memory or not read yet."""
        namespace, reported = body["metadata"]["namespace"], _reported(body)
        current: list[LoadedWallet] = []
        former: list[LoadedWallet] = []
        secrets = _secrets_of(spec)
        for name, key in secrets:
            one, previous = await self._one(namespace, SecretRef(name=name, key=key))
            current.append(one)
            former += previous
        for name, key in _removed(reported, secrets):
            one, previous = await self._one(namespace, SecretRef(name=name, key=key))
            if one.wallet is None:
                one = replace(one, former=True, lost=reported.get(one.secret))
            # A key that came into the Secret after the spec dropped it has never been this NosanaMarket's.
            former += [_taken_out(each) for each in (one, *previous) if each.address in reported.values()]
        return current, former

    async def _one(self, namespace: str, ref: SecretRef) -> tuple[LoadedWallet, list[LoadedWallet]]:
        """The wallet that a Secret has, and those that it had before."""
        label = f"{ref.name}/{ref.key}"
        known = self._secrets.setdefault((namespace, ref.name, ref.key), _Secret())
        try:
            await self._refresh(namespace, ref, known)
        except Unavailable as exc:
            # Silence is not absence: continue with what is in memory.
            if known.current is None:
                return LoadedWallet(label, None, MarketReason.SECRET_MISSING, str(exc), unknown=True), []
        if known.problem is None:
            return LoadedWallet(label, known.current), _former(label, known)
        reason, message = known.problem
        if known.current is not None:
            message += "; its runs still settle, from memory, until a restart"
        return LoadedWallet(label, known.current, reason, message), _former(label, known)

    async def _refresh(self, namespace: str, ref: SecretRef, known: _Secret) -> None:
        """Read the Secret again when it is due. Raises Unavailable."""
        now = self._clock.now()
        interval = REREAD_AFTER if known.problem is None else RETRY_AFTER
        if known.read_at is not None and (now - known.read_at).total_seconds() < interval:
            return
        try:
            wallet = await self._read(namespace, ref)
        except _NoKey as exc:
            known.problem, known.read_at = (exc.reason, str(exc)), now
            return
        if known.current is not None and known.current.address != wallet.address:
            known.former[known.current.address] = known.current
        known.former.pop(wallet.address, None)
        known.current, known.problem, known.read_at = wallet, None, now

    async def _read(self, namespace: str, ref: SecretRef) -> Wallet:
        """Raises Unavailable, or _NoKey with the remedy."""
        name = f"Secret {namespace}/{ref.name}"
        try:
            secret = await self._kube.get("Secret", namespace, ref.name)
        except NotFound:
            raise _NoKey(
                MarketReason.SECRET_MISSING,
                f"{name} does not exist; create it with the key under {ref.key!r}",
            ) from None
        except Unavailable:
            raise
        except NosanaError as exc:
            raise _NoKey(
                MarketReason.SECRET_MISSING, f"{name} cannot be read: {exc}; give the operator `get` on it"
            ) from exc
        encoded = (secret.get("data") or {}).get(ref.key)
        if encoded is None:
            raise _NoKey(
                MarketReason.SECRET_INVALID,
                f"{name} has no key {ref.key!r}; set spec.wallets[].secretRef.key",
            )
        # `from None`: an exception's context could carry the secret into a log.
        try:
            return self._reader(base64.b64decode(encoded, validate=True))
        except binascii.Error:
            raise _NoKey(MarketReason.SECRET_INVALID, f"{name} key {ref.key!r} is not base64") from None
        except NosanaError as exc:
            raise _NoKey(MarketReason.SECRET_INVALID, f"{name} key {ref.key!r}: {exc}") from None


class _NoKey(NosanaError):
    """The Secret gives no key: a typed reason and a sentence with the remedy."""

    def __init__(self, reason: MarketReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _secrets_of(spec: NosanaMarketSpec) -> list[tuple[str, str]]:
    """Name and key of the Secrets in the spec, each once."""
    return list(dict.fromkeys((wallet.secret_ref.name, wallet.secret_ref.key) for wallet in spec.wallets))


def _reported(body: Mapping[str, Any]) -> dict[str, str]:
    """The wallets in the status: their Secret's name there → address."""
    rows = (body.get("status") or {}).get("wallets") or ()
    return {row["secret"]: row["address"] for row in rows if row.get("address")}


def _removed(reported: Collection[str], secrets: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Name and key of the Secrets that the status names and the spec no longer has."""
    out: list[tuple[str, str]] = []
    for label in reported:
        name, _, key = label.partition("#")[0].partition("/")
        if name and key and (name, key) not in (*secrets, *out):
            out.append((name, key))
    return out


def _former(label: str, known: _Secret) -> list[LoadedWallet]:
    """Wallets that the Secret held before: they get no new work, but what they hold is served to its end."""
    message = (
        f"Secret {label} holds another key now; this wallet leaves the queue, and its runs settle from memory: put "
        "its key into another Secret before the operator restarts, or they cannot be paid"
    )
    return [
        LoadedWallet(f"{label}#{address}", wallet, MarketReason.SECRET_ROTATED, message, former=True)
        for address, wallet in known.former.items()
    ]


def _taken_out(one: LoadedWallet) -> LoadedWallet:
    """A wallet whose Secret is no longer in the spec."""
    if one.wallet is None:
        return one
    message = "is no longer in spec.wallets: it leaves the queue, and its runs are settled"
    advice = one.message or "keep its Secret until it has disappeared from this status"
    return replace(one, reason=MarketReason.WALLET_REMOVED, message=f"{message}; {advice}", former=True)


def _with_lost(
    wallets: Collection[LoadedWallet], reported: Mapping[str, str], served: Collection[str]
) -> list[LoadedWallet]:
    """The wallets with those of the status that were not read: they may be in the queue and hold runs all the same.

    `served`: addresses that this or another NosanaMarket has.
    """
    out: list[LoadedWallet] = []
    for one in wallets:
        address = one.lost or reported.get(one.secret)
        if one.wallet is None and address is not None and one.reason != MarketReason.WALLET_SHARED:
            one = replace(one, lost=None if address in served else address)
            if one.lost and not one.unknown:
                one = replace(one, message=f"{one.message}; {_consequence(address)}")
        if not (one.former and one.address is None):
            out.append(one)
    have = {one.address for one in out} | set(served)
    for label, address in reported.items():
        if address not in have:
            have.add(address)
            secret = label.partition("#")[0]
            message = (
                f"Secret {secret} holds another key, and this one is not in memory since the operator restarted: "
                f"put it into another Secret in spec.wallets; {_consequence(address)}"
            )
            silent = any(one.unknown for one in wallets)
            out.append(
                LoadedWallet(
                    f"{secret}#{address}",
                    None,
                    MarketReason.SECRET_ROTATED,
                    message,
                    unknown=silent,
                    former=True,
                    lost=address,
                )
            )
    return out


def _consequence(address: str) -> str:
    return (
        f"without the key of {address} its runs cannot be settled, and only the market's authority can remove it "
        "from the queue"
    )


def _older(other: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    def age(of: Mapping[str, Any]) -> tuple[str, str]:
        return of["metadata"]["creationTimestamp"], of["metadata"]["uid"]

    return age(other) < age(body)
