"""Whether each key may stand, and what it lacks."""

from __future__ import annotations

from typing import Literal

from nosana_operator.api import MarketReason, WalletStatus
from nosana_operator.market.facts import Absent, Funds, MarketFacts
from nosana_operator.market.host.effects import Verdict
from nosana_operator.market.host.view import MarketView, WalletView

_SOL = 10**9
RUN_RENT = 1_726_080
"""Lamports of a run's account: `work` pays it when a job waits (docs/protocol/jobs-program.md#rent-and-payments)."""
TOKEN_ACCOUNT_RENT = 2_039_280
"""Lamports of a NOS account: the key's own, and that of a poster who has closed theirs
(docs/protocol/jobs-program.md#finish)."""


def reserve(runs: int, fee_cap: int, *, nos_account: bool, standing: bool = False) -> int:
    """Lamports that a key has to have before it gets another run: what it and the open ones may still cost.

    `standing`: less is enough, for a poster pays for the account of the run that he gives a key in the queue,
    and those of the open ones are paid.
    """
    each = fee_cap + TOKEN_ACCOUNT_RENT + (0 if standing else RUN_RENT)
    return (runs + 1) * each + (0 if nos_account else TOKEN_ACCOUNT_RENT)


def wallet_status(
    view: MarketView, wallet: WalletView, market: MarketFacts | None, found: Verdict
) -> WalletStatus:
    """One key as it stands, with the remedy for what it lacks."""
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

    def is_(
        state: Literal["Ready", "Standing", "Blocked", "Unknown"], reason: str, message: str
    ) -> WalletStatus:
        return base.model_copy(update={"state": state, "reason": str(reason), "message": message})

    if wallet.unread:
        said = wallet.problem[1] if wallet.problem else "its Secret could not be read yet"
        return is_("Unknown", MarketReason.SECRET_MISSING, said)
    if wallet.problem is not None:
        return is_("Blocked", *wallet.problem)
    if found.status is False:
        return is_("Unknown", found.reason, "not looked at: there is no market for it to stand in")
    if market is None or isinstance(wallet.runs, Absent) or funds is None:
        return is_("Unknown", MarketReason.CHAIN_UNAVAILABLE, "the chain has not answered yet")
    needed = reserve(len(wallet.runs), view.fee_cap, nos_account=funds.nos_account, standing=base.standing)
    poor = (
        f"has {funds.lamports / _SOL:.6f} SOL and, with {len(wallet.runs)} open runs, needs "
        f"{needed / _SOL:.6f} for fees and rent; send it at least {(needed - funds.lamports) / _SOL:.6f} SOL"
    )
    if base.standing and funds.lamports < needed:
        return is_("Standing", MarketReason.SOL_TOO_LOW, f"stands in the market's queue, but {poor}")
    if base.standing:
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
    if funds.lamports < needed:
        return is_("Blocked", MarketReason.SOL_TOO_LOW, poor)
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
    lacking = [
        w
        for w in wallets
        if w.state == "Blocked" or (w.state, w.reason) == ("Standing", MarketReason.SOL_TOO_LOW)
    ]
    if lacking:
        first = lacking[0]
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        who = first.address or first.secret
        return Verdict(False, first.reason or "", f"wallet {who}: {first.message}{more}")
    unknown = next((w for w in wallets if w.state == "Unknown"), None)
    if unknown is not None:
        return Verdict(None, unknown.reason or "", f"wallet {unknown.secret}: {unknown.message}")
    return Verdict(True, MarketReason.READY, "every wallet may stand")
