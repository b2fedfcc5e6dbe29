"""Keys that never show, and the chain's error replies as names and numbers."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from datetime import UTC, datetime

import pytest
from solders.keypair import Keypair

from nosana_operator.chain import InvalidWallet, TransactionFailed, Wallet, errors
from nosana_operator.errors import NosanaError, Refused, Unavailable

KEYPAIR = Keypair.from_seed(bytes(range(32)))
RAW = bytes(KEYPAIR)


@pytest.mark.parametrize(
    "secret",
    [
        json.dumps([*RAW]).encode(),
        b"  " + json.dumps([*RAW], indent=1).encode() + b"\n",
        str(KEYPAIR).encode(),
        str(KEYPAIR).encode() + b"\n",
    ],
    ids=["cli file", "cli file with white space", "base58", "base58 with newline"],
)
def test_both_forms_are_read(secret: bytes) -> None:
    assert Wallet.parse(secret).address == str(KEYPAIR.pubkey())


def test_a_request_is_signed_as_nosanas_clients_do_it() -> None:
    """The vector of docs/protocol/node.md#authorization-header."""
    job = "3EwUexRdXedDk2EL72py5FQd9fG2aVR9trD3EqEbGCDu"
    wallet = Wallet(Keypair.from_seed(b"\x01" * 32))
    assert wallet.address == "AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9"
    signature = "2BwFQ4EcMzqbCgqz3SRJDGbhtDVfHmJgyUcBELcGK9UR5ZfMVWNmwRYSyhvcQqmFtYnicxD9haFQVdjxBEvMVLBK"
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    assert wallet.authorization(job, moment) == f"{job}:{signature}:1767323045678"


BROKEN = {
    "empty": b"",
    "blank": b" \n",
    "binary": RAW,
    "63 bytes": json.dumps([*RAW[:63]]).encode(),
    "300 in it": json.dumps([*RAW[:63], 300]).encode(),
    "float in it": json.dumps([*RAW[:63], 1.0]).encode(),
    "true in it": json.dumps([*RAW[:63], True]).encode(),
    "cut JSON": json.dumps([*RAW]).encode()[:-3],
    "another public half": json.dumps([*RAW[:32], *bytes(Keypair().pubkey())]).encode(),
    "base58 of 32 bytes": str(KEYPAIR.pubkey()).encode(),
    "cut base58": str(KEYPAIR).encode()[:-2],
    "not base58": b"0OIl" * 20,
    "an object": b'{"key": 1}',
    "brackets": b"[" * 4000,
    "many brackets": b"[" * 100_000,
    "a long text": str(KEYPAIR).encode() * 100,
}


@pytest.mark.parametrize("secret", BROKEN.values(), ids=BROKEN.keys())
def test_broken_secrets_are_refused_without_a_word_of_them(secret: bytes) -> None:
    with pytest.raises(InvalidWallet, match="into the Secret") as raised:
        Wallet.parse(secret)
    # Neither the message nor a chained error may carry a piece of it.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    for piece in (secret[:12], secret[-12:]):
        assert not piece.strip() or piece.decode("latin1") not in str(raised.value)


def test_a_wallet_shows_its_address_only(caplog: pytest.LogCaptureFixture) -> None:
    wallet = Wallet.parse(str(KEYPAIR).encode())
    with caplog.at_level(logging.INFO):
        logging.getLogger("x").info("%s %r %s", wallet, wallet, [wallet])
    for shown in (repr(wallet), str(wallet), f"{wallet}", caplog.text):
        assert str(KEYPAIR) not in shown
        assert wallet.address in shown
    assert not hasattr(wallet, "__dict__")
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            duplicate(wallet)


ANCHOR = [
    "Program X invoke [1]",
    "Program log: Instruction: Work",
    "Program log: AnchorError thrown in programs/x.rs:1. Error Code: NodeAlreadyQueued. Error Number: 6014. "
    "Error Message: This node is already queued.",
    "Program X failed: custom program error: 0x177e",
]


@pytest.mark.parametrize(
    ("err", "logs", "name", "number", "instruction"),
    [
        ({"InstructionError": [2, {"Custom": 6014}]}, ANCHOR, "NodeAlreadyQueued", 6014, 2),
        # The number alone is ambiguous: no log, no name.
        ({"InstructionError": [0, {"Custom": 6000}]}, None, None, 6000, 0),
        # A log line of another, caught error does not name this one.
        ({"InstructionError": [0, {"Custom": 1}]}, ANCHOR, None, 1, 0),
        ({"InstructionError": [1, "PrivilegeEscalation"]}, [], "PrivilegeEscalation", None, 1),
        ({"InstructionError": [1, {"BorshIoError": "Unknown"}]}, [], "BorshIoError", None, 1),
        ("InsufficientFundsForFee", [], "InsufficientFundsForFee", None, None),
        ({"InsufficientFundsForRent": {"account_index": 3}}, [], "InsufficientFundsForRent", None, None),
        (None, [], None, None, None),
        ({"InstructionError": "odd"}, [], "InstructionError", None, None),
        ([1, 2], [1, None], None, None, None),
    ],
)
def test_transaction_errors(
    err: object, logs: list[str] | None, name: str | None, number: int | None, instruction: int | None
) -> None:
    failed = TransactionFailed.from_rpc(err, logs)
    assert (failed.name, failed.number, failed.instruction) == (name, number, instruction)
    assert isinstance(failed, Refused)
    said = name or (f"custom error {number}" if number is not None else "an unknown error")
    assert said in str(failed)


def test_the_log_tail_is_bounded() -> None:
    failed = TransactionFailed.from_rpc("X", [f"Program log: {n}" for n in range(100)])
    assert len(failed.logs) == 12
    assert failed.logs[-1] == "Program log: 99"


def test_the_room_speaks_the_common_outcomes() -> None:
    ours = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ChainError)]
    assert len(ours) >= 11
    assert all(issubclass(c, NosanaError) for c in ours)
    assert issubclass(errors.ChainUnavailable, Unavailable)
    assert issubclass(errors.BlockhashNotFound, Unavailable)
