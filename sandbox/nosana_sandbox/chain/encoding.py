"""The encoding of accounts and transactions in RPC answers, and of filters and slices in requests."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import based58
from solders.pubkey import Pubkey

from nosana_sandbox.chain.bank import Balances, Bank, Commitment, Landed
from nosana_sandbox.chain.errors import INVALID_REQUEST, RpcError, invalid_params
from nosana_sandbox.chain.params import Config, parse_list
from nosana_sandbox.chain.tokens import TokenBalance, parse_mint, parse_token_account, ui_amount
from nosana_sandbox.chain.transaction import WireTransaction
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import TOKEN_PROGRAM

_MAX_BASE58: Final = 128
_MAX_FILTERS: Final = 4
_RENT_EPOCH_EXEMPT: Final = 2**64 - 1
_ENCODINGS: Final = ("base58", "base64", "jsonParsed", "binary")


def base58_encode(data: bytes) -> str:
    """Base58 without a checksum."""
    return based58.b58encode(data).decode()


def base58_decode(text: str) -> bytes:
    """Reverse of `base58_encode`; ValueError when `text` is not base58."""
    return based58.b58decode(text.encode())


@dataclass(frozen=True, slots=True)
class AccountView:
    """How a request wants accounts: encoding and, maybe, only a slice of the data."""

    encoding: str
    slice: tuple[int, int] | None
    """Offset and length."""

    @classmethod
    def of(cls, settings: Config, default: str = "binary") -> AccountView:
        """Read `encoding` and `dataSlice` of a request's configuration."""
        encoding = settings.text("encoding") or default
        if encoding not in _ENCODINGS:
            raise invalid_params(f"Invalid params: unknown encoding `{encoding}`, not one of {_ENCODINGS}.")
        wanted = settings.inner("dataSlice")
        if wanted is None:
            return cls(encoding, None)
        offset, length = wanted.whole("offset"), wanted.whole("length")
        if offset is None or length is None:
            raise invalid_params("Invalid params: dataSlice needs offset and length.")
        return cls(encoding, (offset, length))

    def encode(self, bank: Bank, account: Account, commitment: Commitment) -> dict[str, Any]:
        """The account as the `value` of an answer."""
        return {
            "lamports": account.lamports,
            "owner": str(account.owner),
            "data": self._data(bank, account, commitment),
            "executable": account.executable,
            "rentEpoch": _RENT_EPOCH_EXEMPT,
            "space": len(account.data),
        }

    def _data(self, bank: Bank, account: Account, commitment: Commitment) -> Any:
        data = account.data
        if self.slice is not None:
            offset, length = self.slice
            data = data[offset : offset + length]
        match self.encoding:
            case "base64":
                return [base64.b64encode(data).decode(), "base64"]
            case "jsonParsed":
                parsed = _parsed(bank, account, commitment)
                return parsed if parsed is not None else [base64.b64encode(data).decode(), "base64"]
            case _:
                if len(data) > _MAX_BASE58:
                    raise RpcError(
                        INVALID_REQUEST,
                        "Encoded binary (base 58) data should be less than 128 bytes, "
                        "please use Base64 encoding.",
                    )
                text = base58_encode(data)
                return text if self.encoding == "binary" else [text, "base58"]


def _text(key: Pubkey | None) -> str | None:
    return None if key is None else str(key)


def _parsed(bank: Bank, account: Account, commitment: Commitment) -> dict[str, Any] | None:
    """The Token program's accounts in words; None when there is no parser for the account."""
    held = parse_token_account(account)
    if held is not None:
        decimals = bank.decimals_of(held.mint, commitment)
        info: dict[str, Any] = {
            "isNative": held.native is not None,
            "mint": str(held.mint),
            "owner": str(held.owner),
            "state": "frozen" if held.frozen else "initialized",
            "tokenAmount": ui_amount(held.amount, decimals),
        }
        if held.delegate is not None:
            info["delegate"] = str(held.delegate)
            info["delegatedAmount"] = ui_amount(held.delegated_amount, decimals)
        if held.close_authority is not None:
            info["closeAuthority"] = str(held.close_authority)
        return {
            "program": "spl-token",
            "parsed": {"info": info, "type": "account"},
            "space": len(account.data),
        }
    mint = parse_mint(account)
    if mint is not None:
        info = {
            "mintAuthority": _text(mint.mint_authority),
            "supply": str(mint.supply),
            "decimals": mint.decimals,
            "isInitialized": True,
            "freezeAuthority": _text(mint.freeze_authority),
        }
        return {"program": "spl-token", "parsed": {"info": info, "type": "mint"}, "space": len(account.data)}
    return None


AccountFilter = Callable[[Account], bool]


def parse_filters(raw: Any) -> tuple[AccountFilter, ...]:
    """`getProgramAccounts` filters; an account has to pass all of them."""
    return () if raw is None else tuple(_filter(item) for item in parse_list(raw, _MAX_FILTERS))


def _filter(item: Any) -> AccountFilter:
    if item == "tokenAccountState":
        return lambda account: parse_token_account(account) is not None
    settings = Config.of(item)
    size = settings.whole("dataSize")
    if size is not None:
        return lambda account: len(account.data) == size
    wanted = settings.inner("memcmp")
    offset = None if wanted is None else wanted.whole("offset")
    if wanted is None or offset is None:
        raise invalid_params(f"Invalid params: a filter is dataSize or memcmp with an offset, not {item!r}.")
    expected = _memcmp_bytes(wanted)
    return lambda account: account.data[offset : offset + len(expected)] == expected


def _memcmp_bytes(wanted: Config) -> bytes:
    value = wanted.raw("bytes")
    try:
        if isinstance(value, list):
            expected = bytes(value)
        elif not isinstance(value, str):
            raise invalid_params("Invalid params: memcmp needs bytes.")
        elif wanted.text("encoding") == "base64":
            expected = base64.b64decode(value, validate=True)
        else:
            expected = base58_decode(value)
    except (TypeError, ValueError) as error:
        raise invalid_params("Invalid param: could not decode encoded data") from error
    if len(expected) > _MAX_BASE58:
        raise invalid_params("Invalid param: encoded binary data too large")
    return expected


# Transactions


def encode_transaction(transaction: WireTransaction, encoding: str) -> Any:
    """The transaction itself: `json`, `jsonParsed`, `base64` or `base58`."""
    match encoding:
        case "base64":
            return [base64.b64encode(transaction.raw).decode(), "base64"]
        case "base58":
            return [base58_encode(transaction.raw), "base58"]
        case "json":
            return {"signatures": [str(s) for s in transaction.signatures], "message": _message(transaction)}
        case "jsonParsed":
            return {
                "signatures": [str(s) for s in transaction.signatures],
                "message": _parsed_message(transaction),
            }
        case _:
            raise invalid_params(f"Invalid params: unknown transaction encoding {encoding!r}.")


def _message(transaction: WireTransaction) -> dict[str, Any]:
    body: dict[str, Any] = {
        "header": {
            "numRequiredSignatures": len(transaction.signatures),
            "numReadonlySignedAccounts": transaction.readonly_signed,
            "numReadonlyUnsignedAccounts": transaction.readonly_unsigned,
        },
        "accountKeys": [str(key) for key in transaction.keys],
        "recentBlockhash": str(transaction.blockhash),
        "instructions": [
            {
                "programIdIndex": ix.program_index,
                "accounts": list(ix.account_indices),
                "data": base58_encode(ix.data),
                "stackHeight": 1,
            }
            for ix in transaction.compiled
        ],
    }
    if transaction.version == 0:
        body["addressTableLookups"] = []
    return body


def _parsed_message(transaction: WireTransaction) -> dict[str, Any]:
    """Every instruction in the form an explorer gets for a program that it cannot parse."""
    body: dict[str, Any] = {
        "accountKeys": [
            {
                "pubkey": str(key),
                "signer": transaction.is_signer(index),
                "writable": transaction.is_writable(index),
                "source": "transaction",
            }
            for index, key in enumerate(transaction.keys)
        ],
        "recentBlockhash": str(transaction.blockhash),
        "instructions": [
            {
                "programId": str(transaction.keys[ix.program_index]),
                "accounts": [str(transaction.keys[index]) for index in ix.account_indices],
                "data": base58_encode(ix.data),
                "stackHeight": 1,
            }
            for ix in transaction.compiled
        ],
    }
    if transaction.version == 0:
        body["addressTableLookups"] = []
    return body


def encode_meta(landed: Landed) -> dict[str, Any]:
    """The transaction's effects, as `meta` of getTransaction."""
    outcome = landed.outcome
    return {
        "err": outcome.error,
        "status": encode_status(outcome.error),
        "fee": outcome.fee,
        "preBalances": list(landed.before.lamports),
        "postBalances": list(landed.after.lamports),
        "preTokenBalances": _token_balances(landed.before),
        "postTokenBalances": _token_balances(landed.after),
        "innerInstructions": _inner(landed),
        "logMessages": list(outcome.logs),
        "rewards": [],
        "loadedAddresses": {"readonly": [], "writable": []},
        "computeUnitsConsumed": outcome.units,
    }


def encode_status(error: Any) -> dict[str, Any]:
    """The older spelling of an outcome that some clients still read."""
    return {"Ok": None} if error is None else {"Err": error}


def _token_balances(balances: Balances) -> list[dict[str, Any]]:
    return [_token_balance(balance) for balance in balances.tokens]


def _token_balance(balance: TokenBalance) -> dict[str, Any]:
    return {
        "accountIndex": balance.index,
        "mint": str(balance.account.mint),
        "owner": str(balance.account.owner),
        "programId": str(TOKEN_PROGRAM),
        "uiTokenAmount": ui_amount(balance.account.amount, balance.decimals),
    }


def _inner(landed: Landed) -> list[dict[str, Any]]:
    keys: Sequence[Pubkey] = landed.transaction.keys
    return [
        {
            "index": index,
            "instructions": [
                {
                    "programIdIndex": keys.index(ix.program_id),
                    "accounts": [keys.index(key) for key in ix.accounts],
                    "data": base58_encode(ix.data),
                    "stackHeight": ix.stack_height,
                }
                for ix in instructions
            ],
        }
        for index, instructions in landed.outcome.inner
    ]
