"""Literals: `%%scope.name.path%%` in an op's arguments, and what each stands for.

(docs/protocol/job-definition.md#literals)

Text stays text: nothing that looks like JSON is parsed here, and a replaced value is never looked into again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from nosana_operator.definition.errors import Problem
from nosana_operator.definition.limits import MAX_ARGS_BYTES
from nosana_operator.errors import NosanaError
from nosana_operator.json_paths import quoted

# An op id may hold anything but a dot; it stops before the next `%%`, so one string may hold many literals.
# Only globals may do without a path: `%%ops.ID%%` is plain text.
_NAME = r"(?:(?!%%)[^.])+"
_LITERAL = re.compile(rf"%%(ops(?=\.{_NAME}\.)|globals?)\.({_NAME})(?:\.([A-Za-z0-9._-]+))?%%")

Place = tuple[str | int, ...]
"""Keys and list positions that lead to a value, outermost first."""
ResultValue = str | list[str | None]
"""What a `results` entry captured: one string per capture (None for a group that did not participate), or the
error message of an invalid regular expression."""

GLOBAL_NAMES: Final = ("job", "host", "project", "frps_address", "version")
"""NAME of `%%global.NAME%%`; each is a field of `Context`."""
OP_VALUES: Final[Mapping[str, str]] = {
    "host": "host",
    "endpoint": "endpoint.PORT",
    "deployment_endpoint": "deployment_endpoint",
    "container_ip": "container_ip",
    "results": "results.NAME",
}
"""What literals can read from an op: the first word of their path, and how the whole path is written."""
_PENDING: Final = frozenset({"container_ip", "results"})
"""Those of `OP_VALUES` that exist only once the op runs."""


@dataclass(frozen=True, slots=True)
class OpFacts:
    """What literals can read from one op; all but `results` and `container_ip` exist before anything starts.

    `host`: its DNS name inside the job. `endpoints`: port as text → public host name without scheme.
    """

    host: str
    endpoints: Mapping[str, str] = field(default_factory=dict)
    deployment_endpoint: str | None = None
    container_ip: str | None = None
    results: Mapping[str, ResultValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """The values of a job's literals. Addresses are base58; a private job has other names in their place."""

    job: str
    host: str
    project: str
    frps_address: str
    version: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    ops: Mapping[str, OpFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reference:
    """One literal as it stands in a text: `%%<scope>.<name>[.<path>]%%`, scope `ops` or `global`."""

    text: str
    scope: str
    name: str
    path: str

    @classmethod
    def of(cls, match: re.Match[str]) -> Reference:
        """Read a match of the grammar; `globals` is a synonym of `global`."""
        scope, name, path = match.groups(default="")
        return cls(match[0], "ops" if scope == "ops" else "global", name, path)

    @property
    def variable(self) -> str | None:
        """The name of the variable that this reads (`global.variables.X`, also `ops.variables.X`), if any."""
        return self.path if self.name == "variables" and self.path else None

    @property
    def op_value(self) -> tuple[str, str] | None:
        """What this reads from an op: a key of `OP_VALUES` and the port or result name; None: nothing there is."""
        kind, _, argument = self.path.partition(".")
        form = OP_VALUES.get(kind) if self.scope == "ops" else None
        return (kind, argument) if form is not None and bool(argument) == ("." in form) else None

    @property
    def is_pending(self) -> bool:
        """Whether this has a value only once the op that it names runs."""
        value = self.op_value
        return value is not None and value[0] in _PENDING


class UnresolvedLiteralError(NosanaError):
    """A literal has no value; `interpolate` adds the path to `problem`."""

    def __init__(self, reference: Reference, reason: str, hint: str = "") -> None:
        self.problem = Problem("", f"{quoted(reference.text, 120)} has no value: {reason}", hint)
        super().__init__(str(self.problem))


class GrowthError(NosanaError):
    """A text becomes too long when its literals are replaced."""


def references(text: str) -> Iterator[Reference]:
    """The literals in a text, in order."""
    if "%%" in text:
        yield from map(Reference.of, _LITERAL.finditer(text))


def unknown_global(name: str) -> tuple[str, str]:
    """Reason and hint for `%%global.NAME%%` with another name."""
    return f"no global value is called {quoted(name)}", f"there are: {', '.join(GLOBAL_NAMES)}"


def unknown_op(op_id: str) -> tuple[str, str]:
    """Reason and hint for a literal that names no op of the job."""
    return f"there is no op {quoted(op_id)}", "literals name ops by their id"


def unknown_op_value(path: str) -> tuple[str, str]:
    """Reason and hint for a path that is not in `OP_VALUES`."""
    return f"an op has no value {quoted(path)}", f"there are: {', '.join(OP_VALUES.values())}"


def texts(value: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every string in plain data with its place, in document order."""
    todo: list[tuple[Place, object]] = [(place, value)]
    while todo:
        path, item = todo.pop()
        if isinstance(item, str):
            yield path, item
        elif isinstance(item, dict):
            todo.extend(((*path, key), child) for key, child in reversed(item.items()))
        elif isinstance(item, list | tuple):
            todo.extend(((*path, at), item[at]) for at in range(len(item) - 1, -1, -1))


def without_references(text: str) -> str:
    """The text with a blank in place of each literal."""
    return _LITERAL.sub(" ", text)


def replace(text: str, context: Context, limit: int = MAX_ARGS_BYTES) -> ResultValue:
    """Replace every literal in `text`; a literal that is the whole text gives its value unchanged, list or text.

    Lists inside a longer text are joined with spaces. Raises UnresolvedLiteralError, and GrowthError before the
    outcome has more than `limit` characters.
    """
    if "%%" not in text:
        return text
    whole = _LITERAL.fullmatch(text)
    if whole:
        return resolve(Reference.of(whole), context)
    parts: list[str] = []
    size = at = 0
    for match in _LITERAL.finditer(text):
        value = as_text(resolve(Reference.of(match), context))
        size += match.start() - at + len(value)
        if size > limit:
            raise GrowthError(f"a text grows beyond {limit} characters when its literals are replaced")
        parts += text[at : match.start()], value
        at = match.end()
    return "".join((*parts, text[at:]))


def as_text(value: ResultValue) -> str:
    """One string of a literal's value: a list is joined with spaces."""
    return value if isinstance(value, str) else " ".join(item or "" for item in value)


def resolve(reference: Reference, context: Context) -> ResultValue:
    """The value of one literal. Raises UnresolvedLiteralError without one; an empty variable counts as none."""
    if reference.variable is not None and (reference.scope == "global" or "variables" not in context.ops):
        return _variable(reference, context, reference.variable)
    if reference.scope == "ops":
        return _of_op(reference, context)
    return _global(reference, context)


def _variable(reference: Reference, context: Context, name: str) -> str:
    value = context.variables.get(name)
    if not value:
        reason = (
            f"global.variables has no {quoted(name)}"
            if value is None
            else f"the variable {quoted(name)} is empty"
        )
        raise UnresolvedLiteralError(reference, reason, "give it a value in global.variables")
    if any(references(value)):
        raise UnresolvedLiteralError(
            reference, "the variable contains a literal itself", "variables are plain text"
        )
    return value


def _global(reference: Reference, context: Context) -> str:
    name = f"{reference.name}.{reference.path}" if reference.path else reference.name
    value: str | None = getattr(context, name) if name in GLOBAL_NAMES else None
    if not value:
        raise UnresolvedLiteralError(reference, *unknown_global(name))
    return value


def _of_op(reference: Reference, context: Context) -> ResultValue:
    facts = context.ops.get(reference.name)
    if facts is None:
        raise UnresolvedLiteralError(reference, *unknown_op(reference.name))
    value: ResultValue | None
    match reference.op_value:
        case ("host", _):
            value, reason, hint = facts.host, "the op has no host name", ""
        case ("container_ip", _):
            value = facts.container_ip
            reason, hint = "the op has no address yet", "let this op wait for it in depends_on"
        case ("deployment_endpoint", _):
            value = facts.deployment_endpoint
            reason, hint = "the job is not part of a deployment", "it needs deployment_id and an exposed port"
        case ("endpoint", port):
            value = facts.endpoints.get(port)
            reason, hint = f"the op exposes no port {port}", "only ports written in `expose` have an endpoint"
        case ("results", name):
            value = facts.results.get(name)
            reason = f"the op has no result {quoted(name)}"
            hint = "results exist once the op has ended, and only for the names in its `results`"
        case _:
            value, (reason, hint) = None, unknown_op_value(reference.path)
    if value is None:
        raise UnresolvedLiteralError(reference, reason, hint)
    return value
