"""The JSON-RPC methods over HTTP, answered as an Agave node answers them.

One method of `Methods` per RPC method, under its wire name. Each takes the positional parameters and returns
the `result` member or raises `RpcError`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from nosana_sandbox.chain.bank import (
    SLOTS_PER_EPOCH,
    Bank,
    Commitment,
    Landed,
    Simulation,
)
from nosana_sandbox.chain.encoding import (
    AccountFilter,
    AccountView,
    base58_decode,
    encode_meta,
    encode_status,
    encode_transaction,
    parse_filters,
)
from nosana_sandbox.chain.errors import (
    BLOCK_NOT_AVAILABLE,
    METHOD_NOT_FOUND,
    MIN_CONTEXT_SLOT_NOT_REACHED,
    PREFLIGHT_FAILURE,
    SIGNATURE_VERIFICATION_FAILURE,
    UNSUPPORTED_TRANSACTION_VERSION,
    RpcError,
    TransactionError,
    TransactionRejected,
    invalid_params,
    transaction_error_text,
)
from nosana_sandbox.chain.params import (
    Config,
    parse_hash,
    parse_list,
    parse_number,
    parse_pubkey,
    parse_signature,
)
from nosana_sandbox.chain.tokens import parse_mint, parse_token_account, ui_amount
from nosana_sandbox.chain.transaction import PACKET_DATA_SIZE, MalformedTransaction, WireTransaction
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import TOKEN_PROGRAM
from nosana_sandbox.program.layout import rent_exempt_minimum

API_VERSION: Final = "3.1.10"
_FEATURE_SET: Final = 3_640_012_085
_MAX_MULTIPLE_ACCOUNTS: Final = 100
_MAX_STATUSES: Final = 256
_MAX_SIGNATURES: Final = 1_000
_MAX_FEE_ACCOUNTS: Final = 128
_MOST_SLOTS_AT_ONCE: Final = 100_000
_RECENT_SLOTS: Final = 150
"""Slots for which a status is found without `searchTransactionHistory`, and fees are remembered."""


HandIn = Callable[[WireTransaction], object]
"""Takes a transaction to where it is executed; may raise TransactionRejected."""


class Methods:
    """All RPC methods over one bank."""

    def __init__(self, bank: Bank, hand_in: HandIn | None = None) -> None:
        """`hand_in` gets each transaction that is sent, instead of the bank itself."""
        self._bank = bank
        self._hand_in = hand_in or bank.submit

    def call(self, method: str, params: Any) -> Any:
        """Answer one request; RpcError for whatever is wrong with it."""
        handler = self._handlers.get(method)
        if handler is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found")
        if params is None:
            params = []
        if not isinstance(params, list):
            raise invalid_params("`params` should be an array")
        try:
            return handler(*params)
        except _WrongArguments as error:
            raise invalid_params(f"`params` do not fit {method}: {error}") from error

    @property
    def names(self) -> frozenset[str]:
        """Every method there is."""
        return frozenset(self._handlers)

    @functools.cached_property
    def _handlers(self) -> Mapping[str, Callable[..., Any]]:
        handlers: dict[str, Callable[..., Any]] = {
            "getAccountInfo": self.get_account_info,
            "getBalance": self.get_balance,
            "getBlockHeight": self.get_block_height,
            "getBlockTime": self.get_block_time,
            "getEpochInfo": self.get_epoch_info,
            "getFeeForMessage": self.get_fee_for_message,
            "getGenesisHash": self.get_genesis_hash,
            "getHealth": self.get_health,
            "getIdentity": self.get_identity,
            "getLatestBlockhash": self.get_latest_blockhash,
            "getMinimumBalanceForRentExemption": self.get_minimum_balance_for_rent_exemption,
            "getMultipleAccounts": self.get_multiple_accounts,
            "getProgramAccounts": self.get_program_accounts,
            "getRecentPrioritizationFees": self.get_recent_prioritization_fees,
            "getSignatureStatuses": self.get_signature_statuses,
            "getSignaturesForAddress": self.get_signatures_for_address,
            "getSlot": self.get_slot,
            "getTokenAccountBalance": self.get_token_account_balance,
            "getTokenAccountsByOwner": self.get_token_accounts_by_owner,
            "getTokenSupply": self.get_token_supply,
            "getTransaction": self.get_transaction,
            "getTransactionCount": self.get_transaction_count,
            "getVersion": self.get_version,
            "isBlockhashValid": self.is_blockhash_valid,
            "requestAirdrop": self.request_airdrop,
            "sendTransaction": self.send_transaction,
            "simulateTransaction": self.simulate_transaction,
            "sandbox_clock": self.sandbox_clock,
            "sandbox_setAccount": self.sandbox_set_account,
        }
        return {name: _checked(handler) for name, handler in handlers.items()}

    # Reading accounts

    def get_account_info(self, key: Any, config: Any = None) -> Any:
        """One account or null."""
        settings = Config.of(config)
        commitment = self._reader(settings)
        view = AccountView.of(settings)
        return self._answer(commitment, self._view(view, parse_pubkey(key), commitment))

    def get_multiple_accounts(self, keys: Any, config: Any = None) -> Any:
        """Up to 100 accounts, null for those that do not exist."""
        settings = Config.of(config)
        wanted = parse_list(keys, _MAX_MULTIPLE_ACCOUNTS)
        commitment = self._reader(settings)
        view = AccountView.of(settings, default="base64")
        return self._answer(commitment, [self._view(view, parse_pubkey(key), commitment) for key in wanted])

    def get_program_accounts(self, program: Any, config: Any = None) -> Any:
        """Every account of a program that passes all filters."""
        settings = Config.of(config)
        commitment = self._reader(settings)
        view = AccountView.of(settings)
        filters = parse_filters(settings.raw("filters"))
        found = self._keyed(view, commitment, parse_pubkey(program), filters)
        return self._answer(commitment, found) if settings.flag("withContext") else found

    def get_balance(self, key: Any, config: Any = None) -> Any:
        """Lamports of an account, 0 when it does not exist."""
        commitment = self._reader(Config.of(config))
        account = self._bank.account(parse_pubkey(key), commitment)
        return self._answer(commitment, account.lamports if account else 0)

    def get_token_account_balance(self, key: Any, config: Any = None) -> Any:
        """Amount in a token account."""
        commitment = self._reader(Config.of(config))
        account = self._bank.account(parse_pubkey(key), commitment)
        if account is None:
            raise invalid_params("Invalid param: could not find account")
        held = parse_token_account(account)
        if held is None:
            raise invalid_params("Invalid param: not a Token account")
        decimals = self._bank.decimals_of(held.mint, commitment)
        return self._answer(commitment, ui_amount(held.amount, decimals))

    def get_token_supply(self, key: Any, config: Any = None) -> Any:
        """Supply of a mint."""
        commitment = self._reader(Config.of(config))
        account = self._bank.account(parse_pubkey(key), commitment)
        if account is None:
            raise invalid_params("Invalid param: could not find account")
        mint = parse_mint(account)
        if mint is None:
            raise invalid_params("Invalid param: not a Token mint")
        return self._answer(commitment, ui_amount(mint.supply, mint.decimals))

    def get_token_accounts_by_owner(self, owner: Any, which: Any, config: Any = None) -> Any:
        """A wallet's token accounts, of one mint or of all."""
        settings = Config.of(config)
        commitment = self._reader(settings)
        view = AccountView.of(settings)
        wallet = parse_pubkey(owner)
        kind = Config.of(which)
        mint: Pubkey | None = None
        if kind.raw("mint") is not None:
            mint = parse_pubkey(kind.raw("mint"))
            if parse_mint(self._bank.account(mint, commitment)) is None:
                raise invalid_params("Invalid param: could not find mint")
        elif kind.raw("programId") != str(TOKEN_PROGRAM):
            raise invalid_params("Invalid param: unrecognized Token program id")

        def belongs(account: Account) -> bool:
            held = parse_token_account(account)
            return held is not None and held.owner == wallet and mint in (None, held.mint)

        return self._answer(commitment, self._keyed(view, commitment, TOKEN_PROGRAM, (belongs,)))

    # Slots, blocks and time

    def get_slot(self, config: Any = None) -> int:
        """Newest slot at a commitment."""
        return self._bank.slot_at(self._reader(Config.of(config)))

    def get_block_height(self, config: Any = None) -> int:
        """Newest block height at a commitment; not the slot."""
        return self._bank.height_at(self._reader(Config.of(config)))

    def get_block_time(self, slot: Any) -> int:
        """Unix time of a slot's block."""
        number = parse_number(slot, "slot")
        block = self._bank.block(number)
        if block is None or number > self._bank.slot_at(Commitment.CONFIRMED):
            raise RpcError(BLOCK_NOT_AVAILABLE, f"Block not available for slot {number}")
        return block.time

    def get_latest_blockhash(self, config: Any = None) -> Any:
        """A hash to sign over and the last block height it is good for."""
        commitment = self._reader(Config.of(config))
        blockhash, last_valid = self._bank.blockhash_at(commitment)
        return self._answer(commitment, {"blockhash": str(blockhash), "lastValidBlockHeight": last_valid})

    def is_blockhash_valid(self, blockhash: Any, config: Any = None) -> Any:
        """Whether a block hash is still accepted."""
        commitment = self._reader(Config.of(config))
        return self._answer(commitment, self._bank.blockhash_valid(parse_hash(blockhash), commitment))

    def get_epoch_info(self, config: Any = None) -> Any:
        """Where in its epoch the chain is."""
        commitment = self._reader(Config.of(config))
        slot = self._bank.slot_at(commitment)
        return {
            "absoluteSlot": slot,
            "blockHeight": self._bank.height_at(commitment),
            "epoch": slot // SLOTS_PER_EPOCH,
            "slotIndex": slot % SLOTS_PER_EPOCH,
            "slotsInEpoch": SLOTS_PER_EPOCH,
            "transactionCount": self._bank.transaction_count,
        }

    def get_transaction_count(self, config: Any = None) -> int:
        """The number of transactions that have landed."""
        self._reader(Config.of(config))
        return self._bank.transaction_count

    # The node

    def get_health(self) -> str:
        """Always healthy; faults are injected elsewhere."""
        return "ok"

    def get_version(self) -> Any:
        """The Agave release whose answers these imitate."""
        return {"solana-core": API_VERSION, "feature-set": _FEATURE_SET}

    def get_identity(self) -> Any:
        """The node's key."""
        return {"identity": str(self._bank.identity.pubkey())}

    def get_genesis_hash(self) -> str:
        """The genesis hash."""
        return str(self._bank.genesis_hash)

    # Fees and rent

    def get_minimum_balance_for_rent_exemption(self, length: Any, config: Any = None) -> int:
        """Lamports that keep an account of `length` bytes."""
        Config.of(config).commitment()
        return rent_exempt_minimum(parse_number(length, "the length"))

    def get_fee_for_message(self, message: Any, config: Any = None) -> Any:
        """Lamports a message costs, null when its block hash is not known (any more)."""
        commitment = self._reader(Config.of(config))
        try:
            transaction = WireTransaction.unsigned(_base64(message))
        except MalformedTransaction as error:
            raise invalid_params(str(error)) from error
        if not self._bank.blockhash_valid(transaction.blockhash, commitment):
            return self._answer(commitment, None)
        return self._answer(commitment, self._bank.fee_of(transaction))

    def get_recent_prioritization_fees(self, keys: Any = None) -> Any:
        """Per recent slot the lowest price (micro-lamports per unit) that got in and wrote to `keys`."""
        wanted = {parse_pubkey(key) for key in parse_list(keys or [], _MAX_FEE_ACCOUNTS)}
        newest = self._bank.slot_at(Commitment.CONFIRMED)
        fees = []
        for slot in range(newest - _RECENT_SLOTS + 1, newest + 1):
            block = self._bank.block(slot)
            if block is not None:
                fees.append({"slot": slot, "prioritizationFee": _price_to_get_in(block.landed, wanted)})
        return fees

    # Transactions

    def send_transaction(self, encoded: Any, config: Any = None) -> str:
        """Accept a transaction; the answer is its signature, which says nothing about its outcome."""
        settings = Config.of(config)
        transaction = _decode(encoded, settings.text("encoding") or "base58")
        if not settings.flag("skipPreflight"):
            if not transaction.signatures_verify():
                raise RpcError(SIGNATURE_VERIFICATION_FAILURE, "Transaction signature verification failure")
            preflight = settings.commitment("preflightCommitment")
            self._min_context(settings, preflight)
            self._preflight(transaction, preflight)
        # A node forwards the transaction to the leader, who may drop it silently.
        with contextlib.suppress(TransactionRejected):
            self._hand_in(transaction)
        return str(transaction.signature)

    def simulate_transaction(self, encoded: Any, config: Any = None) -> Any:
        """Run a transaction without effect."""
        settings = Config.of(config)
        commitment = self._reader(settings)
        transaction = _decode(encoded, settings.text("encoding") or "base58")
        replace = settings.flag("replaceRecentBlockhash")
        if settings.flag("sigVerify"):
            if replace:
                raise invalid_params("sigVerify may not be used with replaceRecentBlockhash")
            if not transaction.signatures_verify():
                raise RpcError(SIGNATURE_VERIFICATION_FAILURE, "Transaction signature verification failure")
        value: dict[str, Any]
        changed: Mapping[Pubkey, Account | None] = {}
        try:
            simulation = self._bank.simulate(transaction, commitment, check_blockhash=not replace)
        except TransactionRejected as rejected:
            value = _simulation_body(rejected.error, None)
        else:
            value = _simulation_body(simulation.outcome.error, simulation)
            changed = simulation.changed
        value["accounts"] = self._simulated_accounts(settings.inner("accounts"), changed, commitment)
        if replace:
            blockhash, last_valid = self._bank.blockhash_at(commitment)
            value["replacementBlockhash"] = {
                "blockhash": str(blockhash),
                "lastValidBlockHeight": last_valid,
            }
        return self._answer(commitment, value)

    def get_signature_statuses(self, signatures: Any, config: Any = None) -> Any:
        """The status of each transaction; null when it is unknown or too old."""
        wanted = parse_list(signatures, _MAX_STATUSES)
        everything = Config.of(config).flag("searchTransactionHistory")
        oldest = 0 if everything else self._bank.slot_at(Commitment.PROCESSED) - _RECENT_SLOTS
        statuses = [self._status(parse_signature(text), oldest) for text in wanted]
        return self._answer(Commitment.PROCESSED, statuses)

    def get_transaction(self, signature: Any, config: Any = None) -> Any:
        """A landed transaction with its effects; null when it has not reached the commitment."""
        settings = Config({"encoding": config}) if isinstance(config, str) else Config.of(config)
        commitment = settings.commitment()
        if commitment is Commitment.PROCESSED:
            raise invalid_params("Method does not support commitment below `confirmed`")
        landed = self._bank.landed(parse_signature(signature))
        if landed is None or landed.slot > self._bank.slot_at(commitment):
            return None
        version = landed.transaction.version
        newest = settings.whole("maxSupportedTransactionVersion")
        if version == 0 and newest is None:
            raise RpcError(
                UNSUPPORTED_TRANSACTION_VERSION,
                "Transaction version (0) is not supported by the requesting client. Please try the request "
                'again with the following configuration parameter: "maxSupportedTransactionVersion": 0',
            )
        body = {
            "slot": landed.slot,
            "transaction": encode_transaction(landed.transaction, settings.text("encoding") or "json"),
            "meta": encode_meta(landed),
            "blockTime": landed.block_time,
        }
        if newest is not None:
            body["version"] = version
        return body

    def get_signatures_for_address(self, address: Any, config: Any = None) -> Any:
        """Landed transactions that name an address, newest first.

        As on a real node one that is not known at the commitment is no `until`, and after such a `before` there
        is nothing.
        """
        settings = Config.of(config)
        commitment = settings.commitment()
        if commitment is Commitment.PROCESSED:
            raise invalid_params("Method does not support commitment below `confirmed`")
        limit = settings.whole("limit") or _MAX_SIGNATURES
        if not 1 <= limit <= _MAX_SIGNATURES:
            raise invalid_params(f"Invalid limit; max {_MAX_SIGNATURES}")
        self._min_context(settings, commitment)
        before = _bound(settings, "before")
        until = _bound(settings, "until")
        newest = self._bank.slot_at(commitment)
        found: list[dict[str, Any]] = []
        started = before is None
        for landed in reversed(self._bank.history_of(parse_pubkey(address))):
            if landed.slot > newest:
                continue
            if landed.signature == until or len(found) == limit:
                break
            if started:
                found.append(self._history_entry(landed))
            started = started or landed.signature == before
        return found

    def request_airdrop(self, key: Any, lamports: Any, config: Any = None) -> str:
        """Lamports from the faucet, by an ordinary transaction."""
        Config.of(config).commitment()
        amount = parse_number(lamports, "lamports")
        return str(self._bank.airdrop(parse_pubkey(key), amount).signature)

    # What no real chain offers

    def sandbox_clock(self, config: Any = None) -> Any:
        """Move the chain's time: `freeze` true or false, `set` unix time, `advance` seconds, `slots` to pass.

        Without parameters only tells the time. A change shows at once in a new slot.
        """
        settings = Config.of(config)
        unknown = settings.keys - {"freeze", "set", "advance", "slots"}
        if unknown:
            raise invalid_params(f"sandbox_clock does not know {', '.join(sorted(unknown))}.")
        to, by, slots = settings.seconds("set"), settings.seconds("advance"), settings.whole("slots") or 1
        if slots > _MOST_SLOTS_AT_ONCE:
            raise invalid_params(f"sandbox_clock passes at most {_MOST_SLOTS_AT_ONCE} slots at once.")
        clock = self._bank.clock
        if settings.raw("freeze") is not None:
            (clock.freeze if settings.flag("freeze") else clock.resume)()
        if to is not None:
            clock.set(to)
        if by is not None:
            clock.advance(by)
        if settings.keys:
            self._bank.tick(slots)
        return {"unixTime": clock.now(), "frozen": clock.frozen, "slot": self._bank.slot}

    def sandbox_set_account(self, key: Any, account: Any) -> Any:
        """Write an account directly: `lamports`, `owner`, `data` in base64; null removes it."""
        written: Account | None = None
        if account is not None:
            settings = Config.of(account)
            data = _base64(settings.text("data") or "")
            lamports = settings.whole("lamports")
            written = Account(
                rent_exempt_minimum(len(data)) if lamports is None else lamports,
                parse_pubkey(settings.text("owner") or str(Pubkey.default())),
                data,
                settings.flag("executable"),
            )
        self._bank.place(parse_pubkey(key), written)
        return self._answer(Commitment.PROCESSED, None)

    # Shared parts

    def _reader(self, settings: Config) -> Commitment:
        commitment = settings.commitment()
        self._min_context(settings, commitment)
        return commitment

    def _min_context(self, settings: Config, commitment: Commitment) -> None:
        wanted = settings.whole("minContextSlot")
        slot = self._bank.slot_at(commitment)
        if wanted is not None and slot < wanted:
            raise RpcError(
                MIN_CONTEXT_SLOT_NOT_REACHED,
                "Minimum context slot has not been reached",
                {"contextSlot": slot},
            )

    def _answer(self, commitment: Commitment, value: Any) -> dict[str, Any]:
        slot = self._bank.slot_at(commitment)
        return {"context": {"apiVersion": API_VERSION, "slot": slot}, "value": value}

    def _view(self, view: AccountView, key: Pubkey, commitment: Commitment) -> dict[str, Any] | None:
        account = self._bank.account(key, commitment)
        return None if account is None else view.encode(self._bank, account, commitment)

    def _keyed(
        self,
        view: AccountView,
        commitment: Commitment,
        owner: Pubkey,
        filters: Sequence[AccountFilter],
    ) -> list[dict[str, Any]]:
        return [
            {"pubkey": str(key), "account": view.encode(self._bank, account, commitment)}
            for key, account in self._bank.accounts_of(owner, commitment)
            if all(accepts(account) for accepts in filters)
        ]

    def _preflight(self, transaction: WireTransaction, commitment: Commitment) -> None:
        try:
            simulation = self._bank.simulate(transaction, commitment)
        except TransactionRejected as rejected:
            raise _preflight_failure(rejected.error, None) from rejected
        if simulation.outcome.error is not None:
            raise _preflight_failure(simulation.outcome.error, simulation)

    def _simulated_accounts(
        self, wanted: Config | None, changed: Mapping[Pubkey, Account | None], commitment: Commitment
    ) -> list[Any] | None:
        if wanted is None:
            return None
        view = AccountView.of(wanted, default="base64")
        found: list[Any] = []
        for text in parse_list(wanted.raw("addresses"), _MAX_MULTIPLE_ACCOUNTS):
            key = parse_pubkey(text)
            account = changed[key] if key in changed else self._bank.account(key, commitment)
            found.append(None if account is None else view.encode(self._bank, account, commitment))
        return found

    def _status(self, signature: Signature, oldest: int) -> dict[str, Any] | None:
        landed = self._bank.landed(signature)
        newest = self._bank.slot_at(Commitment.PROCESSED)
        if landed is None or not oldest <= landed.slot <= newest:
            return None
        commitment = self._bank.commitment_of(landed.slot)
        return {
            "slot": landed.slot,
            "confirmations": None if commitment is Commitment.FINALIZED else newest - landed.slot,
            "err": landed.outcome.error,
            "status": encode_status(landed.outcome.error),
            "confirmationStatus": commitment.value,
        }

    def _history_entry(self, landed: Landed) -> dict[str, Any]:
        return {
            "signature": str(landed.signature),
            "slot": landed.slot,
            "err": landed.outcome.error,
            "memo": None,
            "blockTime": landed.block_time,
            "confirmationStatus": self._bank.commitment_of(landed.slot).value,
        }


class _WrongArguments(Exception):
    """A request has too many or too few parameters."""


def _checked(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Tell a wrong number of parameters from a TypeError inside the method."""
    signature = inspect.signature(handler)

    @functools.wraps(handler)
    def call(*params: Any) -> Any:
        try:
            signature.bind(*params)
        except TypeError as error:
            raise _WrongArguments(str(error)) from error
        return handler(*params)

    return call


def _bound(settings: Config, key: str) -> Signature | None:
    value = settings.raw(key)
    return None if value is None else parse_signature(value)


def _base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise invalid_params("invalid type: expected a base64 string")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise invalid_params(f"invalid base64 encoding: {error}") from error


def _decode(encoded: Any, encoding: str) -> WireTransaction:
    if encoding == "base64":
        raw = _base64(encoded)
    elif encoding == "base58":
        if not isinstance(encoded, str):
            raise invalid_params("invalid type: expected a base58 string")
        try:
            raw = base58_decode(encoded)
        except ValueError as error:
            raise invalid_params(f"invalid base58 encoding: {error}") from error
    else:
        raise invalid_params(f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
    if len(raw) > PACKET_DATA_SIZE:
        raise invalid_params(
            f"decoded solana_transaction::versioned::VersionedTransaction too large: {len(raw)} bytes "
            f"(max: {PACKET_DATA_SIZE} bytes)"
        )
    try:
        return WireTransaction.decode(raw)
    except MalformedTransaction as error:
        raise invalid_params(str(error)) from error


def _simulation_body(error: TransactionError | None, simulation: Simulation | None) -> dict[str, Any]:
    return {
        "err": error,
        "logs": [] if simulation is None else list(simulation.outcome.logs),
        "accounts": None,
        "unitsConsumed": 0 if simulation is None else simulation.outcome.units,
        "returnData": None,
        "innerInstructions": None,
        "replacementBlockhash": None,
    }


def _preflight_failure(error: TransactionError, simulation: Simulation | None) -> RpcError:
    return RpcError(
        PREFLIGHT_FAILURE,
        f"Transaction simulation failed: {transaction_error_text(error)}",
        _simulation_body(error, simulation),
    )


def _price_to_get_in(landed: Sequence[Landed], wanted: set[Pubkey]) -> int:
    lowest = min((each.budget.price for each in landed), default=0)
    for key in wanted:
        prices = [
            each.budget.price
            for each in landed
            if any(k == key and each.transaction.is_writable(i) for i, k in enumerate(each.transaction.keys))
        ]
        lowest = max(lowest, min(prices, default=0))
    return lowest
