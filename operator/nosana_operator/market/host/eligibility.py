"""Whether each wallet may join the queue, and what it lacks."""

from __future__ import annotations

from typing import Literal

from nosana_operator.api import MarketReason, WalletStatus
from nosana_operator.market.facts import Absent, Funds, MarketFacts
from nosana_operator.market.host.effects import ConditionValue
from nosana_operator.market.host.view import MarketView, WalletView

_SOL = 10**9
RUN_RENT = 1_726_080
"""Lamports of a run's account: `work` pays it when a job waits (docs/protocol/jobs-program.md#rent-and-payments)."""
TOKEN_ACCOUNT_RENT = 2_039_280
"""Lamports of a NOS account: the wallet's own, and that of a poster who has closed theirs
(docs/protocol/jobs-program.md#finish)."""


def reserve(runs: int, fee_cap: int, *, nos_account: bool, standing: bool = False) -> int:
    """Lamports that a wallet needs before it gets another run: what that one and the open ones may still cost.

    `standing`: a wallet in the queue needs less, for the poster pays the rent of the run that it is given, and the
    rent of the open ones is paid.
    """
    each = fee_cap + TOKEN_ACCOUNT_RENT + (0 if standing else RUN_RENT)
    return (runs + 1) * each + (0 if nos_account else TOKEN_ACCOUNT_RENT)


def wallet_status(
    view: MarketView, wallet: WalletView, market: MarketFacts | None, market_found: ConditionValue
) -> WalletStatus:
    """One wallet's status, with the remedy for what it lacks."""
    funds = wallet.funds if isinstance(wallet.funds, Funds) else None
    base = WalletStatus(
        secret=wallet.secret,
        address=wallet.address,
        lamports=funds.lamports if funds else None,
        nos=funds.nos if funds else None,
        xnos=str(funds.xnos) if funds and funds.xnos is not None else None,
        standing=market is not None and wallet.address in market.standing,
        foreign=wallet.foreign,
    )

    def status(
        state: Literal["Ready", "Standing", "Blocked", "Unknown"], reason: str, message: str
    ) -> WalletStatus:
        return base.model_copy(update={"state": state, "reason": str(reason), "message": message})

    if wallet.unread:
        message = wallet.problem[1] if wallet.problem else "its Secret could not be read yet"
        return status("Unknown", MarketReason.SECRET_MISSING, message)
    if wallet.problem is not None:
        return status("Blocked", *wallet.problem)
    if market_found.status is False:
        return status("Unknown", market_found.reason, "not checked: there is no market for it to join")
    if market is None or isinstance(wallet.runs, Absent) or funds is None:
        return status("Unknown", MarketReason.CHAIN_UNAVAILABLE, "the chain has not answered yet")
    needed = reserve(len(wallet.runs), view.fee_cap, nos_account=funds.nos_account, standing=base.standing)
    poor = (
        f"has {funds.lamports / _SOL:.6f} SOL and, with {len(wallet.runs)} open runs, needs "
        f"{needed / _SOL:.6f} for fees and rent; send it at least {(needed - funds.lamports) / _SOL:.6f} SOL"
    )
    if base.standing and funds.lamports < needed:
        return status("Standing", MarketReason.SOL_TOO_LOW, f"is in the market's queue, but {poor}")
    if base.standing:
        return status("Standing", MarketReason.STANDING, "is in the market's queue")
    if market.node_access_key is not None:
        if funds.access_keys is None:
            return status("Unknown", MarketReason.CHAIN_UNAVAILABLE, "its access keys have not been read yet")
        if market.node_access_key not in funds.access_keys:
            return status(
                "Blocked",
                MarketReason.ACCESS_KEY_MISSING,
                f"holds no token of the verified collection {market.node_access_key}, which the market requires; "
                "have one issued to this wallet, or choose an open market",
            )
    if funds.lamports < needed:
        return status("Blocked", MarketReason.SOL_TOO_LOW, poor)
    if funds.xnos is None:
        return status(
            "Blocked",
            MarketReason.STAKE_MISSING,
            "has no stake account; stake NOS with this wallet (an amount of 0 is enough for a market "
            "without a minimum)",
        )
    if funds.xnos < market.xnos_minimum:
        return status(
            "Blocked",
            MarketReason.STAKE_TOO_LOW,
            f"has {funds.xnos / 1e6:.6f} xNOS staked, the market requires {market.xnos_minimum / 1e6:.6f}; "
            "top up the stake or extend its duration",
        )
    return status("Ready", MarketReason.READY, "may join the queue")


def wallets_ready(wallets: tuple[WalletStatus, ...]) -> ConditionValue:
    """The wallets in one condition: the first that lacks something speaks for all."""
    lacking = [
        w
        for w in wallets
        if w.state == "Blocked" or (w.state, w.reason) == ("Standing", MarketReason.SOL_TOO_LOW)
    ]
    if lacking:
        first = lacking[0]
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        who = first.address or first.secret
        return ConditionValue(False, first.reason or "", f"wallet {who}: {first.message}{more}")
    unknown = next((w for w in wallets if w.state == "Unknown"), None)
    if unknown is not None:
        return ConditionValue(None, unknown.reason or "", f"wallet {unknown.secret}: {unknown.message}")
    return ConditionValue(True, MarketReason.READY, "every wallet may join the queue")
