"""The keys in memory. A Secret is read when its NosanaMarket is looked at; a key once read is kept, so that
its runs still settle when the Secret is gone or holds another key.

A key that `spec.wallets` or its Secret has no more is not done with: it may stand, or hold runs. It stays in
the status for as long, and so it is known after a restart too.
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
from nosana_operator.market.ports import Cache, Clock, Kube, Wallet, WalletReader
from nosana_operator.market.unsettled import serving_keys

FRESH = 60.0
"""Seconds for which a Secret that was read is not read again."""
RETRY = 5.0
"""Seconds after which one that gave no key is asked for again."""


@dataclass(frozen=True, slots=True)
class LoadedWallet:
    """One key of a NosanaMarket, or why there is none.

    With a `reason` it gets no new work. With a `wallet` its runs are served and settled all the same.
    """

    secret: str
    """`name/key` of the Secret, `#address` after it when the Secret has it no more: the status's name for it."""
    wallet: Wallet | None
    reason: str = ""
    message: str = ""
    unknown: bool = False
    """The API did not answer and nothing is in memory: neither there nor missing."""
    former: bool = False
    """The spec or the Secret has it no more: it is kept for what it still holds."""
    lost: str | None = None
    """Address of a key that the status names and that is not in memory: nothing can be signed with it."""

    @property
    def address(self) -> str | None:
        """Of the key, as far as it is known."""
        return self.wallet.address if self.wallet else self.lost


@dataclass(slots=True)
class _Secret:
    """What was read of one Secret's key since the start."""

    current: Wallet | None = None
    asked_at: datetime | None = None
    problem: tuple[MarketReason, str] | None = None
    """Why it gave no key when it was last asked for."""
    former: dict[str, Wallet] = field(default_factory=dict)
    """Keys that stood there before, by address."""


@dataclass(slots=True)
class _Claims:
    """What other NosanaMarkets of the same market have of the keys."""

    before: dict[str, str] = field(default_factory=dict)
    """Address → the NosanaMarket that goes before this one."""
    elsewhere: set[str] = field(default_factory=set)
    """Addresses that are looked after there: what is former here goes."""
    unknown: bool = False
    """A Secret of one that might go before could not be read."""


class Wallets:
    """Keys by address and by where they were read from."""

    def __init__(self, kube: Kube, cache: Cache, reader: WalletReader, clock: Clock) -> None:
        self._kube = kube
        self._cache = cache
        self._reader = reader
        self._clock = clock
        self._secrets: dict[tuple[str, str, str], _Secret] = {}

    async def of_market(self, body: Mapping[str, Any], spec: NosanaMarketSpec) -> tuple[LoadedWallet, ...]:
        """The keys of a NosanaMarket: one for each Secret of its spec, then the former ones and the lost.

        Of several NosanaMarkets for the same market one has a key, for two would serve each run twice: the one
        that gave it up while its jobs are not settled yet, then the oldest whose spec has it, then the oldest.
        """
        claims = await self._claims(body, spec)
        current, former = await self._load(body, spec)
        here: dict[str, str] = {}
        out: list[LoadedWallet] = []
        for one in current:
            if one.wallet is not None:
                address = one.wallet.address
                owner = claims.before.get(address)
                if owner is None and address in here:
                    owner = f"Secret {here[address]}"
                if owner is not None:
                    said = (
                        f"the key {address} is used for this market by {owner} already; give this one its own"
                    )
                    out.append(LoadedWallet(one.secret, None, MarketReason.WALLET_SHARED, said))
                    continue
                here[address] = one.secret
            out.append(one)
        serving = serving_keys(self._cache, _ref(body), spec.job_namespace) if former else frozenset()
        for one in former:
            if one.wallet is not None:
                address = one.wallet.address
                if address in here or (address in claims.elsewhere and address not in serving):
                    continue
                here[address] = one.secret
            out.append(one)
        out = _with_lost(out, _told(body), here.keys() | claims.before.keys() | claims.elsewhere)
        if claims.unknown:
            out = [
                one
                if one.reason == MarketReason.WALLET_SHARED
                else replace(one, wallet=None, lost=one.address, unknown=True)
                for one in out
            ]
        return tuple(out)

    def key(self, address: str, ref: MarketRef, spec: NosanaMarketSpec) -> Wallet | None:
        """The key of an address, if it was ever read from one of the NosanaMarket's Secrets.

        Of this NosanaMarket: another one, whose author need not be trusted, must not sign with its keys.
        """
        body = self._cache.get(MARKET_KIND, ref.namespace, ref.name)
        told = _told(body) if body else {}
        secrets = _secrets_of(spec)
        for name, key in (*secrets, *(_removed(told, secrets) if address in told.values() else ())):
            found = self._in_memory(ref.namespace, name, key).get(address)
            if found is not None:
                return found
        return None

    def addresses(self, body: Mapping[str, Any]) -> set[str]:
        """Addresses of a NosanaMarket's keys, as far as they were read, and of those that its status names."""
        out = set(_told(body).values())
        for wallet in body["spec"].get("wallets") or ():
            ref = wallet.get("secretRef") or {}
            name, key = ref.get("name", ""), ref.get("key", "id.json")
            out |= self._in_memory(body["metadata"]["namespace"], name, key).keys()
        return out

    def _in_memory(self, namespace: str, name: str, key: str) -> dict[str, Wallet]:
        """What was read of a Secret's key since the start, by address."""
        known = self._secrets.get((namespace, name, key))
        if known is None:
            return {}
        return known.former | ({known.current.address: known.current} if known.current else {})

    async def _claims(self, body: Mapping[str, Any], spec: NosanaMarketSpec) -> _Claims:
        """What the other NosanaMarkets of the same market have of the keys."""
        out = _Claims()
        for other in self._cache.list(MARKET_KIND):
            if _ref(other) == _ref(body):
                continue
            try:
                theirs = parse_part(NosanaMarketSpec, MARKET_KIND, "spec", other["spec"])
            except ApiError:
                continue
            if (theirs.network, theirs.address) != (spec.network, spec.address):
                continue
            older, ref = _older(other, body), _ref(other)
            current, former = await self._load(other, theirs)
            serving = serving_keys(self._cache, ref, theirs.job_namespace) if former else frozenset()
            for one in (*current, *former):
                out.unknown = out.unknown or (one.unknown and (older or one.former))
                address = one.wallet.address if one.wallet else None
                if address is None:
                    continue
                if older or not one.former:
                    out.elsewhere.add(address)
                if address in serving if one.former else older:
                    out.before.setdefault(address, f"NosanaMarket {ref.namespace}/{ref.name}")
        return out

    async def _load(
        self, body: Mapping[str, Any], spec: NosanaMarketSpec
    ) -> tuple[list[LoadedWallet], list[LoadedWallet]]:
        """The keys of the spec, one for each Secret, and the former ones that are in memory or not read yet."""
        namespace, told = body["metadata"]["namespace"], _told(body)
        current: list[LoadedWallet] = []
        former: list[LoadedWallet] = []
        secrets = _secrets_of(spec)
        for name, key in secrets:
            one, before = await self._one(namespace, SecretRef(name=name, key=key))
            current.append(one)
            former += before
        for name, key in _removed(told, secrets):
            one, before = await self._one(namespace, SecretRef(name=name, key=key))
            if one.wallet is None:
                one = replace(one, former=True, lost=told.get(one.secret))
            # What came into the Secret after it was taken out of the spec has never been this NosanaMarket's.
            former += [_taken_out(each) for each in (one, *before) if each.address in told.values()]
        return current, former

    async def _one(self, namespace: str, ref: SecretRef) -> tuple[LoadedWallet, list[LoadedWallet]]:
        """The key that a Secret has, and those that it had before."""
        label = f"{ref.name}/{ref.key}"
        known = self._secrets.setdefault((namespace, ref.name, ref.key), _Secret())
        try:
            await self._refresh(namespace, ref, known)
        except Unavailable as exc:
            # Silence is not absence: go on with what is in memory.
            if known.current is None:
                return LoadedWallet(label, None, MarketReason.SECRET_MISSING, str(exc), unknown=True), []
        if known.problem is None:
            return LoadedWallet(label, known.current), _former(label, known)
        reason, said = known.problem
        if known.current is not None:
            said += "; its runs still settle, from memory, until a restart"
        return LoadedWallet(label, known.current, reason, said), _former(label, known)

    async def _refresh(self, namespace: str, ref: SecretRef, known: _Secret) -> None:
        """Ask for the Secret again when it is time. Raises Unavailable."""
        now = self._clock.now()
        holds = FRESH if known.problem is None else RETRY
        if known.asked_at is not None and (now - known.asked_at).total_seconds() < holds:
            return
        try:
            wallet = await self._read(namespace, ref)
        except _NoKey as exc:
            known.problem, known.asked_at = (exc.reason, str(exc)), now
            return
        if known.current is not None and known.current.address != wallet.address:
            known.former[known.current.address] = known.current
        known.former.pop(wallet.address, None)
        known.current, known.problem, known.asked_at = wallet, None, now

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


def _ref(body: Mapping[str, Any]) -> MarketRef:
    return MarketRef(namespace=body["metadata"]["namespace"], name=body["metadata"]["name"])


def _secrets_of(spec: NosanaMarketSpec) -> list[tuple[str, str]]:
    """Name and key of the Secrets in the spec, each once."""
    return list(dict.fromkeys((wallet.secret_ref.name, wallet.secret_ref.key) for wallet in spec.wallets))


def _told(body: Mapping[str, Any]) -> dict[str, str]:
    """The keys as the status has them: address by the Secret's name there."""
    rows = (body.get("status") or {}).get("wallets") or ()
    return {row["secret"]: row["address"] for row in rows if row.get("address")}


def _removed(told: Collection[str], secrets: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Name and key of the Secrets that the status names and the spec has no more."""
    out: list[tuple[str, str]] = []
    for label in told:
        name, _, key = label.partition("#")[0].partition("/")
        if name and key and (name, key) not in (*secrets, *out):
            out.append((name, key))
    return out


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


def _taken_out(one: LoadedWallet) -> LoadedWallet:
    """A key whose Secret is not in the spec any more."""
    if one.wallet is None:
        return one
    said = "is not in spec.wallets any more: it leaves the queue, and its runs are settled"
    more = one.message or "keep its Secret until it has gone from this status"
    return replace(one, reason=MarketReason.WALLET_REMOVED, message=f"{said}; {more}", former=True)


def _with_lost(
    wallets: Collection[LoadedWallet], told: Mapping[str, str], known: Collection[str]
) -> list[LoadedWallet]:
    """With the keys of the status that were not read: they may stand, and hold runs, all the same.

    `known`: addresses that are looked after, here or elsewhere.
    """
    out: list[LoadedWallet] = []
    for one in wallets:
        address = one.lost or told.get(one.secret)
        if one.wallet is None and address is not None and one.reason != MarketReason.WALLET_SHARED:
            one = replace(one, lost=None if address in known else address)
            if one.lost and not one.unknown:
                one = replace(one, message=f"{one.message}; {_only(address)}")
        if not (one.former and one.address is None):
            out.append(one)
    have = {one.address for one in out} | set(known)
    for label, address in told.items():
        if address not in have:
            have.add(address)
            secret = label.partition("#")[0]
            said = (
                f"Secret {secret} holds another key, and this one is not in memory since the operator was "
                f"started: put it into a Secret of its own in spec.wallets; {_only(address)}"
            )
            silent = any(one.unknown for one in wallets)
            out.append(
                LoadedWallet(
                    f"{secret}#{address}",
                    None,
                    MarketReason.SECRET_ROTATED,
                    said,
                    unknown=silent,
                    former=True,
                    lost=address,
                )
            )
    return out


def _only(address: str) -> str:
    return (
        f"without the key {address} its runs cannot be settled, and only the market's authority can take it out "
        "of the queue"
    )


def _older(other: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    def age(of: Mapping[str, Any]) -> tuple[str, str]:
        return of["metadata"]["creationTimestamp"], of["metadata"]["uid"]

    return age(other) < age(body)
