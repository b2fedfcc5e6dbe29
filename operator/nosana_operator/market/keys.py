"""Whether each key may stand, and what it lacks."""

from __future__ import annotations

from typing import Literal

from nosana_operator.api import MarketReason, WalletStatus
from nosana_operator.market.effects import Verdict
from nosana_operator.market.facts import UNKNOWN, Funds, MarketFacts
from nosana_operator.market.view import MarketView, WalletView

SOL_RESERVE = 5_000_000
"""Lamports (0.005 SOL) below which a key does not stand: fees, rent of a run (node-behaviour.md 3.2)."""


def wallet_status(view: MarketView, wallet: WalletView, market: MarketFacts | None) -> WalletStatus:
    """One key as it stands, with the remedy for what it lacks."""
    funds = wallet.funds if isinstance(wallet.funds, Funds) else None
    base = WalletStatus(
        secret=wallet.secret,
        address=wallet.address,
        lamports=funds.lamports if funds else None,
        nos=funds.nos if funds else None,
        xnos=str(funds.xnos) if funds and funds.xnos is not None else None,
    )

    def is_(
        state: Literal["Ready", "Standing", "Blocked", "Unknown"], reason: str, message: str
    ) -> WalletStatus:
        return base.model_copy(update={"state": state, "reason": str(reason), "message": message})

    if wallet.unread:
        said = wallet.problem[1] if wallet.problem else "its Secret could not be read yet"
        return is_("Unknown", MarketReason.SECRET_MISSING, said)
    if wallet.problem is not None:
        return is_("Blocked", *wallet.problem)
    if market is None or wallet.runs is UNKNOWN or funds is None:
        return is_("Unknown", MarketReason.CHAIN_UNAVAILABLE, "the chain has not answered yet")
    if wallet.address in market.standing:
        return is_("Standing", MarketReason.STANDING, "stands in the market's queue")
    if market.node_access_key is not None:
        if funds.access_keys is None:
            return is_("Unknown", MarketReason.CHAIN_UNAVAILABLE, "its access keys have not been read yet")
        if market.node_access_key not in funds.access_keys:
            return is_(
                "Blocked",
                MarketReason.ACCESS_KEY_MISSING,
                f"holds no token of the verified collection {market.node_access_key}, which the market wants; "
                "have one issued to this key, or choose an open market",
            )
    if funds.lamports < SOL_RESERVE:
        return is_(
            "Blocked",
            MarketReason.SOL_TOO_LOW,
            f"has {funds.lamports / 1e9:.6f} SOL; send it at least {SOL_RESERVE / 1e9} SOL for fees and rent",
        )
    if funds.xnos is None:
        return is_(
            "Blocked",
            MarketReason.STAKE_MISSING,
            "has no stake account; stake NOS with this key (an amount of 0 is enough for a market "
            "without a minimum)",
        )
    if funds.xnos < market.xnos_minimum:
        return is_(
            "Blocked",
            MarketReason.STAKE_TOO_LOW,
            f"has {funds.xnos / 1e6:.6f} xNOS staked, the market wants {market.xnos_minimum / 1e6:.6f}; "
            "top up the stake or extend its duration",
        )
    return is_("Ready", MarketReason.READY, "may stand")


def wallets_ready(wallets: tuple[WalletStatus, ...]) -> Verdict:
    """The keys in one condition: the first lack speaks for all."""
    blocked = [w for w in wallets if w.state == "Blocked"]
    if blocked:
        first = blocked[0]
        more = f" (and {len(blocked) - 1} more)" if len(blocked) > 1 else ""
        who = first.address or first.secret
        return Verdict(False, first.reason or "", f"wallet {who}: {first.message}{more}")
    unknown = next((w for w in wallets if w.state == "Unknown"), None)
    if unknown is not None:
        return Verdict(None, unknown.reason or "", f"wallet {unknown.secret}: {unknown.message}")
    return Verdict(True, MarketReason.READY, "every wallet may stand")
