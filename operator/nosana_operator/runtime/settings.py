"""The operator's settings file, YAML, strict: a key that is not known is refused, never ignored.

Each attribute below is the camelCase key of the same name in the file; what it means stands beside it.
Secrets are named by file, never written into the settings.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

from nosana_operator.runtime.errors import SettingsError
from nosana_operator.workload import DEFAULT_BLOCKED


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where /metrics, /healthz and /readyz are served."""

    address: str = "0.0.0.0"  # noqa: S104 - kubelet and Prometheus come from outside the pod
    """The address to listen on."""
    port: int = 8080
    """0 takes any free port; the log says which."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is written to standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, json otherwise."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines below it are left out."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How many objects of a kind are worked on at once."""

    jobs: int = 16
    """NosanaJobs."""
    markets: int = 4
    """NosanaMarkets."""
    runs: int = 16
    """Runs of markets, from verification to settlement."""


@dataclass(frozen=True, slots=True)
class ElectionSettings:
    """Of all processes that name the same Lease one works; the others stand by (docs/decisions/0009)."""

    enabled: bool = True
    """false: this process works in any case. Only where there is never another one."""
    namespace: str | None = None
    """Of the Lease. Unset: the pod's; outside a cluster that of the kubeconfig's context."""
    name: str = "nosana-operator"
    """Of the Lease."""
    lease_seconds: int = 15
    """A Lease that was not renewed for so long is taken by another process."""
    renew_seconds: int = 10
    """A process that could not renew its Lease for so long ends."""
    retry_seconds: int = 2
    """Between two renewals."""


@dataclass(frozen=True, slots=True)
class ExposureSettings:
    """How exposed ports of private jobs are reached where the NosanaJob does not say it."""

    domain: str | None = None
    """Hosts are <id>.<domain>; unset: Services only, no Ingress."""
    ingress_class_name: str | None = None
    """Of the Ingress. Unset: the cluster's default class."""


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How the `resources` of definitions are fetched."""

    image: str | None = None
    """Of nosana-fetch. Unset: definitions with resources are refused."""
    mirrors: Mapping[str, str] = field(default_factory=dict)
    """Beginnings of URLs (https://huggingface.co, https://registry.ollama.ai, s3://bucket, …), and what is
    asked in their place. They see the credentials of the jobs that use them."""


@dataclass(frozen=True, slots=True)
class IsolationSettings:
    """What ops may reach, and who may reach them. As far as the cluster's network enforces NetworkPolicies."""

    blocked: tuple[str, ...] = DEFAULT_BLOCKED
    """Ranges that ops do not reach, besides the addresses of nodes and their pods; add those of Services where
    they are public ones."""
    gateway_cidrs: tuple[str, ...] = ()
    """Who reaches exposed ports: the Ingress controller, and the operator for health checks."""
    gateway_namespaces: tuple[str, ...] = ()
    """The same by namespace. With neither, exposed ports are open to all that reaches pods."""
    trusted_runtime_class: str | None = None
    """The RuntimeClass of ops with `trusted_execution_env` (confidential virtual machines, say). Unset: definitions
    that ask for it are refused."""


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """The claims that `container/create-volume` ops make."""

    storage_class: str | None = None
    """Unset: the cluster's default class."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """ReadWriteMany lets a job's ops be on several nodes; the class has to offer it."""
    size: str = "10Gi"
    """Of each claim: definitions tell none."""


@dataclass(frozen=True, slots=True)
class PinSettings:
    """One service that keeps results on IPFS."""

    type: Literal["kubo", "pinata"]
    """Whose API it has."""
    url: str
    """Of the API, without the path of a method."""
    token_file: Path | None = None
    """pinata: a file with the account's JWT. kubo: a file with the Authorization header, if it needs one."""


@dataclass(frozen=True, slots=True)
class IpfsSettings:
    """Where definitions are fetched from and results are kept."""

    gateways: tuple[str, ...] = ()
    """Base URLs, tried in turn; what they give is verified, so they need not be trusted. Private jobs whose
    definition is on IPFS use those of all networks."""
    pin: tuple[PinSettings, ...] = ()
    """Where results are kept: the first that takes one is enough."""


@dataclass(frozen=True, slots=True)
class FeeSettings:
    """What transactions pay so that they get into blocks. Prices are micro-lamports a compute unit."""

    priority: Literal["none", "fixed", "dynamic"] = "none"
    """fixed: always `price`. dynamic: from what recently got in. Unset on mainnet: dynamic."""
    price: int = 0
    """fixed: this one."""
    percentile: int = 50
    """dynamic: of the prices of the last 150 slots; not below `minimum` nor above `maximum`."""
    minimum: int = 10_000
    """dynamic: the least, however empty the blocks are."""
    maximum: int = 15_000_000
    """dynamic: the most."""
    cap: int = 200_000
    """Lamports that one transaction may cost in all; the price gives way."""
    compute_margin: int = 20
    """Percent on top of the compute units that a simulation took."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """A Solana network. Of those named "mainnet" and "devnet" the program ids are known.

    (docs/protocol/jobs-program.md#programs-and-mints)
    """

    rpc: tuple[str, ...]
    """JSON-RPC endpoints, http or https, the preferred first. One that fails or lags is left for the next."""
    ws: tuple[str, ...]
    """WebSocket endpoints, ws or wss, the preferred first. Unset: the URLs of `rpc` with ws or wss."""
    program: str
    """The Jobs program's id. Known on mainnet and devnet."""
    nos_mint: str
    """The NOS token's mint. Known on mainnet and devnet."""
    staking_program: str
    """Unset: the id that all of Nosana's clusters share."""
    rewards_program: str
    """Unset: the id that all of Nosana's clusters share."""
    ipfs: IpfsSettings = IpfsSettings()
    requests_per_second: int = 0
    """What each RPC endpoint allows; 0: no limit is known."""
    fees: FeeSettings = FeeSettings()
    allow_insecure_logistics: bool = False
    """For sandboxes: posters of confidential jobs may also be asked by http and at addresses that are not public."""
    account_rent: int = 500_000
    """NOS base units that the rent of a token account (0.00204 SOL) is worth: a poster who has closed his NOS
    account gets it again, at our cost, only with a run that pays at least so much."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the operator can be told."""

    cluster_name: str = "kubernetes"
    """Private jobs see it as `global.host`."""
    cluster_domain: str = "cluster.local"
    """Of the cluster's DNS; ops find each other's aliases below it."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose NosanaJobs and NosanaMarkets are served; empty: all."""
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    workers: WorkerSettings = WorkerSettings()
    election: ElectionSettings = ElectionSettings()
    exposure: ExposureSettings = ExposureSettings()
    fetch: FetchSettings = field(default_factory=FetchSettings)
    volumes: VolumeSettings = VolumeSettings()
    isolation: IsolationSettings = IsolationSettings()
    networks: Mapping[str, NetworkSettings] = field(default_factory=dict)
    """By the name that a NosanaMarket's `spec.network` gives."""


_SHARED_PROGRAMS = {
    "stakingProgram": "nosScmHY2uR24Zh751PmGj9ww9QRNHewh9H59AfrTJE",
    "rewardsProgram": "nosRB8DUV67oLNrL45bo2pFLrmsWPiewe2Lk2DRNYCp",
}
_WELL_KNOWN: Mapping[str, Mapping[str, str]] = {
    "mainnet": {
        "program": "nosJhNRqr2bc9g1nfGDcXXTXvYUmxD4cVwy2pMWhrYM",
        "nosMint": "nosXBVoaCTtYdLvKY6Csb4AC8JCdQKKAaWYtx2ZMoo7",
        **_SHARED_PROGRAMS,
    },
    "devnet": {
        "program": "nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR",
        "nosMint": "devr1BGQndEW5k5zfvG5FsLyZv1Ap73vNgAHcQ9sUVP",
        **_SHARED_PROGRAMS,
    },
}
_LEAST_FEE = 10_000
"""Lamports: two signatures, which `work` needs."""
_SCHEMES = {
    "rpc": ("http", "https"),
    "ws": ("ws", "wss"),
    "gateways": ("http", "https"),
    "url": ("http", "https"),
}
_ADDRESS = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}")
_ADDRESSES = {"program", "nosMint", "stakingProgram", "rewardsProgram"}
_QUANTITY = re.compile(r"[1-9][0-9]*(k|M|G|T|Ki|Mi|Gi|Ti)?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def load_settings(file: Path | None) -> Settings:
    """Settings from a YAML file; the defaults where there is none. Raises SettingsError."""
    if file is None:
        return Settings()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {file} cannot be read: {error}.") from error
    return parse_settings(text)


def parse_settings(text: str) -> Settings:
    """Settings from YAML text. Raises SettingsError naming the field and what is allowed there."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Only the place: the text around it could hold what somebody took for a place to keep a secret.
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise SettingsError(f"The settings are not YAML{where}; correct the file.") from None
    settings: Settings = _read("", Settings, {} if data is None else data)
    for index, namespace in enumerate(settings.watch_namespaces):
        if not _DNS_LABEL.fullmatch(namespace):
            raise _bad(f"watchNamespaces[{index}]", f"{namespace!r} is not the name of a namespace")
    for name in ("jobs", "markets", "runs"):
        if getattr(settings.workers, name) < 1:
            raise _bad(f"workers.{name}", "at least 1 is needed")
    _check_election(settings.election)
    for name, ranges in (
        ("blocked", settings.isolation.blocked),
        ("gatewayCidrs", settings.isolation.gateway_cidrs),
    ):
        for index, cidr in enumerate(ranges):
            _check_range(f"isolation.{name}[{index}]", cidr)
    if not _QUANTITY.fullmatch(settings.volumes.size):
        raise _bad("volumes.size", "a quantity like 10Gi is needed")
    if not 0 <= settings.metrics.port <= 65535:
        raise _bad("metrics.port", "a port is a number from 0 to 65535")
    for name, network in settings.networks.items():
        _check_network(f"networks.{name}", network)
    for start, url in settings.fetch.mirrors.items():
        _check_url(f"fetch.mirrors.{start}", url, ("http", "https"))
    return settings


def _check_election(election: ElectionSettings) -> None:
    if election.namespace is not None and not _DNS_LABEL.fullmatch(election.namespace):
        raise _bad("election.namespace", f"{election.namespace!r} is not the name of a namespace")
    if not _DNS_LABEL.fullmatch(election.name):
        raise _bad("election.name", "the name has to be lower-case letters, digits and dashes")
    if election.retry_seconds < 1:
        raise _bad("election.retrySeconds", "at least 1 is needed")
    # Two tries that get no answer have to leave time for a third.
    if election.renew_seconds < 2 * election.retry_seconds:
        raise _bad("election.renewSeconds", "it has to be at least twice retrySeconds")
    if election.lease_seconds <= election.renew_seconds:
        raise _bad(
            "election.leaseSeconds", "it has to be longer than renewSeconds, or two processes work at once"
        )


def _check_network(path: str, network: NetworkSettings) -> None:
    for key, urls in (("rpc", network.rpc), ("ws", network.ws)):
        if not urls:
            raise _bad(f"{path}.{key}", "at least one endpoint is needed")
    if network.requests_per_second < 0:
        raise _bad(f"{path}.requestsPerSecond", "a number of requests, or 0 for no limit")
    if network.account_rent < 0:
        raise _bad(f"{path}.accountRent", "a number of NOS base units, or 0 to make such accounts always")
    fees = network.fees
    if not 0 < fees.percentile <= 100:
        raise _bad(f"{path}.fees.percentile", "a percentile is a number from 1 to 100")
    if not 0 <= fees.minimum <= fees.maximum:
        raise _bad(f"{path}.fees.minimum", "it has to be from 0 to `maximum`")
    for key, value in (("price", fees.price), ("computeMargin", fees.compute_margin)):
        if value < 0:
            raise _bad(f"{path}.fees.{key}", "a number from 0 on is needed")
    if fees.cap < _LEAST_FEE:
        raise _bad(f"{path}.fees.cap", f"the signatures alone cost up to {_LEAST_FEE} lamports")


def _read(path: str, wanted: Any, data: Any) -> Any:
    """`data` as the type `wanted`; `path` is where it stands, for the message."""
    origin = typing.get_origin(wanted)
    if origin is Literal:
        allowed = typing.get_args(wanted)
        if data not in allowed:
            raise _bad(path, f"{str(data)[:40]!r} is not one of {', '.join(allowed)}")
        return data
    if origin in (types.UnionType, typing.Union):
        return None if data is None else _read(path, typing.get_args(wanted)[0], data)
    if origin is tuple:
        if not isinstance(data, list):
            raise _bad(path, f"a list is needed, this is {_name(data)}")
        item = typing.get_args(wanted)[0]
        return tuple(_read(f"{path}[{index}]", item, value) for index, value in enumerate(data))
    if origin is not None:  # Mapping[str, X]: names of the user's choice
        entries = _mapping(path, data)
        value_type = typing.get_args(wanted)[1]
        return {
            name: _read(f"{path}.{name}", value_type, _completed(path, name, value))
            for name, value in entries.items()
        }
    if dataclasses.is_dataclass(wanted):
        return _read_dataclass(path, wanted, _mapping(path, data))
    if wanted is Path:
        return Path(_scalar(path, str, data))
    return _scalar(path, wanted, data)


def _read_dataclass(path: str, wanted: Any, data: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(wanted)
    fields = {_camel(spec.name): spec for spec in dataclasses.fields(wanted)}
    prefix = f"{path}." if path else ""
    for key in data:
        if key not in fields:
            raise _bad(f"{prefix}{key}", f"no such key here; allowed: {', '.join(fields)}")
    values: dict[str, Any] = {}
    for key, spec in fields.items():
        if key in data:
            values[spec.name] = _read(f"{prefix}{key}", hints[spec.name], data[key])
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise _bad(f"{prefix}{key}", "this key is needed")
    return wanted(**values)


def _completed(path: str, name: str, network: Any) -> Any:
    """A network's entry with the ids of a well-known name and the WebSocket URLs filled in."""
    if path != "networks" or not isinstance(network, dict):
        return network
    if not _DNS_LABEL.fullmatch(name):
        raise _bad(f"{path}.{name}", "the name has to be lower-case letters, digits and dashes")
    complete = {**_WELL_KNOWN.get(name, _SHARED_PROGRAMS), **network}
    fees = complete.get("fees", {})
    if name == "mainnet" and isinstance(fees, dict):
        # Without a priority fee transactions do not reliably get into mainnet's blocks.
        complete["fees"] = {"priority": "dynamic", **fees}
    urls = complete.get("rpc")
    if "ws" not in complete and isinstance(urls, list):
        complete["ws"] = [url.replace("http", "ws", 1) if isinstance(url, str) else url for url in urls]
    return complete


def _scalar(path: str, wanted: type[Any], data: Any) -> Any:
    # bool is an int to Python, not to a person.
    if not isinstance(data, wanted) or (wanted is int and isinstance(data, bool)):
        raise _bad(path, f"{_KINDS[wanted]} is needed, this is {_name(data)}")
    key = re.sub(r"\[\d+\]$", "", path).rsplit(".", 1)[-1]
    if key in _SCHEMES:
        _check_url(path, data, _SCHEMES[key])
    if key in _ADDRESSES and not _ADDRESS.fullmatch(data):
        raise _bad(path, "a Solana address in base58 is needed")
    return data


def _check_range(path: str, cidr: str) -> None:
    try:
        ipaddress.ip_network(cidr)
    except ValueError as error:
        raise _bad(path, f"{error}; a range like 10.0.0.0/8 is needed") from None


def _check_url(path: str, url: str, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise _bad(path, "this is not a URL") from None
    if parts.scheme not in schemes or not parts.hostname:
        raise _bad(path, f"a URL is needed that begins with {' or '.join(s + '://' for s in schemes)}")


def _mapping(path: str, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _bad(path, f"a mapping of keys to values is needed, this is {_name(data)}")
    for key in data:
        if not isinstance(key, str):
            raise _bad(path, f"the key {key!r} has to be text")
    return data


_KINDS: Mapping[type[Any], str] = {str: "text", int: "a whole number", bool: "true or false"}


def _name(data: Any) -> str:
    """What something is, in words; never the thing itself, which may be a secret in the wrong place."""
    if data is None:
        return "empty"
    names = {dict: "a mapping", list: "a list", float: "a fraction"}
    return names.get(type(data)) or _KINDS.get(type(data)) or f"a {type(data).__name__}"


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _bad(path: str, problem: str) -> SettingsError:
    return SettingsError(f"Settings: {path or 'the file'}: {problem}.")
