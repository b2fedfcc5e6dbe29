"""The operator's settings file: YAML, where an unknown key is refused and never ignored.

The file is validated as JSON in pydantic's strict mode, so that `port: "8080"` and `enabled: 1` are errors. Errors
name the path and what is allowed there, never the value: somebody may have put a secret in its place. Secrets
themselves are named by file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from nosana_operator.api import Exposure
from nosana_operator.api.placement import NodeSettings
from nosana_operator.chain import (
    NETWORK_PROGRAMS,
    REWARDS_PROGRAM,
    STAKING_PROGRAM,
    FeePolicy,
    address_problem,
)
from nosana_operator.kube import ElectionSettings
from nosana_operator.runtime.errors import SettingsError
from nosana_operator.settings_group import DnsLabel, GatewayUrl, HttpUrl, SettingsGroup, WebSocketUrl
from nosana_operator.workload import Fetching, Isolation, Storage


class MetricsSettings(SettingsGroup):
    """Where the operator serves /metrics, /healthz and /readyz."""

    address: str = "0.0.0.0"  # noqa: S104 - kubelet and Prometheus come from outside the pod
    """The address to listen on. The default is every address, because kubelet and Prometheus come from outside."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 takes any free port; the log says which."""


class LogSettings(SettingsGroup):
    """What the operator writes to standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, json otherwise."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The operator leaves out lines below this level."""


class WorkerSettings(SettingsGroup):
    """How many objects of a kind the operator works on at once."""

    jobs: int = Field(default=16, ge=1)
    """NosanaJobs."""
    markets: int = Field(default=4, ge=1)
    """NosanaMarkets."""
    runs: int = Field(default=16, ge=1)
    """Runs of markets, from verification to settlement."""


class PinSettings(SettingsGroup):
    """One service that keeps results on IPFS."""

    type: Literal["kubo", "pinata"]
    """Which pinning API the service speaks."""
    url: HttpUrl
    """The API's base URL, without the path of a method."""
    token_file: Path | None = None
    """pinata: a file with the account's JWT. kubo: a file with the Authorization header, if the node needs one."""


class IpfsSettings(SettingsGroup):
    """Where the operator fetches definitions and keeps results."""

    gateways: tuple[GatewayUrl, ...] = ()
    """Base URLs, tried in turn. They need not be trusted, because the operator verifies what they return. Private
    jobs whose definition is on IPFS use the gateways of all networks."""
    pin: tuple[PinSettings, ...] = ()
    """Pinning services, the preferred one first. One that keeps the result is enough."""


def _solana_address(text: str) -> str:
    if address_problem(text) is not None:
        raise ValueError("a Solana address is needed: 32 bytes in base58, 32 to 44 characters")
    return text


SolanaAddress = Annotated[str, AfterValidator(_solana_address)]


class NetworkSettings(SettingsGroup):
    """A Solana network. The operator knows the program ids of networks named "mainnet" and "devnet".

    (docs/protocol/jobs-program.md#programs-and-mints)
    """

    rpc: tuple[HttpUrl, ...] = Field(min_length=1)
    """JSON-RPC endpoints, http or https, the preferred one first. The operator moves on to the next when one fails
    or lags."""
    ws: tuple[WebSocketUrl, ...] = Field(min_length=1)
    """WebSocket endpoints, ws or wss, the preferred one first. Unset: the URLs of `rpc` with ws or wss."""
    program: SolanaAddress
    """The Jobs program's id. Known on mainnet and devnet."""
    nos_mint: SolanaAddress
    """The NOS token's mint. Known on mainnet and devnet."""
    staking_program: SolanaAddress = STAKING_PROGRAM
    """The default is the id that all of Nosana's clusters share."""
    rewards_program: SolanaAddress = REWARDS_PROGRAM
    """The default is the id that all of Nosana's clusters share."""
    ipfs: IpfsSettings = IpfsSettings()
    requests_per_second: int = Field(default=0, ge=0)
    """How many requests each RPC endpoint allows. 0: the operator sets itself no limit, and leaves an
    endpoint that answers 429 for the next."""
    fees: FeePolicy = FeePolicy()
    allow_insecure_logistics: bool = False
    """For sandboxes: the operator also calls posters of confidential jobs over http and at private addresses."""
    account_rent: int = Field(default=500_000, ge=0)
    """What the rent of a token account (0.00204 SOL) is worth, in NOS base units. A poster who closed their NOS
    account gets a new one at our cost only with a run that pays at least this much. 0: always."""


class Settings(SettingsGroup):
    """All settings of the operator."""

    cluster_name: str = "kubernetes"
    """Private jobs see it as `global.host`."""
    cluster_domain: str = "cluster.local"
    """The domain of the cluster's DNS; ops resolve each other's aliases below it."""
    watch_namespaces: tuple[DnsLabel, ...] = ()
    """Namespaces whose NosanaJobs and NosanaMarkets the operator serves; empty: all."""
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    workers: WorkerSettings = WorkerSettings()
    election: ElectionSettings = ElectionSettings()
    exposure: Exposure = Exposure()
    """How exposed ports of private jobs are reached, unless the NosanaJob says it itself."""
    nodes: NodeSettings = NodeSettings()
    fetch: Fetching = Fetching()
    volumes: Storage = Storage()
    isolation: Isolation = Isolation()
    networks: Mapping[DnsLabel, NetworkSettings] = {}
    """Solana networks, by the name in a NosanaMarket's `spec.network`."""


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
    """Settings from YAML text. Raises SettingsError with the path of each mistake and what is allowed there."""
    try:
        data = yaml.safe_load(text)
        as_json = json.dumps({} if data is None else _with_known_values(data), default=str)
    except yaml.YAMLError as error:
        # Only the position: the text around it could be a secret.
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise SettingsError(f"The settings are not YAML{where}; correct the file.") from None
    except (ValueError, TypeError, RecursionError):
        raise SettingsError("The settings hold a value that contains itself; write it out.") from None
    try:
        return Settings.model_validate_json(as_json, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SettingsError(f"Settings: {'. '.join(_sentences(error))}.") from None


def _with_known_values(data: Any) -> Any:
    """The file with what follows from a network's name and from its RPC endpoints filled in."""
    networks = data.get("networks") if isinstance(data, dict) else None
    if not isinstance(networks, dict):
        return data
    return {**data, "networks": {name: _known_network(name, value) for name, value in networks.items()}}


def _known_network(name: Any, network: Any) -> Any:
    if not isinstance(network, dict):
        return network
    complete = dict(network)
    if programs := NETWORK_PROGRAMS.get(name):
        complete = {"program": programs.jobs, "nosMint": programs.nos_mint, **complete}
    fees, urls = complete.get("fees", {}), complete.get("rpc")
    if name == "mainnet" and isinstance(fees, dict):
        # Without a priority fee transactions do not reliably get into mainnet's blocks.
        complete["fees"] = {"priority": "dynamic", **fees}
    if "ws" not in complete and isinstance(urls, list):
        complete["ws"] = [url.replace("http", "ws", 1) if isinstance(url, str) else url for url in urls]
    return complete


# -- what is wrong, for a person ----------------------------------------------------------------------------------

_NEEDED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "path_type": "a file's path",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}
_KINDS: Final = {dict: "a mapping", list: "a list", float: "a fraction", str: "text", int: "a whole number"}


def _sentences(error: ValidationError) -> list[str]:
    problems = error.errors(include_url=False)
    paths = [_path(problem["loc"]) for problem in problems]
    # `ws` follows from `rpc`: the mistake is named once.
    wrong_rpc = {path for path, problem in zip(paths, problems, strict=True) if path.endswith(".rpc")}
    return [
        f"{path or 'the file'}: {_problem(problem)}"
        for path, problem in zip(paths, problems, strict=True)
        if not (path.endswith(".ws") and path.removesuffix("ws") + "rpc" in wrong_rpc)
    ]


def _problem(problem: Mapping[str, Any]) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    match kind:
        case "missing":
            return "this key is needed"
        case "extra_forbidden":
            return f"there is no such key; allowed: {', '.join(_keys(problem['loc'][:-1]))}"
        case "literal_error":
            return f"one of {context['expected'].replace(' or ', ', ').replace(chr(39), '')} is needed"
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"at least {context['ge']} is needed"
        case "less_than_equal":
            return f"at most {context['le']} is allowed"
        case "too_short":
            return "at least one is needed"
        case _ if kind in _NEEDED:
            return f"{_NEEDED[kind]} is needed, this is {_kind(problem['input'])}"
        case _:
            return str(problem["msg"])


def _kind(value: Any) -> str:
    """What a value is, in words; never the value itself."""
    if value is None:
        return "empty"
    return "true or false" if isinstance(value, bool) else _KINDS.get(type(value), "something else")


def _path(location: tuple[int | str, ...]) -> str:
    """`networks.devnet.rpc[0]`. A key of the user's own choice is shortened, and loses the password of a URL."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += "." + re.sub(r"//[^/@]*@", "//…@", part)[:63]
    return path.removeprefix(".")


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the group at that place takes."""
    group: Any = Settings
    for part in location:
        if isinstance(group, type) and issubclass(group, BaseModel):
            group = next(f.annotation for f in group.model_fields.values() if f.alias == part)
        else:
            group = get_args(group)[1 if get_origin(group) is Mapping else 0]
    return [str(field.alias) for field in group.model_fields.values()]
