"""Errors as a Solana node reports them: JSON shapes and the sentences of its `message` field.

A transaction error is kept in the shape an RPC answer has: a name, or `{"InstructionError": [index, error]}`
and the like. Clients compare these texts, so they are the node's, not ours.
"""

from __future__ import annotations

from typing import Any, Final

TransactionError = str | dict[str, Any]
"""`"BlockhashNotFound"`, `{"InstructionError": [0, {"Custom": 1}]}`, … as in an RPC answer."""

_TRANSACTION_TEXT: Final = {
    "AccountInUse": "Account in use",
    "AccountLoadedTwice": "Account loaded twice",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "ProgramAccountNotFound": "Attempt to load a program that does not exist",
    "InsufficientFundsForFee": "Insufficient funds for fee",
    "InvalidAccountForFee": "This account may not be used to pay transaction fees",
    "AlreadyProcessed": "This transaction has already been processed",
    "BlockhashNotFound": "Blockhash not found",
    "SignatureFailure": "Transaction did not pass signature verification",
    "InvalidProgramForExecution": "This program may not be used for executing instructions",
    "SanitizeFailure": "Transaction failed to sanitize accounts offsets correctly",
    "TooManyAccountLocks": "Transaction locked too many accounts",
    "AddressLookupTableNotFound": "Transaction loads an address table account that doesn't exist",
}

_INSTRUCTION_TEXT: Final = {
    "GenericError": "generic instruction error",
    "InvalidArgument": "invalid program argument",
    "InvalidInstructionData": "invalid instruction data",
    "InvalidAccountData": "invalid account data for instruction",
    "AccountDataTooSmall": "account data too small for instruction",
    "InsufficientFunds": "insufficient funds for instruction",
    "IncorrectProgramId": "incorrect program id for instruction",
    "MissingRequiredSignature": "missing required signature for instruction",
    "AccountAlreadyInitialized": "instruction requires an uninitialized account",
    "UninitializedAccount": "instruction requires an initialized account",
    "UnbalancedInstruction": "sum of account balances before and after instruction do not match",
    "ExternalAccountLamportSpend": "instruction spent from the balance of an account it does not own",
    "ExternalAccountDataModified": "instruction modified data of an account it does not own",
    "ReadonlyLamportChange": "instruction changed the balance of a read-only account",
    "ReadonlyDataModified": "instruction modified data of a read-only account",
    "NotEnoughAccountKeys": "insufficient account keys for instruction",
    "AccountBorrowFailed": "instruction tries to borrow reference for an account which is already borrowed",
    "MissingAccount": "An account required by the instruction is missing",
    "InvalidSeeds": "Provided seeds do not result in a valid address",
    "ComputationalBudgetExceeded": "Computational budget exceeded",
    "PrivilegeEscalation": "Cross-program invocation with unauthorized signer or writable account",
    "ProgramFailedToComplete": "Program failed to complete",
    "IllegalOwner": "Provided owner is not allowed",
    "ArithmeticOverflow": "Program arithmetic overflowed",
    "UnsupportedProgramId": "Unsupported program id",
    "UnsupportedSysvar": "Unsupported sysvar",
}


def instruction_error_text(error: Any) -> str:
    """The node's wording of an instruction error (`{"Custom": 1}` → `custom program error: 0x1`)."""
    if isinstance(error, dict) and "Custom" in error:
        return f"custom program error: {error['Custom']:#x}"
    return _INSTRUCTION_TEXT.get(str(error), str(error))


def transaction_error_text(error: TransactionError) -> str:
    """The node's wording of a transaction error."""
    if isinstance(error, str):
        return _TRANSACTION_TEXT.get(error, error)
    ((kind, detail),) = error.items()
    match kind:
        case "InstructionError":
            return f"Error processing Instruction {detail[0]}: {instruction_error_text(detail[1])}"
        case "InsufficientFundsForRent":
            index = detail["account_index"]
            return f"Transaction results in an account ({index}) with insufficient funds for rent"
        case "DuplicateInstruction":
            return f"Transaction contains a duplicate instruction ({detail}) that is not allowed"
        case _:
            return f"{kind}: {detail}"


class TransactionRejected(Exception):
    """A transaction that never lands: no fee is taken and no block holds it."""

    def __init__(self, error: TransactionError) -> None:
        super().__init__(transaction_error_text(error))
        self.error: Final = error


class RpcError(Exception):
    """A JSON-RPC error reply: `code`, `message` and optional `data`."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code: Final = code
        self.message: Final = message
        self.data: Final = data

    def to_json(self) -> dict[str, Any]:
        """The `error` member of the reply."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            body["data"] = self.data
        return body


PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
BLOCK_NOT_AVAILABLE: Final = -32004
PREFLIGHT_FAILURE: Final = -32002
SIGNATURE_VERIFICATION_FAILURE: Final = -32003
UNSUPPORTED_TRANSACTION_VERSION: Final = -32015
MIN_CONTEXT_SLOT_NOT_REACHED: Final = -32016


def invalid_params(message: str) -> RpcError:
    """The reply to a malformed parameter."""
    return RpcError(INVALID_PARAMS, message)
