"""Literals: `%%scope.name.path%%` in an op's arguments, and what each stands for.

(docs/protocol/job-definition.md#literals)

Text stays text: nothing that looks like JSON is parsed here, and a replaced value is never looked into again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nosana_operator.definition.errors import Problem
from nosana_operator.errors import NosanaError
from nosana_operator.json_paths import quoted

# An op id may hold anything but a dot; it stops before the next `%%`, so one string may hold many literals.
# Only globals may do without a path: `%%ops.ID%%` is plain text.
_NAME = r"(?:(?!%%)[^.])+"
_LITERAL = re.compile(rf"%%(ops(?=\.{_NAME}\.)|globals?)\.({_NAME})(?:\.([A-Za-z0-9._-]+))?%%")

ResultValue = str | list[str | None]
"""What a `results` entry captured: one string per capture (None for a group that did not take part), or the
text of the error when its regular expression is not one."""


@dataclass(frozen=True, slots=True)
class OpFacts:
    """What literals may ask of one op; all but `results` and `container_ip` are known before anything starts.

    `host`: its DNS name inside the job. `endpoints`: port as text → public host name without scheme.
    """

    host: str
    endpoints: Mapping[str, str] = field(default_factory=dict)
    deployment_endpoint: str | None = None
    container_ip: str | None = None
    results: Mapping[str, ResultValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """Where literals get their values. Addresses are base58; a private job has other names instead."""

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
        """Read a match of the grammar; `globals` is another word for `global`."""
        scope, name, path = match.groups(default="")
        return cls(match[0], "ops" if scope == "ops" else "global", name, path)

    @property
    def variable(self) -> str | None:
        """The variable's name when this asks for one (`global.variables.X`, also `ops.variables.X`)."""
        return self.path if self.name == "variables" and self.path else None


class UnresolvedLiteralError(NosanaError):
    """A literal has no value; `problem` lacks only its place, which `interpolate` adds."""

    def __init__(self, reference: Reference, why: str, hint: str = "") -> None:
        self.problem = Problem("", f"{quoted(reference.text, 120)} has no value: {why}", hint)
        super().__init__(str(self.problem))


def references(text: str) -> Iterator[Reference]:
    """The literals in a text, in order."""
    if "%%" in text:
        yield from map(Reference.of, _LITERAL.finditer(text))


def without_references(text: str) -> str:
    """The text with a blank in place of each literal."""
    return _LITERAL.sub(" ", text)


def replace(text: str, context: Context) -> ResultValue:
    """Replace every literal in `text`; one that is the whole text gives its value as it is, list or text.

    Lists inside a longer text are joined with spaces. Raises UnresolvedLiteralError.
    """
    if "%%" not in text:
        return text
    whole = _LITERAL.fullmatch(text)
    if whole:
        return resolve(Reference.of(whole), context)
    return _LITERAL.sub(lambda match: as_text(resolve(Reference.of(match), context)), text)


def as_text(value: ResultValue) -> str:
    """One string of a literal's value: a list is joined with spaces."""
    return value if isinstance(value, str) else " ".join(item or "" for item in value)


def resolve(reference: Reference, context: Context) -> ResultValue:
    """The value of one literal. Raises UnresolvedLiteralError when it has none; an empty variable is none."""
    if reference.variable is not None and (reference.scope == "global" or "variables" not in context.ops):
        return _variable(reference, context, reference.variable)
    if reference.scope == "ops":
        return _of_op(reference, context)
    return _global(reference, context)


def _variable(reference: Reference, context: Context, name: str) -> str:
    value = context.variables.get(name)
    if not value:
        why = (
            f"global.variables has no {quoted(name)}"
            if value is None
            else f"the variable {quoted(name)} is empty"
        )
        raise UnresolvedLiteralError(reference, why, "give it a value in global.variables")
    if any(references(value)):
        raise UnresolvedLiteralError(
            reference, "the variable holds a literal itself", "variables are plain text"
        )
    return value


def _global(reference: Reference, context: Context) -> str:
    known = {
        "job": context.job,
        "host": context.host,
        "project": context.project,
        "frps_address": context.frps_address,
        "version": context.version,
    }
    name = f"{reference.name}.{reference.path}" if reference.path else reference.name
    value = known.get(name)
    if not value:
        raise UnresolvedLiteralError(
            reference, f"nothing global is called {quoted(name)}", f"there are: {', '.join(known)}"
        )
    return value


def _of_op(reference: Reference, context: Context) -> ResultValue:
    facts = context.ops.get(reference.name)
    if facts is None:
        raise UnresolvedLiteralError(
            reference, f"there is no op {quoted(reference.name)}", "literals name ops by their id"
        )
    kind, _, rest = reference.path.partition(".")
    value: ResultValue | None
    match kind:
        case "host" if not rest:
            value, why, hint = facts.host, "the op has no host name", ""
        case "container_ip" if not rest:
            value, why, hint = (
                facts.container_ip,
                "the op has no address yet",
                "let this op wait for it in depends_on",
            )
        case "deployment_endpoint" if not rest:
            value = facts.deployment_endpoint
            why, hint = "the job is not part of a deployment", "it needs deployment_id and an exposed port"
        case "endpoint" if rest:
            value = facts.endpoints.get(rest)
            why, hint = f"the op exposes no port {rest}", "only ports written in `expose` have an endpoint"
        case "results" if rest:
            value = facts.results.get(rest)
            why = f"the op has no result {quoted(rest)}"
            hint = "results are known when the op has ended, and only for the names in its `results`"
        case _:
            value, why = None, f"{quoted(reference.path)} is nothing of an op"
            hint = "there are: host, endpoint.PORT, deployment_endpoint, container_ip, results.NAME"
    if value is None:
        raise UnresolvedLiteralError(reference, why, hint)
    return value
