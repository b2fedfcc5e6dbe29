"""The chain as clients meet it over HTTP: solana-py unchanged, and the raw shapes where it hides them."""

from __future__ import annotations

import base64

import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solana.rpc.core import RPCException
from solana.rpc.types import MemcmpOpts, TokenAccountOpts, TxOpts
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.rpc.errors import SendTransactionPreflightFailureMessage
from solders.signature import Signature
from solders.transaction_status import TransactionConfirmationStatus

from nosana_sandbox.chain import Commitment, RunningChain
from nosana_sandbox.chain.encoding import base58_encode
from nosana_sandbox.program.addresses import JOBS_PROGRAM, NOS_MINT, TOKEN_PROGRAM, associated_token_account
from nosana_sandbox.world.genesis import Founded
from support.transactions import SOL, pay, post, rpc, signed, work

pytestmark = pytest.mark.contract

AT_CONFIRMED = TxOpts(preflight_commitment=Confirmed)


async def test_send_confirm_finalize(client: AsyncClient, founded: Founded) -> None:
    bank, to = founded.bank, Keypair().pubkey()
    transaction = signed(bank, [pay(founded.poster, to, SOL)], founded.poster)
    signature = (await client.send_transaction(transaction, AT_CONFIRMED)).value
    assert signature == transaction.signatures[0]
    seen = []
    for _ in range(4):
        (status,) = (await client.get_signature_statuses([signature])).value
        assert status is not None
        seen.append((status.confirmation_status, status.confirmations))
        bank.tick()
    assert seen == [
        (TransactionConfirmationStatus.Processed, 0),
        (TransactionConfirmationStatus.Confirmed, 1),
        (TransactionConfirmationStatus.Confirmed, 2),
        (TransactionConfirmationStatus.Finalized, None),
    ]
    assert (await client.get_balance(to, Finalized)).value == SOL


async def test_each_commitment_reads_its_own_state(client: AsyncClient, founded: Founded) -> None:
    to = Keypair().pubkey()
    await client.send_transaction(signed(founded.bank, [pay(founded.poster, to, SOL)], founded.poster))
    balances = [(await client.get_balance(to, each)).value for each in (Processed, Confirmed, Finalized)]
    assert balances == [SOL, 0, 0]
    slots = [(await client.get_slot(each)).value for each in (Processed, Confirmed, Finalized)]
    assert slots == [founded.bank.slot, founded.bank.slot - 1, founded.bank.slot - 3]


async def test_statuses_are_forgotten_without_history(client: AsyncClient, founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), SOL)], founded.poster)
    signature = (await client.send_transaction(transaction, AT_CONFIRMED)).value
    founded.bank.tick(200)
    assert (await client.get_signature_statuses([signature])).value == [None]
    (status,) = (await client.get_signature_statuses([signature], search_transaction_history=True)).value
    assert status is not None
    assert (await client.get_signature_statuses([Signature.default()], True)).value == [None]


async def test_preflight_says_what_the_program_said(chain: RunningChain, founded: Founded) -> None:
    stand = Keypair()
    founded.submit([work(founded, stand)], founded.host, stand)
    founded.bank.tick()
    again = Keypair()
    transaction = signed(
        founded.bank, [set_compute_unit_limit(50_000), work(founded, again)], founded.host, again
    )
    reply = await rpc(
        chain.url,
        "sendTransaction",
        base64.b64encode(bytes(transaction)).decode(),
        {"encoding": "base64", "preflightCommitment": "confirmed"},
    )
    error = reply["error"]
    assert error["code"] == -32002
    assert error["message"] == (
        "Transaction simulation failed: Error processing Instruction 1: custom program error: 0x177e"
    )
    assert error["data"]["err"] == {"InstructionError": [1, {"Custom": 6014}]}
    assert any("Error Code: NodeAlreadyQueued. Error Number: 6014." in line for line in error["data"]["logs"])
    assert error["data"]["unitsConsumed"] > 150
    assert set(error["data"]) >= {
        "accounts",
        "err",
        "logs",
        "unitsConsumed",
        "returnData",
        "innerInstructions",
    }


async def test_solana_py_reads_a_preflight_failure(client: AsyncClient, founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), 10**9 * SOL)], founded.poster)
    with pytest.raises(RPCException) as raised:
        await client.send_transaction(transaction, AT_CONFIRMED)
    (message,) = raised.value.args
    assert isinstance(message, SendTransactionPreflightFailureMessage)
    assert message.data.err is not None
    assert founded.bank.landed(transaction.signatures[0]) is None, "nothing was sent"


async def test_without_preflight_a_failure_lands_and_costs(client: AsyncClient, founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), 10**9 * SOL)], founded.poster)
    signature = (await client.send_transaction(transaction, TxOpts(skip_preflight=True))).value
    (status,) = (await client.get_signature_statuses([signature])).value
    assert status is not None
    assert status.err is not None


async def test_a_resent_transaction_is_told_from_a_new_one(chain: RunningChain, founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), SOL)], founded.poster)
    encoded = base64.b64encode(bytes(transaction)).decode()
    checked = {"encoding": "base64", "preflightCommitment": "processed"}
    assert (await rpc(chain.url, "sendTransaction", encoded, checked))["result"]
    again = await rpc(chain.url, "sendTransaction", encoded, checked)
    assert again["error"]["code"] == -32002
    assert again["error"]["message"] == (
        "Transaction simulation failed: This transaction has already been processed"
    )
    assert again["error"]["data"]["err"] == "AlreadyProcessed"
    unchecked = await rpc(
        chain.url, "sendTransaction", encoded, {"encoding": "base64", "skipPreflight": True}
    )
    assert unchecked["result"] == str(transaction.signatures[0])
    assert founded.bank.transaction_count == 2, "the market's opening and one transfer"


async def test_a_confirmed_block_hash_is_unknown_at_finalized(chain: RunningChain, founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), SOL)], founded.poster)
    encoded = base64.b64encode(bytes(transaction)).decode()
    reply = await rpc(chain.url, "sendTransaction", encoded, {"encoding": "base64"})
    assert reply["error"]["message"] == "Transaction simulation failed: Blockhash not found"
    assert reply["error"]["data"]["err"] == "BlockhashNotFound"


async def test_bad_signatures_and_garbage_are_refused(chain: RunningChain, founded: Founded) -> None:
    raw = bytearray(bytes(signed(founded.bank, [pay(founded.poster, founded.market, 1)], founded.poster)))
    raw[3] ^= 1
    reply = await rpc(
        chain.url, "sendTransaction", base64.b64encode(bytes(raw)).decode(), {"encoding": "base64"}
    )
    assert reply["error"] == {"code": -32003, "message": "Transaction signature verification failure"}
    for text in ("AAAA", base64.b64encode(b"\xff" * 300).decode(), base64.b64encode(bytes(2000)).decode()):
        reply = await rpc(chain.url, "sendTransaction", text, {"encoding": "base64"})
        assert reply["error"]["code"] == -32602


async def test_errors_of_the_protocol(chain: RunningChain) -> None:
    assert (await rpc(chain.url, "getNothing"))["error"]["code"] == -32601
    assert (await rpc(chain.url, "getBalance", "nonsense"))["error"]["code"] == -32602
    assert (await rpc(chain.url, "getBalance"))["error"]["code"] == -32602
    assert (await rpc(chain.url, "getSlot", {"minContextSlot": 10**9}))["error"]["code"] == -32016
    assert (await rpc(chain.url, "getHealth"))["result"] == "ok"


async def test_simulation_reports_units_logs_and_accounts(client: AsyncClient, founded: Founded) -> None:
    to = Keypair().pubkey()
    transaction = signed(founded.bank, [pay(founded.poster, to, SOL)], founded.poster)
    value = (await client.simulate_transaction(transaction)).value
    assert value.err is None
    assert value.units_consumed == 150
    assert value.logs == [
        "Program 11111111111111111111111111111111 invoke [1]",
        "Program 11111111111111111111111111111111 success",
    ]


async def test_simulated_accounts_and_replaced_block_hash(chain: RunningChain, founded: Founded) -> None:
    to = Keypair().pubkey()
    transaction = signed(founded.bank, [pay(founded.poster, to, SOL)], founded.poster)
    founded.bank.tick(500)
    reply = await rpc(
        chain.url,
        "simulateTransaction",
        base64.b64encode(bytes(transaction)).decode(),
        {
            "encoding": "base64",
            "replaceRecentBlockhash": True,
            "accounts": {"encoding": "base64", "addresses": [str(to), str(Keypair().pubkey())]},
        },
    )
    value = reply["result"]["value"]
    assert value["err"] is None
    assert value["accounts"][0]["lamports"] == SOL
    assert value["accounts"][1] is None
    assert value["replacementBlockhash"]["blockhash"] != str(transaction.message.recent_blockhash)


async def test_the_transaction_is_told_with_all_it_did(client: AsyncClient, founded: Founded) -> None:
    job, run = Keypair(), Keypair()
    price = set_compute_unit_price(1_000)
    transaction = signed(founded.bank, [price, post(founded, job, run)], founded.poster, job, run)
    signature = (await client.send_transaction(transaction, AT_CONFIRMED)).value
    assert (await client.get_transaction(signature, max_supported_transaction_version=0)).value is None
    founded.bank.tick(3)
    told = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
    assert told is not None
    meta = told.transaction.meta
    assert meta is not None
    assert told.block_time == founded.bank.unix_time
    assert meta.err is None
    # 200,000 units for the program and 3,000 for the budget instruction, at 1,000 micro-lamports.
    assert meta.fee == 15_000 + 203
    assert meta.log_messages is not None
    assert "Program log: Instruction: List" in meta.log_messages
    assert sum(meta.pre_balances) - sum(meta.post_balances) == meta.fee
    before = {b.account_index: int(b.ui_token_amount.amount) for b in meta.pre_token_balances or ()}
    after = {b.account_index: int(b.ui_token_amount.amount) for b in meta.post_token_balances or ()}
    assert sorted(after[i] - before[i] for i in after if after[i] != before[i]) == [-60_000, 60_000]


async def test_a_client_of_legacy_transactions_is_refused(chain: RunningChain, founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), SOL)], founded.poster)
    await rpc(
        chain.url,
        "sendTransaction",
        base58_encode(bytes(transaction)),
        {"preflightCommitment": "confirmed"},
    )
    founded.bank.tick(3)
    reply = await rpc(chain.url, "getTransaction", str(transaction.signatures[0]))
    assert reply["error"]["code"] == -32015
    for encoding in ("base64", "base58", "jsonParsed"):
        reply = await rpc(
            chain.url,
            "getTransaction",
            str(transaction.signatures[0]),
            {"encoding": encoding, "maxSupportedTransactionVersion": 0},
        )
        assert reply["result"]["version"] == 0


async def test_history_of_an_address(client: AsyncClient, founded: Founded) -> None:
    to = Keypair().pubkey()
    signatures = []
    for amount in range(5):
        transaction = signed(founded.bank, [pay(founded.poster, to, SOL + amount)], founded.poster)
        signatures.append((await client.send_transaction(transaction, AT_CONFIRMED)).value)
        founded.bank.tick()
    newest_first = signatures[::-1]

    async def history(**bounds: object) -> list[Signature]:
        reply = await client.get_signatures_for_address(to, **bounds)  # type: ignore[arg-type]
        return [entry.signature for entry in reply.value]

    assert await history() == newest_first
    assert await history(limit=2) == newest_first[:2]
    assert await history(before=newest_first[1]) == newest_first[2:]
    assert await history(until=newest_first[3]) == newest_first[:3]
    assert await history(before=newest_first[0], until=newest_first[3]) == newest_first[1:3]
    assert await history(commitment=Finalized) == newest_first[2:]


async def test_program_accounts_by_filter(client: AsyncClient, founded: Founded) -> None:
    for _ in range(3):
        job, run = Keypair(), Keypair()
        founded.submit([post(founded, job, run)], founded.poster, job, run)
    founded.bank.tick()
    everything = (await client.get_program_accounts(JOBS_PROGRAM, encoding="base64")).value
    assert len(everything) == 4
    jobs = (
        await client.get_program_accounts(
            JOBS_PROGRAM,
            encoding="base64",
            filters=[240, MemcmpOpts(offset=0, bytes="GESmduEEyPE"), MemcmpOpts(72, str(founded.market))],
        )
    ).value
    assert len(jobs) == 3
    assert all(len(each.account.data) == 240 for each in jobs)


@pytest.mark.parametrize("place", [0, 7], ids=["the first byte", "the last byte"])
async def test_memcmp_compares_every_byte(chain: RunningChain, place: int) -> None:
    wrong = bytearray(bytes.fromhex("c94ebbe1f0c6c9fb"))
    for expected in (1, 0):
        memcmp = {"offset": 0, "bytes": base64.b64encode(wrong).decode(), "encoding": "base64"}
        config = {"encoding": "base64", "commitment": "confirmed", "filters": [{"memcmp": memcmp}]}
        assert (
            len((await rpc(chain.url, "getProgramAccounts", str(JOBS_PROGRAM), config))["result"]) == expected
        )
        wrong[place] ^= 1


async def test_slices_contexts_and_encodings(chain: RunningChain, founded: Founded) -> None:
    market = str(founded.market)
    disc = bytes.fromhex("c94ebbe1f0c6c9fb")
    config = {
        "encoding": "base64",
        "commitment": "confirmed",
        "withContext": True,
        "dataSlice": {"offset": 0, "length": 8},
        "filters": [
            {"memcmp": {"offset": 0, "bytes": base64.b64encode(disc).decode(), "encoding": "base64"}}
        ],
    }
    result = (await rpc(chain.url, "getProgramAccounts", str(JOBS_PROGRAM), config))["result"]
    (found,) = result["value"]
    assert found["pubkey"] == market
    assert found["account"]["data"] == [base64.b64encode(disc).decode(), "base64"]
    assert found["account"]["space"] == 10_224
    assert result["context"]["slot"] == founded.bank.slot_at(Commitment.CONFIRMED)
    # Base58 is the default and cannot show so much.
    refused = await rpc(chain.url, "getAccountInfo", market)
    assert refused["error"]["code"] == -32600
    assert "128 bytes" in refused["error"]["message"]
    many = await rpc(chain.url, "getMultipleAccounts", [market, str(Keypair().pubkey())])
    assert [each is None for each in many["result"]["value"]] == [False, True]
    too_many = await rpc(chain.url, "getMultipleAccounts", [market] * 101)
    assert too_many["error"]["code"] == -32602


async def test_tokens(client: AsyncClient, founded: Founded) -> None:
    owner = founded.poster.pubkey()
    account = associated_token_account(owner)
    balance = (await client.get_token_account_balance(account)).value
    assert (balance.amount, balance.decimals, balance.ui_amount_string) == ("100000000000", 6, "100000")
    by_mint = (await client.get_token_accounts_by_owner(owner, TokenAccountOpts(mint=NOS_MINT))).value
    assert [each.pubkey for each in by_mint] == [account]
    parsed = (
        await client.get_token_accounts_by_owner_json_parsed(
            owner, TokenAccountOpts(program_id=TOKEN_PROGRAM)
        )
    ).value
    info = parsed[0].account.data.parsed["info"]
    assert info["tokenAmount"]["uiAmount"] == 100_000.0  # type: ignore[index, call-overload]
    assert info["owner"] == str(owner)  # type: ignore[index, call-overload]
    supply = (await client.get_token_supply(NOS_MINT)).value
    assert supply.ui_amount_string == "100000000"


async def test_block_hashes_over_rpc(client: AsyncClient, founded: Founded) -> None:
    latest = (await client.get_latest_blockhash(Confirmed)).value
    height = (await client.get_block_height(Confirmed)).value
    assert latest.last_valid_block_height == height + 150
    finalized = (await client.get_latest_blockhash(Finalized)).value
    assert finalized.last_valid_block_height == height + 150 - 2
    message = signed(founded.bank, [pay(founded.poster, Pubkey.default(), 1)], founded.poster).message
    assert (await client.get_fee_for_message(message)).value == 5_000
    founded.bank.tick(151)
    assert (await client.get_fee_for_message(message)).value is None


async def test_recent_fees(chain: RunningChain, founded: Founded) -> None:
    bank = founded.bank
    for price in (700, 300):
        founded.submit(
            [set_compute_unit_price(price), pay(founded.poster, founded.host.pubkey(), 1)], founded.poster
        )
    slot = bank.slot
    bank.tick(2)
    fees = (await rpc(chain.url, "getRecentPrioritizationFees", [str(founded.host.pubkey())]))["result"]
    assert {fee["slot"]: fee["prioritizationFee"] for fee in fees if fee["prioritizationFee"]} == {slot: 300}
    others = (await rpc(chain.url, "getRecentPrioritizationFees", [str(NOS_MINT)]))["result"]
    assert {fee["slot"]: fee["prioritizationFee"] for fee in others}[slot] == 300, "the block's own lowest"


async def test_airdrop_time_and_identity(client: AsyncClient, founded: Founded) -> None:
    to = Keypair().pubkey()
    first = (await client.request_airdrop(to, SOL)).value
    second = (await client.request_airdrop(to, SOL)).value
    assert first != second
    assert (await client.get_balance(to, Processed)).value == 2 * SOL
    assert (await client.get_block_time(founded.bank.slot - 1)).value == founded.bank.unix_time
    with pytest.raises(RPCException):
        await client.get_block_time(founded.bank.slot + 1)
    assert (await client.get_genesis_hash()).value == founded.bank.genesis_hash
    assert (await client.get_identity()).value.identity == founded.bank.identity.pubkey()
    assert (await client.get_epoch_info(Confirmed)).value.absolute_slot == founded.bank.slot - 1
    assert (await client.get_minimum_balance_for_rent_exemption(240)).value == 2_561_280
    assert (await client.get_version()).value.solana_core == "3.1.10"


async def test_the_clock_is_ours(chain: RunningChain, founded: Founded) -> None:
    start = founded.bank.unix_time
    moved = (await rpc(chain.url, "sandbox_clock", {"advance": 90, "slots": 10}))["result"]
    assert moved["unixTime"] == start + 90
    assert moved["frozen"] is True
    assert founded.bank.unix_time == start + 90
    assert (await rpc(chain.url, "sandbox_clock"))["result"] == moved
    assert (await rpc(chain.url, "sandbox_clock", {"faster": 2}))["error"]["code"] == -32602


async def test_accounts_can_be_placed(chain: RunningChain, founded: Founded) -> None:
    key, owner = str(Keypair().pubkey()), str(Keypair().pubkey())
    placed = {"lamports": 5_000_000, "owner": owner, "data": base64.b64encode(b"hello").decode()}
    await rpc(chain.url, "sandbox_setAccount", key, placed)
    shown = await rpc(chain.url, "getAccountInfo", key, {"encoding": "base64", "commitment": "processed"})
    assert shown["result"]["value"]["data"] == [placed["data"], "base64"]
    await rpc(chain.url, "sandbox_setAccount", key, None)
    gone = await rpc(chain.url, "getAccountInfo", key, {"encoding": "base64", "commitment": "processed"})
    assert gone["result"]["value"] is None
