"""The nineteen instructions: arguments, accounts in wire order with their checks.

(docs/protocol/jobs-program.md#instructions, docs/protocol/jobs-program.md#order-of-checks)
"""

from __future__ import annotations

from typing import Final

from nosana_sandbox.program.addresses import NOS_MINT, market_vault
from nosana_sandbox.program.anchor import Field, Kind
from nosana_sandbox.program.checks import (
    ADMIN,
    AUTHORITY,
    BY_NODE,
    BY_PROJECT,
    JOB_DONE,
    JOB_QUEUED,
    JOB_STOPPED,
    LISTING_USER,
    MARKET,
    NODE_ENTRY,
    OWN_JOB,
    OWN_MARKET,
    OWN_PAYER,
    OWN_VAULT,
    PAYER,
    PAYING,
    REFLECTION,
    REWARDS_FIELD,
    REWARDS_VAULT,
    SYSTEM_FIELD,
    TOKEN_FIELD,
    USER,
    VAULT,
    address,
    has_one,
    job_price,
    own_nos_account,
    require,
    unused_key,
)
from nosana_sandbox.program.failure import Code
from nosana_sandbox.program.handlers import (
    do_assign,
    do_claim,
    do_close,
    do_complete,
    do_delist,
    do_end,
    do_extend,
    do_finish,
    do_list,
    do_nothing,
    do_open,
    do_quit,
    do_recover,
    do_stop,
    do_update,
    do_work,
    minus_i64,
)
from nosana_sandbox.program.layout import NO_RESULT, QUEUE_JOB, QUEUE_NODE
from nosana_sandbox.program.spec import Spec

_SPECS: Final = (
    Spec(
        "open",
        ("i64", "u64", "i64", "u8", "u128"),
        (
            Field("mint", Kind.MINT, (address(lambda _: NOS_MINT, Code.InvalidMint),)),
            Field("market", Kind.MARKET, init_by="authority"),
            Field(
                "vault",
                Kind.TOKEN,
                init_by="authority",
                derived=lambda c: market_vault(c.key("market"), c.key("mint"))[0],
            ),
            Field("authority", Kind.SIGNER, mut=True),
            Field("access_key", Kind.UNCHECKED),
            Field("rent", Kind.RENT),
            SYSTEM_FIELD,
            TOKEN_FIELD,
        ),
        do_open,
    ),
    Spec(
        "update",
        ("i64", "u64", "u8", "u128", "i64"),
        (
            Field("market", Kind.MARKET, (has_one("authority", Code.Unauthorized),), mut=True),
            Field("access_key", Kind.UNCHECKED),
            AUTHORITY,
        ),
        do_update,
    ),
    Spec(
        "close",
        (),
        (
            Field(
                "market",
                Kind.MARKET,
                (has_one("authority", Code.Unauthorized), OWN_VAULT),
                mut=True,
                close_to="authority",
            ),
            VAULT,
            USER,
            AUTHORITY,
            TOKEN_FIELD,
        ),
        do_close,
    ),
    Spec(
        "close_admin",
        (),
        (
            Field("market", Kind.MARKET, (OWN_VAULT,), mut=True, close_to="authority"),
            VAULT,
            USER,
            ADMIN,
            TOKEN_FIELD,
        ),
        do_close,
    ),
    Spec(
        "list",
        ("bytes32", "i64"),
        (
            Field("job", Kind.JOB, init_by="payer"),
            Field("market", Kind.MARKET, (OWN_VAULT,), mut=True),
            Field("run", Kind.UNCHECKED, (unused_key,), mut=True),
            LISTING_USER,
            VAULT,
            PAYING,
            REFLECTION,
            REWARDS_VAULT,
            AUTHORITY,
            REWARDS_FIELD,
            TOKEN_FIELD,
            SYSTEM_FIELD,
        ),
        do_list,
    ),
    Spec(
        "assign",
        ("bytes32", "i64"),
        (
            Field("job", Kind.JOB, init_by="payer"),
            Field(
                "market",
                Kind.MARKET,
                (
                    OWN_VAULT,
                    require(lambda c: c.market.queue_type == QUEUE_NODE, Code.MarketInWrongState),
                ),
                mut=True,
            ),
            Field("run", Kind.RUN, init_by="payer"),
            Field("node", Kind.UNCHECKED),
            LISTING_USER,
            VAULT,
            PAYING,
            REFLECTION,
            REWARDS_VAULT,
            AUTHORITY,
            REWARDS_FIELD,
            TOKEN_FIELD,
            SYSTEM_FIELD,
        ),
        do_assign,
    ),
    Spec(
        "delist",
        (),
        (
            Field(
                "job",
                Kind.JOB,
                (OWN_PAYER, OWN_MARKET, BY_PROJECT, JOB_QUEUED),
                mut=True,
                close_to="payer",
            ),
            Field(
                "market",
                Kind.MARKET,
                (
                    OWN_VAULT,
                    require(lambda c: c.market.queue_type == QUEUE_JOB, Code.MarketInWrongState),
                ),
                mut=True,
            ),
            Field(
                "deposit",
                Kind.TOKEN,
                (own_nos_account(lambda c: c.key("payer"), job_price),),
                mut=True,
            ),
            PAYER,
            VAULT,
            TOKEN_FIELD,
            Field("authority", Kind.SIGNER, mut=True),
        ),
        do_delist,
    ),
    Spec(
        "recover",
        (),
        (
            Field(
                "job",
                Kind.JOB,
                (OWN_PAYER, OWN_MARKET, BY_PROJECT, JOB_STOPPED),
                mut=True,
                close_to="payer",
            ),
            MARKET,
            VAULT,
            USER,
            PAYER,
            AUTHORITY,
            TOKEN_FIELD,
        ),
        do_recover,
    ),
    Spec(
        "extend",
        ("i64",),
        (
            Field(
                "job",
                Kind.JOB,
                (
                    OWN_MARKET,
                    BY_PROJECT,
                    require(lambda c: c.job.price == 0 or c.job.payer == c.key("payer"), Code.Unauthorized),
                    JOB_QUEUED,
                ),
                mut=True,
            ),
            MARKET,
            Field(
                "user",
                Kind.TOKEN,
                (own_nos_account(lambda c: c.key("payer"), job_price),),
                mut=True,
            ),
            VAULT,
            REFLECTION,
            REWARDS_VAULT,
            AUTHORITY,
            Field("payer", Kind.SIGNER),
            REWARDS_FIELD,
            TOKEN_FIELD,
        ),
        do_extend,
    ),
    Spec(
        "end",
        (),
        (
            Field("job", Kind.JOB, (OWN_MARKET, BY_PROJECT), mut=True),
            MARKET,
            Field(
                "run",
                Kind.RUN,
                (
                    OWN_PAYER,
                    OWN_JOB,
                    require(lambda c: c.run.job == c.key("job"), Code.JobInvalidRunAccount),
                ),
                mut=True,
                close_to="payer",
            ),
            Field(
                "deposit",
                Kind.TOKEN,
                (own_nos_account(lambda c: c.job.payer, job_price),),
                mut=True,
                shared=True,
            ),
            Field(
                "user",
                Kind.TOKEN,
                (own_nos_account(lambda c: c.run.node, job_price),),
                mut=True,
            ),
            VAULT,
            PAYER,
            Field("authority", Kind.SIGNER, mut=True),
            TOKEN_FIELD,
        ),
        do_end,
    ),
    Spec(
        "work",
        (),
        (
            Field("run", Kind.UNCHECKED, (unused_key,), mut=True),
            Field(
                "market",
                Kind.MARKET,
                (
                    require(
                        lambda c: (
                            c.market.queue_type == QUEUE_JOB or c.key("authority") not in c.market.queue
                        ),
                        Code.NodeAlreadyQueued,
                    ),
                ),
                mut=True,
            ),
            PAYING,
            *NODE_ENTRY,
            AUTHORITY,
            SYSTEM_FIELD,
        ),
        do_work,
    ),
    Spec(
        "stop",
        (),
        (
            Field(
                "market",
                Kind.MARKET,
                (
                    require(lambda c: c.market.queue_type == QUEUE_NODE, Code.MarketInWrongState),
                    require(
                        lambda c: c.key("authority") in (c.market.authority, c.key("node")), Code.Unauthorized
                    ),
                ),
                mut=True,
            ),
            Field("node", Kind.UNCHECKED),
            AUTHORITY,
        ),
        do_stop,
    ),
    Spec(
        "claim",
        (),
        (
            Field("job", Kind.JOB, (OWN_MARKET, JOB_STOPPED), mut=True),
            Field("run", Kind.RUN, init_by="payer"),
            Field("market", Kind.MARKET),
            *NODE_ENTRY,
            PAYING,
            AUTHORITY,
            SYSTEM_FIELD,
        ),
        do_claim,
    ),
    Spec(
        "complete",
        ("bytes32",),
        (
            Field(
                "job",
                Kind.JOB,
                (
                    JOB_DONE,
                    require(lambda c: c.job.node == c.key("authority"), Code.Unauthorized),
                    require(lambda c: c.job.ipfs_result == NO_RESULT, Code.JobResultsAlreadySet),
                ),
                mut=True,
            ),
            AUTHORITY,
        ),
        do_complete,
    ),
    Spec(
        "finish",
        ("bytes32",),
        (
            Field(
                "job",
                Kind.JOB,
                (OWN_MARKET, require(lambda c: c.job.payer == c.key("payer_job"), Code.InvalidPayer)),
                mut=True,
            ),
            Field(
                "run",
                Kind.RUN,
                (
                    OWN_JOB,
                    require(lambda c: c.run.payer == c.key("payer_run"), Code.InvalidPayer),
                    BY_NODE,
                ),
                mut=True,
                close_to="payer_run",
            ),
            MARKET,
            VAULT,
            Field(
                "deposit",
                Kind.TOKEN,
                (own_nos_account(lambda c: c.key("payer_job"), job_price),),
                mut=True,
                shared=True,
            ),
            Field(
                "user",
                Kind.TOKEN,
                (require(lambda c: c.job.price == 0 or c.token("user").mint == NOS_MINT, Code.InvalidATA),),
                mut=True,
            ),
            Field("payer_run", Kind.UNCHECKED, mut=True),
            Field("payer_job", Kind.UNCHECKED, mut=True),
            AUTHORITY,
            TOKEN_FIELD,
        ),
        do_finish,
    ),
    Spec(
        "quit",
        (),
        (
            Field("job", Kind.JOB, mut=True),
            Field("run", Kind.RUN, (OWN_JOB, OWN_PAYER, BY_NODE), mut=True, close_to="payer"),
            PAYER,
            AUTHORITY,
        ),
        do_quit,
    ),
    Spec(
        "quit_admin",
        (),
        (Field("run", Kind.RUN, (OWN_PAYER,), mut=True, close_to="payer"), PAYER, ADMIN),
        do_nothing,
    ),
    Spec(
        "clean",
        (),
        (
            Field(
                "job",
                Kind.JOB,
                (
                    OWN_PAYER,
                    JOB_DONE,
                    require(
                        lambda c: c.market.job_expiration < minus_i64(c.clock, c.job.time_end),
                        Code.JobNotExpired,
                    ),
                ),
                mut=True,
                close_to="payer",
            ),
            Field("market", Kind.MARKET),
            PAYER,
        ),
        do_nothing,
    ),
    Spec(
        "clean_admin",
        (),
        (Field("job", Kind.JOB, (OWN_PAYER,), mut=True, close_to="payer"), PAYER, ADMIN),
        do_nothing,
    ),
)

BY_DISCRIMINATOR: Final = {spec.discriminator: spec for spec in _SPECS}
