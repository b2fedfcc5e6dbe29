"""A transaction off the wire: its message taken apart, with the privileges the runtime grants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from solders.hash import Hash
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from nosana_sandbox.program import AccountMeta, Instruction

PACKET_DATA_SIZE: Final = 1232
"""The most bytes a transaction may have."""

_BPF_UPGRADEABLE_LOADER: Final = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
# Sysvars and built-in programs: a transaction may name them writable, the runtime never grants it.
_RESERVED: Final = frozenset(
    Pubkey.from_string(text)
    for text in (
        "11111111111111111111111111111111",
        "AddressLookupTab1e1111111111111111111111111",
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "ComputeBudget111111111111111111111111111111",
        "Config1111111111111111111111111111111111111",
        "Ed25519SigVerify111111111111111111111111111",
        "Feature111111111111111111111111111111111111",
        "KeccakSecp256k11111111111111111111111111111",
        "LoaderV411111111111111111111111111111111111",
        "NativeLoader1111111111111111111111111111111",
        "Stake11111111111111111111111111111111111111",
        "StakeConfig11111111111111111111111111111111",
        "Sysvar1111111111111111111111111111111111111",
        "SysvarC1ock11111111111111111111111111111111",
        "SysvarEpochRewards1111111111111111111111111",
        "SysvarEpochSchedu1e111111111111111111111111",
        "SysvarFees111111111111111111111111111111111",
        "Sysvar1nstructions1111111111111111111111111",
        "SysvarLastRestartS1ot1111111111111111111111",
        "SysvarRecentB1ockHashes11111111111111111111",
        "SysvarRent111111111111111111111111111111111",
        "SysvarRewards111111111111111111111111111111",
        "SysvarS1otHashes111111111111111111111111111",
        "SysvarS1otHistory11111111111111111111111111",
        "SysvarStakeHistory1111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
    )
)


class MalformedTransaction(ValueError):
    """Bytes that are no transaction; `str()` says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class CompiledInstruction:
    """An instruction as the message stores it: indices into the transaction's keys."""

    program_index: int
    account_indices: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class WireTransaction:
    """A sanitized transaction. `keys[0]` pays the fee; the first `len(signatures)` keys sign."""

    raw: bytes
    version: Literal["legacy", 0]
    signatures: tuple[Signature, ...]
    keys: tuple[Pubkey, ...]
    readonly_signed: int
    readonly_unsigned: int
    blockhash: Hash
    compiled: tuple[CompiledInstruction, ...]
    _parsed: VersionedTransaction

    @classmethod
    def decode(cls, raw: bytes) -> WireTransaction:
        """Read and sanitize; MalformedTransaction with the reason when that fails."""
        if len(raw) > PACKET_DATA_SIZE:
            raise MalformedTransaction(
                f"transaction too large: {len(raw)} bytes (max: {PACKET_DATA_SIZE} bytes)"
            )
        try:
            parsed = VersionedTransaction.from_bytes(raw)
        except Exception as error:
            raise MalformedTransaction(f"failed to deserialize transaction: {error}") from error
        return cls._from_parsed(raw, parsed)

    @classmethod
    def unsigned(cls, message: bytes) -> WireTransaction:
        """A transaction around message bytes, with empty signatures, for asking about its fee."""
        if not message:
            raise MalformedTransaction("failed to deserialize message: it is empty")
        # The number of signers is the header's first byte, after the version byte if there is one.
        signers = message[1 if message[0] & 0x80 else 0 :][:1]
        count = signers[0] if signers else 0
        return cls.decode(bytes([count]) + bytes(64 * count) + message)

    @classmethod
    def _from_parsed(cls, raw: bytes, parsed: VersionedTransaction) -> WireTransaction:
        try:
            parsed.sanitize()
        except Exception as error:
            raise MalformedTransaction(f"invalid transaction: {error}") from error
        message = parsed.message
        if isinstance(message, MessageV0) and message.address_table_lookups:
            raise MalformedTransaction(
                "invalid transaction: address table lookups are not offered by this chain"
            )
        return cls(
            raw=raw,
            version=0 if isinstance(message, MessageV0) else "legacy",
            signatures=tuple(parsed.signatures),
            keys=tuple(message.account_keys),
            readonly_signed=message.header.num_readonly_signed_accounts,
            readonly_unsigned=message.header.num_readonly_unsigned_accounts,
            blockhash=message.recent_blockhash,
            compiled=tuple(
                CompiledInstruction(ix.program_id_index, tuple(ix.accounts), bytes(ix.data))
                for ix in message.instructions
            ),
            _parsed=parsed,
        )

    @property
    def signature(self) -> Signature:
        """The first signature, which names the transaction."""
        return self.signatures[0]

    @property
    def fee_payer(self) -> Pubkey:
        """The key that pays the fee."""
        return self.keys[0]

    def signatures_verify(self) -> bool:
        """Whether every required key has signed this very message."""
        return all(self._parsed.verify_with_results())

    def is_signer(self, index: int) -> bool:
        """Whether the key at `index` signs."""
        return index < len(self.signatures)

    def named_writable(self, index: int) -> bool:
        """Whether the message's header names the key at `index` writable."""
        signers = len(self.signatures)
        if index < signers:
            return index < signers - self.readonly_signed
        return index < len(self.keys) - self.readonly_unsigned

    def is_writable(self, index: int) -> bool:
        """Whether the runtime lets the transaction write the key at `index`.

        Not for sysvars and built-in programs, nor for a program the transaction calls.
        """
        if not self.named_writable(index) or self.keys[index] in _RESERVED:
            return False
        called = any(ix.program_index == index for ix in self.compiled)
        return not called or _BPF_UPGRADEABLE_LOADER in self.keys

    def instructions(self) -> tuple[Instruction, ...]:
        """The instructions with the privileges of the whole message, as the runtime passes them on."""
        metas = [
            AccountMeta(key, self.is_signer(index), self.is_writable(index))
            for index, key in enumerate(self.keys)
        ]
        return tuple(
            Instruction(
                self.keys[ix.program_index],
                tuple(metas[index] for index in ix.account_indices),
                ix.data,
            )
            for ix in self.compiled
        )
