"""The ports that a job exposes, and their public names.

(docs/protocol/job-definition.md#ports, docs/protocol/node.md#service-ids)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeGuard

from nosana_operator.definition.model import Definition, ExposedPort, ExposeItem, HealthCheck, RunArgs

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_LAST_PORT = 65535
# Digits are split off in groups that fit into a machine word, which is several times faster.
_GROUP_DIGITS = 10
_GROUP = len(_ALPHABET) ** _GROUP_DIGITS


@dataclass(frozen=True, slots=True)
class Port:
    """A port that an op exposes: the TCP port number and the health checks that decide whether it is online."""

    number: int
    health_checks: tuple[HealthCheck, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """An exposed port and its service id, the first label of its public host name (base58; only the id is
    case-sensitive)."""

    id: str
    op_index: int
    op_id: str
    port: Port


def exposed_ports(args: RunArgs) -> tuple[Port, ...]:
    """The concrete ports of an op, in the order written, each once.

    All accepted shapes count, also the single object that Nosana's own node ignores. Literals and markers count
    only once they are replaced. Numbers that are not TCP ports never count (`advice` warns about them).
    """
    ports: dict[int, Port] = {}
    for item in expose_items(args):
        checks: tuple[HealthCheck, ...] = ()
        number: object = item
        if isinstance(item, ExposedPort):
            number, checks = item.port, tuple(item.health_checks or ())
        if is_tcp_port(number):
            ports.setdefault(number, Port(number, checks))
    return tuple(ports.values())


def expose_items(args: RunArgs) -> Iterator[ExposeItem]:
    """The items of `expose`, whether it is a list or a single one."""
    if isinstance(args.expose, list):
        yield from args.expose
    elif args.expose is not None:
        yield args.expose


def services(definition: Definition, job: str) -> tuple[Service, ...]:
    """The public services of a job; `job` is its address (or uid). Private ops have random ids and are left out."""
    return tuple(
        Service(service_id(index, port.number, job), index, op.id, port)
        for index, op in enumerate(definition.ops)
        if isinstance(op.args, RunArgs) and not op.args.private
        for port in exposed_ports(op.args)
    )


def service_id(op_index: int, port: int | str, job: str) -> str:
    """The id of one port of one job: 44 characters. `op_index` counts all ops, volumes included."""
    return create_hash(f"{op_index}:{port}:{job}")


def private_service_id(entropy: bytes) -> str:
    """The id of a private port: 45 characters from random bytes that the caller stores (the node uses 45)."""
    return create_hash(entropy.hex(), 45)


def deployment_hash(deployment_id: str, project: str) -> str:
    """The key that all replicas of a deployment share: 45 characters. `project` is the job's owner."""
    return create_hash(f"{deployment_id}:{project}", 45)


def deployment_service_id(op_id: str, key: str) -> str:
    """The load-balanced id of an op over all replicas and ports; `key` is the `deployment_hash`."""
    return create_hash(f"{op_id}:0:{key}")


@lru_cache(maxsize=4096)
def create_hash(text: str, length: int = 44) -> str:
    """The first `length` characters of base58(SHA-512(UTF-8 of `text`)).

    The objects of an op name each of its ports several times, hence the cache.
    """
    digest = hashlib.sha512(text.encode()).digest()
    # Base58 writes each leading zero byte as its digit for zero.
    zeros = len(digest) - len(digest.lstrip(b"\0"))
    number = int.from_bytes(digest, "big")
    digits: list[str] = []
    while number:
        number, group = divmod(number, _GROUP)
        for _ in range(_GROUP_DIGITS):
            group, digit = divmod(group, len(_ALPHABET))
            digits.append(_ALPHABET[digit])
    text = "".join(reversed(digits)).lstrip(_ALPHABET[0])
    return (_ALPHABET[0] * zeros + text)[:length]


def is_tcp_port(value: object) -> TypeGuard[int]:
    """Whether `value` is a whole number from 1 to 65535."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LAST_PORT
