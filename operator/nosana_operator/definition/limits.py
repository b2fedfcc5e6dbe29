"""The limits of a job definition: what Kubernetes, our CRDs and a result can hold. Declared here and nowhere else.

The validator (`rules`), the check after literals are replaced (`arguments`), the CRDs (`api`) and the table in the
documentation derive from these constants. Real definitions stay far below: the largest known one has 150 values, 6
KiB, 6 ops and 2 ports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 1024 * 1024
"""Bytes of a document."""
MAX_DEPTH: Final = 64
"""Levels of nested objects and lists."""
MAX_VALUES: Final = 16_384
"""Values in a document, aliases expanded; also values that markers add to the arguments of an op."""
MAX_OPS: Final = 64
MAX_NAME: Final = 512
"""Characters of an op's id and of a group."""
MAX_PORTS: Final = 512
"""Exposed ports of all ops of a job."""
MAX_STATUS_BYTES: Final = 768 * 1024
"""Bytes that ids and ports may need in the status of a job; etcd takes 1.5 MiB with the definition in it."""
STATUS_OP_BYTES: Final = 1024
"""Of an op in the status, without its id and group."""
STATUS_PORT_BYTES: Final = 512
"""Of an endpoint in the status, without the op's id."""
MAX_HEALTH_CHECKS: Final = 128
"""Health checks of all ops of a job."""
MAX_ALIASES: Final = 1000
"""Aliases of an op; Kubernetes takes this many endpoints in an EndpointSlice."""
MAX_VOLUMES: Final = 8
"""`create-volume` ops of a job."""
MAX_MOUNTS: Final = 128
"""Volumes and resources of an op together."""
MAX_ENV: Final = 1024
"""Entries of `env` of an op, those of `global.env` included."""
MAX_WORD_BYTES: Final = 128 * 1024 - 1
"""Bytes of a word of a command, and of a variable as `NAME=value`; Linux takes no longer string (MAX_ARG_STRLEN)."""
MAX_ARGS_BYTES: Final = 256 * 1024
"""Bytes of an op's arguments with the `global` defaults, as compact JSON."""
MAX_OBJECT_BYTES: Final = 1024 * 1024
"""Bytes of a Kubernetes object that is made for an op, as compact JSON."""
MAX_PATTERNS: Final = 64
"""Regular expressions in `results` of an op."""
MAX_PATTERN: Final = 16 * 1024
"""Characters of a regular expression."""
MAX_ENDPOINT: Final = 2048
"""Characters of an endpoint in `logistics` once its literals are replaced."""
MAX_ADDRESS: Final = 44
"""Characters of a Solana address in base58."""
MAX_MESSAGE: Final = 4096
"""Characters of a message in a status."""
MAX_CONDITION_MESSAGE: Final = 32_768
"""Characters of a condition's message (metav1.Condition)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A row of the documentation's table."""

    subject: str
    """What is limited, as a definition names it."""
    maximum: int
    unit: str
    source: str
    """What sets the limit."""


LIMITS: Final = (
    Limit("document", MAX_BYTES, "bytes", "Nosana's own definitions are a few KiB"),
    Limit("document", MAX_DEPTH, "levels", "no field needs more"),
    Limit("document", MAX_VALUES, "values", "the time that the operator takes to read them"),
    Limit("`ops`", MAX_OPS, "ops", "`status.ops`"),
    Limit("`ops[].id`, `execution.group`", MAX_NAME, "characters", "`status.ops`"),
    Limit("`expose`, all ops", MAX_PORTS, "ports", "`status.endpoints`; each port is a Service"),
    Limit("ids, groups and ports of all ops", MAX_STATUS_BYTES, "bytes", "the size of a NosanaJob in etcd"),
    Limit("`health_checks`, all ops", MAX_HEALTH_CHECKS, "checks", "the operator carries them out"),
    Limit("`aliases` of an op", MAX_ALIASES, "names", "the endpoints of an EndpointSlice"),
    Limit("`container/create-volume`", MAX_VOLUMES, "ops", "each is a claim on the cluster's storage"),
    Limit("`volumes` and `resources` of an op", MAX_MOUNTS, "entries", "mounts of a container"),
    Limit("`env` of an op with `global.env`", MAX_ENV, "variables", "the size of a pod"),
    Limit("a word of `cmd` or `entrypoint`, a variable", MAX_WORD_BYTES, "bytes", "Linux (`MAX_ARG_STRLEN`)"),
    Limit("`args` of an op, literals replaced", MAX_ARGS_BYTES, "bytes", "the size of a pod in etcd"),
    Limit("`results` of an op", MAX_PATTERNS, "expressions", "the time that an ended job may take"),
    Limit("an expression of `results`", MAX_PATTERN, "characters", "the time that an ended job may take"),
    Limit("`logistics` endpoint, literals replaced", MAX_ENDPOINT, "characters", "`status.logistics`"),
)
