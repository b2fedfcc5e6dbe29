"""The Nosana job definition as types: the published schema (2.2.x) and three keys that only newer nodes read.

Every object is closed, nothing is coerced, and `null` never stands for an absent field
(docs/protocol/job-definition.md#what-is-accepted). `rules` checks what types cannot express (unique ids, unique
ports, limits), so use `parse` or `validate` of this package and not `Definition.model_validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag
from pydantic_core import CoreSchema, core_schema

from nosana_operator.definition.literals import references, texts

T = TypeVar("T")

LITERAL_PATTERN = r"^%%(ops|global).[^%]+%%$"
REMOVE_IF_EMPTY = "__remove-if-empty__"
SPREAD = "__spread__"
PAIRS = "__pairs__"
OLLAMA_TARGET = "/root/.ollama/models"


class _NotNull:
    """The field may be absent, but not `null`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


Maybe = Annotated[T | None, _NotNull()]


class _JsonNumber:
    """A JSON number: no boolean, no text, finite; a whole number becomes an `int`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _whole,
            core_schema.float_schema(strict=True, allow_inf_nan=False),
            serialization=core_schema.simple_ser_schema("any"),
        )


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value


Number = Annotated[int | float, _JsonNumber()]


def _union(choose: Callable[[Any], str | None], expected: str) -> Discriminator:
    """Choose one branch by the value's shape, so that errors name that branch only."""

    def tag(value: Any) -> str | None:
        # `model_dump` passes model instances.
        return f"<{type(value).__name__}>" if isinstance(value, BaseModel) else choose(value)

    return Discriminator(tag, custom_error_type="wrong_shape", custom_error_message=expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text_or_list(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<list>" if isinstance(value, list) else None


TextOrList = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<list>")],
    _union(_text_or_list, "a string or a list of strings"),
]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


LiteralText = Annotated[str, Field(pattern=LITERAL_PATTERN)]


class Spread(_Closed):
    """A marker that is replaced by the items of the JSON array its literal yields
    (docs/protocol/job-definition.md#markers)."""

    spread: LiteralText = Field(alias=SPREAD, description="The literal whose JSON array is spliced in.")
    chunked: bool = Field(
        default=False,
        description="Join all captured strings before reading them as JSON (JSON split over log lines).",
    )


class HttpHealthCheck(_Closed):
    """Healthy when the answer's status equals `expected_status` exactly
    (docs/protocol/job-definition.md#health-checks)."""

    type: Literal["http"]
    path: str = Field(description="Path with its leading slash, asked on the container's port.")
    method: Literal["GET", "POST", "PUT", "DELETE"]
    expected_status: Number
    continuous: bool = Field(description="Check again every 30 s after the first success.")
    headers: Maybe[dict[str, str]] = Field(default=None, repr=False)
    body: Any = Field(
        default=None, repr=False, description="Sent with POST and PUT; anything but a string goes as JSON."
    )
    restart_on_failure: bool = Field(
        default=False, description="Restart the container when the check fails. Newer nodes only."
    )
    max_restarts: Maybe[Number] = Field(
        default=None, description="Bound on such restarts; absent means no bound. Newer nodes only."
    )


class WebSocketHealthCheck(_Closed):
    """Healthy when a WebSocket handshake on the port gives the expected response."""

    type: Literal["websocket"]
    expected_response: str
    continuous: bool = Field(description="Check again every 30 s after the first success.")
    restart_on_failure: bool = Field(
        default=False, description="Restart the container when the check fails. Newer nodes only."
    )
    max_restarts: Maybe[Number] = Field(
        default=None, description="Bound on such restarts; absent means no bound. Newer nodes only."
    )


def _by_type(tags: dict[str, str]) -> Callable[[Any], str | None]:
    def choose(value: Any) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else None
        return tags.get(kind) if isinstance(kind, str) else None

    return choose


HealthCheck = Annotated[
    Annotated[HttpHealthCheck, Tag("<HttpHealthCheck>")]
    | Annotated[WebSocketHealthCheck, Tag("<WebSocketHealthCheck>")],
    _union(
        _by_type({"http": "<HttpHealthCheck>", "websocket": "<WebSocketHealthCheck>"}),
        'a health check with type "http" or "websocket"',
    ),
]


class ExposedPort(_Closed):
    """A port reachable from outside the job."""

    port: Number = Field(description="1 to 65535.")
    type: Maybe[Literal["web", "api", "webapi", "websocket", "none"]] = Field(
        default=None, description="What speaks on the port; informational."
    )
    health_checks: Maybe[list[HealthCheck]] = Field(
        default=None,
        description="The op counts as ready, and the endpoint as online, when all pass in one round.",
    )


def _expose_item(value: Any) -> str | None:
    if _is_number(value):
        return "<number>"
    if isinstance(value, str):
        return "<literal>"
    if isinstance(value, dict):
        return "<Spread>" if SPREAD in value else "<ExposedPort>"
    return None


def _expose(value: Any) -> str | None:
    return "<list>" if isinstance(value, list) else _expose_item(value)


ExposeItem = Annotated[
    Annotated[Number, Tag("<number>")]
    | Annotated[LiteralText, Tag("<literal>")]
    | Annotated[Spread, Tag("<Spread>")]
    | Annotated[ExposedPort, Tag("<ExposedPort>")],
    _union(_expose_item, "a port number, a port object, a literal or a __spread__ marker"),
]
Expose = Annotated[
    Annotated[Number, Tag("<number>")]
    | Annotated[LiteralText, Tag("<literal>")]
    | Annotated[Spread, Tag("<Spread>")]
    | Annotated[ExposedPort, Tag("<ExposedPort>")]
    | Annotated[list[ExposeItem], Tag("<list>")],
    _union(_expose, "a port number, a port object, a literal, a __spread__ marker, or a list of those"),
]


class S3Credentials(_Closed):
    """Keys for a bucket that is not public; all three are needed (docs/protocol/job-definition.md#resources)."""

    region: str = Field(alias="REGION")
    access_key_id: str = Field(alias="ACCESS_KEY_ID", repr=False)
    secret_access_key: str = Field(alias="SECRET_ACCESS_KEY", repr=False)


class _S3(_Closed):
    type: Literal["S3"]
    target: str = Field(description="Absolute folder in the container.")
    url: Maybe[str] = Field(default=None, description="`https://…` or `s3://bucket/prefix`.")
    iam: Maybe[S3Credentials] = Field(default=None, alias="IAM")
    allow_write: bool = Field(default=False, alias="allowWrite", description="Mounted read-only unless true.")


class S3Resource(_S3):
    """Files under one S3 address."""

    files: Maybe[list[str]] = Field(
        default=None, description="Only these; absent means everything below `url`."
    )


class S3BucketResource(_S3):
    """One named bucket; `files` is not allowed with it."""

    bucket: str


class S3Source(_Closed):
    """One of several addresses that are fetched into the same folder."""

    url: str
    files: Maybe[list[str]] = None


class S3BucketsResource(_S3):
    """Several S3 addresses into one folder; `files` and `bucket` are not allowed with it."""

    buckets: list[S3Source]


class HuggingFaceResource(_Closed):
    """Files of a Hugging Face repository."""

    type: Literal["HF"]
    repo: str = Field(description="`owner/name`.")
    target: str = Field(description="Absolute folder in the container.")
    revision: Maybe[str] = None
    files: Maybe[list[str]] = None
    access_token: Maybe[str] = Field(default=None, alias="accessToken", repr=False)


class OllamaResource(_Closed):
    """A model of the Ollama registry, laid out as `ollama pull` leaves it."""

    type: Literal["Ollama"]
    model: str
    target: str = OLLAMA_TARGET


def _resource(value: Any) -> str | None:
    if isinstance(value, str):
        return "<marker>"
    if not isinstance(value, dict):
        return None
    if SPREAD in value:
        return "<Spread>"
    kind = value.get("type")
    if kind == "S3":
        if "buckets" in value:
            return "<S3BucketsResource>"
        return "<S3BucketResource>" if "bucket" in value else "<S3Resource>"
    return (
        {"HF": "<HuggingFaceResource>", "Ollama": "<OllamaResource>"}.get(kind)
        if isinstance(kind, str)
        else None
    )


Resource = S3Resource | S3BucketResource | S3BucketsResource | HuggingFaceResource | OllamaResource
ResourceItem = Annotated[
    Annotated[Literal["__remove-if-empty__"], Tag("<marker>")]
    | Annotated[Spread, Tag("<Spread>")]
    | Annotated[S3Resource, Tag("<S3Resource>")]
    | Annotated[S3BucketResource, Tag("<S3BucketResource>")]
    | Annotated[S3BucketsResource, Tag("<S3BucketsResource>")]
    | Annotated[HuggingFaceResource, Tag("<HuggingFaceResource>")]
    | Annotated[OllamaResource, Tag("<OllamaResource>")],
    _union(
        _resource,
        'a resource with type "S3", "HF" or "Ollama", a __spread__ marker, or "__remove-if-empty__"',
    ),
]


class VolumeMount(_Closed):
    """Mounts a volume that a `container/create-volume` op of the same job made."""

    name: str
    dest: str


class DockerCredentials(_Closed):
    """Login for the registry of this op's image."""

    username: Maybe[str] = None
    password: Maybe[str] = Field(default=None, repr=False)
    email: Maybe[str] = None
    server: Maybe[str] = None


class Authentication(_Closed):
    """Credentials an op needs before it can start."""

    docker: Maybe[DockerCredentials] = None


class OnFailureRestart(_Closed):
    """Restart after a failure, `restart_tries` times at most (absent: without bound)."""

    policy: Literal["on-failure"]
    restart_tries: Maybe[Number] = None


def _text_or_object(model: str) -> Callable[[Any], str | None]:
    def choose(value: Any) -> str | None:
        if isinstance(value, str):
            return "<text>"
        return model if isinstance(value, dict) else None

    return choose


RestartPolicy = Annotated[
    Annotated[Literal["no", "always", "unless-stopped", "on-failure"], Tag("<text>")]
    | Annotated[OnFailureRestart, Tag("<OnFailureRestart>")],
    _union(
        _text_or_object("<OnFailureRestart>"), 'a policy name or {"policy": "on-failure", "restart_tries": N}'
    ),
]


class RunArgs(_Closed):
    """What a `container/run` op runs (docs/protocol/job-definition.md#run-arguments)."""

    image: str = Field(description="Image reference, as for docker pull.")
    cmd: Maybe[TextOrList] = Field(
        default=None,
        description="A string runs in `/bin/sh -c`; a list replaces the image's CMD, one word per item.",
    )
    entrypoint: Maybe[TextOrList] = Field(
        default=None, description="Replaces the image's ENTRYPOINT; a string is one word, never split."
    )
    env: Maybe[dict[str, str]] = Field(default=None, repr=False)
    work_dir: Maybe[str] = None
    gpu: Maybe[bool] = Field(
        default=None, description="Give this op the job's GPU set; `global.gpu` wins when true."
    )
    expose: Maybe[Expose] = Field(default=None, description="Ports reachable from outside the job.")
    private: bool = Field(default=False, description="Random host names that only the owner is told.")
    resources: Maybe[list[ResourceItem]] = Field(
        default=None, description="Files fetched before the op starts."
    )
    volumes: Maybe[list[VolumeMount]] = None
    aliases: Maybe[TextOrList] = Field(
        default=None,
        description="More names of this op for the job's other ops (a string is comma separated).",
    )
    authentication: Maybe[Authentication] = None
    restart_policy: Maybe[RestartPolicy] = None
    trusted_execution_env: Maybe[bool] = Field(
        default=None,
        description="Run where not even the host sees inside; refused where none is offered. Newer nodes only.",
    )


class VolumeArgs(_Closed):
    """The volume that a `container/create-volume` op makes: shared by the job's ops, gone with the job."""

    name: str


def _args(value: Any) -> str:
    return (
        "<VolumeArgs>"
        if isinstance(value, dict) and "name" in value and "image" not in value
        else "<RunArgs>"
    )


Args = Annotated[
    Annotated[RunArgs, Tag("<RunArgs>")] | Annotated[VolumeArgs, Tag("<VolumeArgs>")],
    _union(_args, "the arguments of the op"),
]


LogType = Literal["stdin", "stdout", "stderr", "nodeerr"]


class ResultPattern(_Closed):
    """A regular expression in JavaScript's dialect, tried on the lines of these log types only."""

    regex: str
    log_type: list[LogType] = Field(
        alias="logType", min_length=1, max_length=4, json_schema_extra={"uniqueItems": True}
    )


Result = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[ResultPattern, Tag("<ResultPattern>")],
    _union(_text_or_object("<ResultPattern>"), "a regular expression or {regex, logType}"),
]


class Execution(_Closed):
    """When an op starts and stops (docs/protocol/job-definition.md#stages)."""

    group: Maybe[str] = Field(
        default=None, description="Stage; stages run one after the other in order of first appearance."
    )
    depends_on: Maybe[list[str]] = Field(
        default=None, description="Ops of the same stage that must be ready before this one starts."
    )
    stop_if_dependent_stops: bool = Field(
        default=False,
        description="Turns `depends_on` round: this op starts first, the ops it lists wait for it, and it"
        " is stopped when one of them ends.",
    )
    timeout: Maybe[Number] = Field(
        default=None, description="Seconds from the container's start; 0 or less means no limit."
    )


class Operation(_Closed):
    """One op of a job."""

    type: Literal["container/run", "container/create-volume"]
    id: str = Field(pattern="^[^ ]*$", description="Unique in the definition, without a space.")
    args: Args
    results: Maybe[dict[str, Result]] = Field(
        default=None, description="Values captured from the op's log, for later stages and for the result."
    )
    execution: Execution = Execution()

    @property
    def group(self) -> str:
        """The stage this op belongs to: its `execution.group`, else (absent or empty) its own id."""
        return self.execution.group or self.id


class Global(_Closed):
    """Defaults for all ops (docs/protocol/job-definition.md#global). Literals in here are not replaced."""

    image: Maybe[str] = Field(default=None, description="Has no effect: each op names its own image.")
    gpu: Maybe[bool] = Field(
        default=None, description="True gives every op the GPU set; an op cannot refuse."
    )
    entrypoint: Maybe[TextOrList] = None
    env: Maybe[dict[str, str]] = Field(default=None, repr=False, description="Under each op's own `env`.")
    work_dir: Maybe[str] = None
    variables: Maybe[dict[str, str]] = Field(
        default=None, repr=False, description="Values of `%%global.variables.NAME%%`."
    )


def _scalar(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<number>" if _is_number(value) else None


_Scalar = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[Number, Tag("<number>")],
    _union(_scalar, "a string or a number"),
]
MetaValue = _Scalar | list[_Scalar] | dict[str, _Scalar | list[_Scalar]]


class Meta(_Closed):
    """Notes about the definition (docs/protocol/job-definition.md#meta). Nothing here is a scheduling constraint."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, MetaValue] = Field(init=False)

    trigger: Maybe[str] = None
    system_resources: Maybe[dict[str, _Scalar]] = None


class LogisticArgs(_Closed):
    """Where a confidential definition or result travels."""

    endpoint: Maybe[str] = None


class Logistic(_Closed):
    """One direction of a confidential job (docs/protocol/job-definition.md#logistics)."""

    type: Literal["api", "api-listen"]
    args: LogisticArgs


class Logistics(_Closed):
    """How a confidential job's definition is fetched and its result delivered."""

    send: Logistic
    receive: Logistic


class Ssh(_Closed):
    """Keys that may open a shell in the job."""

    public_keys: Maybe[list[str]] = None


class Definition(_Closed):
    """A whole job definition. Fields left out stay `None` (or their documented default)."""

    version: Literal["0.1"]
    type: Literal["container"]
    ops: list[Operation]
    meta: Maybe[Meta] = None
    global_: Maybe[Global] = Field(default=None, alias="global")
    logistics: Maybe[Logistics] = None
    deployment_id: Maybe[str] = Field(default=None, description="Set by Nosana's deployment manager.")
    ssh: Maybe[Ssh] = None

    # What is needed again and again is computed once: with many ops and literals it takes long.

    @cached_property
    def size(self) -> int:
        """Bytes as JSON, about."""
        return len(self.model_dump_json(by_alias=True, exclude_unset=True))

    @cached_property
    def ops_with_host_literals(self) -> frozenset[str]:
        """Ids of the ops whose host name an argument of some op contains."""
        return frozenset(
            reference.name
            for op in self.ops
            for _, text in texts(op.args.model_dump(by_alias=True, exclude_unset=True))
            for reference in references(text)
            if reference.op_value == ("host", "")
        )

    @cached_property
    def volume_ops(self) -> Mapping[str, int]:
        """Volume name → index of the op that creates it; the first one when several do."""
        indexes: dict[str, int] = {}
        for index, op in enumerate(self.ops):
            if isinstance(op.args, VolumeArgs):
                indexes.setdefault(op.args.name, index)
        return indexes
