"""What JSON-RPC error codes and HTTP statuses say: the one table from which failover follows.

The codes -32001 to -32019 are Solana's own, -32600 to -32603 JSON-RPC's; providers add HTTP statuses as codes.
A code in no set is the node's own *no*: another node may say *yes*. (docs/protocol/solana-rpc.md#replies)
"""

from __future__ import annotations

from typing import Final

PREFLIGHT_FAILURE: Final = -32002
RATE_LIMITED: Final = frozenset({429, -32429})
TRANSIENT: Final = RATE_LIMITED | {
    -32004,  # block not available
    -32005,  # node unhealthy, or behind
    -32014,  # block status not yet available
    -32016,  # minContextSlot not reached
    -32019,  # long-term storage unreachable
    -32603,  # internal error
    503,
}
"""Not now: the same node may answer later."""
METHOD_REFUSED: Final = frozenset(
    {
        -32601,  # method not found
        -32010,  # key excluded from the account indexes
        -32011,  # transaction history not kept
        -32012,  # too much to scan
        401,
        403,
        405,
        410,
    }
)
"""This node does not offer the method, or not to us."""
METHOD_REFUSED_STATUSES: Final = frozenset({401, 403, 405, 410})
"""The same, as HTTP statuses."""
REQUEST_AT_FAULT: Final = frozenset(
    {
        PREFLIGHT_FAILURE,
        -32003,  # signature verification failed
        -32006,  # precompile verification failed
        -32013,  # wrong number of signatures
        -32015,  # unsupported transaction version
        -32602,  # invalid params
    }
)
"""Every node would answer this: the transaction or the parameters are at fault."""
