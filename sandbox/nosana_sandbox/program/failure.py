"""Why an instruction fails: Anchor's errors, the program's own, those of the called programs, panics.

Three error enums share the numbers from 6000 on (docs/protocol/jobs-program.md#error-names); they are one table
here because their names do not collide, and the name is what a client can rely on.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from nosana_operator.errors import NosanaError
from nosana_sandbox.program.types import Custom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nosana_sandbox.program.types import InstructionError


class Code(Enum):
    """An error with a name, a number and the words of the log line."""

    # Anchor's own.
    InstructionFallbackNotFound = (101, "Fallback functions are not supported")
    InstructionDidNotDeserialize = (102, "The program could not deserialize the given instruction")
    ConstraintMut = (2000, "A mut constraint was violated")
    ConstraintSeeds = (2006, "A seeds constraint was violated")
    ConstraintClose = (2011, "A close constraint was violated")
    ConstraintDuplicateMutableAccount = (2040, "A duplicate mutable account constraint was violated")
    AccountDiscriminatorNotFound = (3001, "No discriminator was found on the account")
    AccountDiscriminatorMismatch = (3002, "Account discriminator did not match what was expected")
    AccountDidNotDeserialize = (3003, "Failed to deserialize the account")
    AccountDidNotSerialize = (3004, "Failed to serialize the account")
    AccountNotEnoughKeys = (3005, "Not enough account keys given to the instruction")
    AccountOwnedByWrongProgram = (3007, "The given account is owned by a different program than expected")
    InvalidProgramId = (3008, "Program ID was not as expected")
    AccountNotSigner = (3010, "The given account did not sign")
    AccountNotInitialized = (3012, "The program expected this account to be already initialized")
    AccountSysvarMismatch = (3015, "The given public key does not match the required sysvar")
    TryingToInitPayerAsProgramAccount = (4101, "The payer cannot be the account that is created")
    # The jobs program's.
    InvalidMarketAccount = (6000, "This market account is not valid.")
    MarketInWrongState = (6001, "This market does not have the right status.")
    NotInMarketQueue = (6002, "Account cannot be find account in market queue.")
    InvalidJobAccount = (6003, "This job account is not valid.")
    JobInWrongState = (6004, "This job does not have the right status.")
    JobNotExpired = (6005, "The job has not yet expired.")
    JobResultNull = (6006, "The job result can not be null.")
    JobTimeoutNotGreater = (6008, "The new job timeout should be larger than the current one.")
    JobInvalidRunAccount = (6009, "The run account does not match the job.")
    JobResultsAlreadySet = (6010, "The job results are already set.")
    NodeNotEnoughStake = (6013, "This node has not staked enough tokens.")
    NodeAlreadyQueued = (6014, "This node is already present in the queue.")
    NodeNftWrongOwner = (6016, "This NFT is not owned by this node.")
    NodeNftInvalidAmount = (6017, "Access NFT amount cannot be 0.")
    NodeKeyInvalidCollection = (6018, "This access key does not belong to a verified collection.")
    # Shared by all Nosana programs.
    Unauthorized = (6000, "This account is not authorized to perform this action.")
    InvalidOwner = (6001, "This account is owned by an invalid program.")
    LamportsNonNull = (6002, "This account has lamports.")
    MissingSignature = (6003, "This account is missing a signature.")
    InvalidMint = (6006, "This mint is invalid.")
    InvalidVault = (6007, "This account has an invalid vault.")
    InvalidPayer = (6008, "This payer account is not valid.")
    InvalidATA = (6011, "This Associated Token Account is not valid.")
    InvalidAccount = (6004, "This account is not valid.")
    VaultEmpty = (6009, "This vault is empty.")
    VaultNotEmpty = (6010, "This vault is not empty.")
    # The staking program's.
    AlreadyUnstaked = (6004, "This stake is already unstaked.")
    NotUnstaked = (6005, "This stake is not yet unstaked.")
    Locked = (6006, "This stake is still locked.")
    DurationTooShort = (6007, "This stake duration is not long enough.")
    DurationTooLong = (6008, "This stake duration is too long.")
    HasReward = (6011, "This stake still has a reward account.")
    InvalidStakeAccount = (6012, "This stake does not belong to the authority.")

    @property
    def number(self) -> int:
        """The number of `{"Custom": number}`."""
        return self.value[0]

    @property
    def text(self) -> str:
        """The words after `Error Message:`."""
        return self.value[1]


class ProgramFailure(NosanaError):
    """One instruction fails. `log` are the program log lines of the failing frame, without its last line."""

    def __init__(
        self, error: InstructionError, log: Sequence[str] = (), log_error: str | None = None
    ) -> None:
        super().__init__(f"The program refuses the instruction: {log_error or describe(error)}.")
        self.error = error
        self.log = tuple(log)
        self.log_error = log_error


def describe(error: InstructionError) -> str:
    """The words that the runtime puts after `Program X failed: `."""
    if isinstance(error, Custom):
        return f"custom program error: {error.code:#x}"
    return _RUNTIME_WORDS.get(error, error)


_RUNTIME_WORDS = {
    "PrivilegeEscalation": "Cross-program invocation with unauthorized signer or writable account",
    "ProgramFailedToComplete": "SBF program panicked",
    "InvalidAccountData": "invalid account data for instruction",
    "InvalidArgument": "invalid program argument",
    "UninitializedAccount": "instruction requires an initialized account",
    "MissingRequiredSignature": "missing required signature for instruction",
    "ExternalAccountLamportSpend": "instruction spent from the balance of an account it does not own",
    "ReadonlyLamportChange": "instruction changed the balance of a read-only account",
    "ReadonlyDataModified": "instruction modified data of a read-only account",
    "IncorrectProgramId": "incorrect program id for instruction",
}

# ProgramError's built-in variants are numbered in the upper half of a u64.
_BUILTIN_NUMBER = {"InvalidAccountData": 4 << 32, "UninitializedAccount": 10 << 32}


def anchor_error(
    code: Code,
    *,
    account: str | None = None,
    source: str | None = None,
    compared: tuple[object, object] | None = None,
) -> ProgramFailure:
    """An AnchorError: raised for an `account`, thrown at a `source` line, or neither.

    `compared` are the two values that should have been equal; Anchor logs them.
    """
    summary = f"Error Code: {code.name}. Error Number: {code.number}"
    log = [f"Program log: AnchorError {_origin(account, source)}. {summary}. Error Message: {code.text}."]
    if compared is not None:
        # Keys get a line each; numbers stand beside their label.
        left, right = compared
        if isinstance(left, int):
            log += [f"Program log: Left: {left}", f"Program log: Right: {right}"]
        else:
            log += [
                "Program log: Left:",
                f"Program log: {left}",
                "Program log: Right:",
                f"Program log: {right}",
            ]
    return ProgramFailure(Custom(code.number), log, summary)


def unreadable_account(name: str, account: str) -> ProgramFailure:
    """A token account or mint that its own program's reader refuses: a ProgramError, not an AnchorError."""
    summary = f"Error Code: {name}. Error Number: {_BUILTIN_NUMBER[name]}"
    line = f"Program log: ProgramError {_origin(account, None)}. {summary}. Error Message: {describe(name)}."
    return ProgramFailure(name, [line], summary)


def panic(reason: str) -> ProgramFailure:
    """The program stops dead: arithmetic that overflows, a number that does not fit.

    (docs/protocol/jobs-program.md#order-of-checks)
    """
    return ProgramFailure("ProgramFailedToComplete", [f"Program log: panicked: {reason}"])


def _origin(account: str | None, source: str | None) -> str:
    if account is not None:
        return f"caused by account: {account}"
    if source is not None:
        return f"thrown in {source}"
    return "occurred"
