"""Translates pydantic's errors into problems that a person can act on: path, value, what is allowed, hint."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from nosana_operator.definition import model
from nosana_operator.definition.errors import Problem
from nosana_operator.json_paths import json_path, quoted

Loc = Sequence[str | int]

# Keys below which values may be secret: a problem names the type of such a value and never quotes it.
_SECRET_KEYS = frozenset(
    {
        "env",
        "variables",
        "headers",
        "body",
        "authentication",
        "IAM",
        "accessToken",
        "cmd",
        "entrypoint",
        "public_keys",
    }
)

_UNKNOWN_KEY_HINTS: Mapping[tuple[str, str], str] = {
    ("RunArgs", "output"): "it never had an effect, and today's validators refuse it: remove it",
    ("RunArgs", "required_vram"): "the market decides the GPU; "
    "as a note, write meta.system_requirements.vram_total_mb (MiB)",
    ("RunArgs", "results"): "`results` belongs to the op, beside `args`",
    ("RunArgs", "execution"): "`execution` belongs to the op, beside `args`",
    ("RunArgs", "timeout"): "write execution.timeout (seconds) beside `args`",
    ("RunArgs", "depends_on"): "write execution.depends_on beside `args`",
    ("RunArgs", "group"): "write execution.group beside `args`",
    ("RunArgs", "ports"): "ports are given in `expose`",
    ("RunArgs", "command"): "the command is given in `cmd`",
    ("RunArgs", model.REMOVE_IF_EMPTY): "this marker is an item of a list argument, not a key",
    ("RunArgs", "name"): "an op has either `image` (container/run) or `name` (container/create-volume)",
    ("VolumeArgs", "size"): "volumes have no size of their own; the host decides it",
    ("Operation", "name"): "an op is named by `id`",
    ("Operation", "image"): "`image` belongs in `args`",
    ("Operation", "cmd"): "`cmd` belongs in `args`",
    ("Operation", "env"): "`env` belongs in `args`",
    ("Operation", "expose"): "`expose` belongs in `args`",
    ("Operation", "depends_on"): "write execution.depends_on",
    ("Operation", "group"): "write execution.group",
    ("Operation", "timeout"): "write execution.timeout (seconds)",
    ("Global", "cmd"): "each op names its own `cmd`",
    ("Global", "expose"): "each op names its own `expose`",
    ("Global", "resources"): "each op names its own `resources`",
    ("HttpHealthCheck", "interval"): "checks run every 5 s until the first success, then every 30 s",
    ("HttpHealthCheck", "timeout"): "the host sets the time limits",
    ("WebSocketHealthCheck", "path"): "a websocket check has no path",
    ("S3BucketResource", "files"): "`bucket` and `files` exclude each other; write `url` and `files`",
    ("S3BucketsResource", "files"): "write `files` inside each item of `buckets`",
    ("S3BucketsResource", "bucket"): "`bucket` and `buckets` exclude each other",
    ("HuggingFaceResource", "allowWrite"): "only S3 resources can be mounted writable",
    ("OllamaResource", "allowWrite"): "only S3 resources can be mounted writable",
    ("VolumeMount", "readonly"): "volumes are always mounted writable",
    ("OnFailureRestart", "max_retries"): "the number of restarts is `restart_tries`",
    ("Definition", "resources"): "resources belong in the args of an op",
}

_MISSING_HINTS: Mapping[tuple[str, str], str] = {
    ("RunArgs", "image"): "each op names its own image; global.image has no effect",
    (
        "HttpHealthCheck",
        "continuous",
    ): "true checks every 30 s for as long as the op runs, false only until it is ready",
    (
        "WebSocketHealthCheck",
        "continuous",
    ): "true checks for as long as the op runs, false only until it is ready",
    ("S3Credentials", "REGION"): "all three of REGION, ACCESS_KEY_ID and SECRET_ACCESS_KEY are needed",
    ("S3Credentials", "ACCESS_KEY_ID"): "all three of REGION, ACCESS_KEY_ID and SECRET_ACCESS_KEY are needed",
    (
        "S3Credentials",
        "SECRET_ACCESS_KEY",
    ): "all three of REGION, ACCESS_KEY_ID and SECRET_ACCESS_KEY are needed",
    ("Logistics", "send"): "both directions are needed; results may go by api-listen with empty args",
    ("Logistics", "receive"): "both directions are needed; results may go by api-listen with empty args",
    ("ResultPattern", "logType"): 'to search every line, write the regular expression alone: "name": "regex"',
    ("Definition", "version"): 'write "version": "0.1"',
    ("Definition", "type"): 'write "type": "container"',
}


def problems(
    errors: Sequence[ErrorDetails], value: Any, *, root: type[BaseModel] = model.Definition
) -> list[Problem]:
    """Translate pydantic's errors about `value` (plain data for `root`), one problem per place, in order."""
    found: dict[str, Problem] = {}
    for error in errors:
        problem = _meta_problem(error["loc"]) or _problem(error, value, root)
        found.setdefault(problem.path, problem)
    return list(found.values())


def _meta_problem(loc: Loc) -> Problem | None:
    """For a free key of `meta`, pydantic lists every branch that did not fit; this is one sentence instead."""
    if len(loc) < 2 or loc[0] != "meta" or loc[1] in model.Meta.model_fields:
        return None
    return Problem(
        json_path(loc[:2]),
        "must be a string, a number, a list of those, or one level of object with those",
        "true, false, null and deeper nesting are refused; write a string",
    )


def _problem(error: ErrorDetails, value: Any, root: type[BaseModel]) -> Problem:
    parts, owner = _follow(error["loc"], value, root)
    path = json_path(parts)
    name = str(parts[-1]) if parts else ""
    kind, found = error["type"], error["input"]
    if kind == "missing":
        return _missing(path, name, owner, parts, value)
    if kind == "extra_forbidden":
        return _unknown_key(path, name, owner)
    if kind == "string_pattern_mismatch" and name == "id":
        return Problem(path, f"an op id may not hold a space, found {quoted(found)}", "use a hyphen instead")
    allowed = _allowed(error)
    return Problem(
        path, f"must be {allowed}, found {_describe(found, parts)}", _value_hint(found, parts, value, kind)
    )


def _allowed(error: ErrorDetails) -> str:
    ctx = error.get("ctx", {})
    match error["type"]:
        case "wrong_shape":
            return error["msg"]
        case "string_type" | "string_unicode":
            return "a string"
        case "bool_type":
            return "true or false"
        case "float_type" | "finite_number":
            return "a number"
        case "list_type":
            return "a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "an object"
        case "literal_error":
            expected = str(ctx["expected"]).replace("'", '"')
            return expected if " or " not in expected else f"one of {expected}"
        case "string_pattern_mismatch" if error["loc"][-1] == model.SPREAD:
            return "a whole literal such as %%ops.OP.results.NAME%%"
        case "string_pattern_mismatch":
            return "a port number or a whole literal such as %%global.variables.NAME%%"
        case "too_short":
            return "a list of at least one item"
        case "too_long":
            return f"a list of at most {ctx['max_length']} items"
        case _:
            return f"something else ({error['msg'][:80]})"


def _describe(found: Any, parts: Loc) -> str:
    if found is None:
        return "null"
    kind = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    name = kind.get(type(found), "an object")
    if isinstance(found, list | dict) or _SECRET_KEYS.intersection(map(str, parts)):
        return name
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, str):
        return quoted(found)
    text = str(found) if isinstance(found, float) or abs(found) < 10**20 else "too large to use"
    return f"the number {text}"


def _value_hint(found: Any, parts: Loc, value: Any, kind: str) -> str:
    """The remedy for a value of the wrong type, for common mistakes."""
    last, before = (parts[-1] if parts else ""), (parts[-2] if len(parts) > 1 else "")
    if found is None:
        return "leave the key out instead of writing null"
    if "expose" in parts and last != "expected_status":
        return _expose_hint(found, kind)
    if "env" in (last, before) or "variables" in (last, before):
        return "put the value in quotes" if isinstance(found, int | float) else ""
    if list(parts) == ["version"]:
        return (
            'write "0.1" in quotes' if isinstance(found, int | float) else "0.1 is the only version there is"
        )
    if last == "gpu":
        return "write true; the market or spec.gpu.count decides how many GPUs a job gets"
    if "cmd" in (last, before) or "entrypoint" in (last, before):
        return "put each word in quotes"
    if before == "resources" and isinstance(found, str):
        return "a literal cannot replace a resource; use a __spread__ marker"
    if before == "resources" and isinstance(found, dict):
        return f"found type {_describe(found.get('type'), ())}; types are case sensitive"
    if last == "policy" and isinstance(found, str):
        return "any other policy has no count: write its name alone, not an object"
    if last == "expected_status":
        return "remove the quotes"
    return ""


def _expose_hint(found: Any, kind: str) -> str:
    if isinstance(found, str):
        if kind == "literal_error" and found.upper() in ("GET", "POST", "PUT", "DELETE"):
            return "write the method in upper case"
        if found.isdigit():
            return "remove the quotes"
        if found.replace("-", "", 1).isdigit():
            return "ranges are no longer accepted: list every port, or use one"
        if "%%" in found:
            return "a literal must be the whole string"
    if isinstance(found, dict) and "type" in found:
        return f"found type {_describe(found['type'], ())}"
    return ""


def _missing(path: str, name: str, owner: type[BaseModel] | None, parts: Loc, value: Any) -> Problem:
    if owner is model.RunArgs and name == "image" and _op_type(parts, value) == "container/create-volume":
        return Problem(
            json_path([*parts[:-1], "name"]),
            "is required",
            "a create-volume op has the volume's name in args",
        )
    hint = _MISSING_HINTS.get((owner.__name__, name), "") if owner else ""
    return Problem(path, "is required", hint)


def _op_type(parts: Loc, value: Any) -> Any:
    return value["ops"][parts[1]].get("type") if parts[0] == "ops" else None


def _unknown_key(path: str, name: str, owner: type[BaseModel] | None) -> Problem:
    allowed = sorted(_fields(owner)) if owner else []
    listed = ", ".join(allowed) or "nothing else"
    hint = _UNKNOWN_KEY_HINTS.get((owner.__name__, name), "") if owner else ""
    if not hint:
        close = difflib.get_close_matches(name[:80].lower(), [key.lower() for key in allowed], n=1)
        named = next((key for key in allowed if close and key.lower() == close[0]), None)
        hint = f"did you mean {named}?" if named else ""
    return Problem(path, f"unknown key {quoted(name)}; allowed here: {listed}", hint)


@cache
def _fields(owner: type[BaseModel]) -> dict[str, Any]:
    """JSON key → annotation of a model."""
    return {info.alias or name: info.annotation for name, info in owner.model_fields.items()}


def _follow(loc: Loc, value: Any, root: type[BaseModel]) -> tuple[list[str | int], type[BaseModel] | None]:
    """Strip the tags of unions from pydantic's location, and find the model that owns its last key."""
    parts: list[str | int] = []
    owner: type[BaseModel] | None = root
    annotation: Any = root
    at = value
    last_owner = owner
    for part in loc:
        if isinstance(part, str) and part.startswith("<") and not (isinstance(at, dict) and part in at):
            annotation = _branch(annotation, part)
            owner = annotation if _is_model(annotation) else None
            continue
        parts.append(part)
        last_owner = owner
        annotation = _step(owner, annotation, part)
        owner = annotation if _is_model(annotation) else None
        at = _get(at, part)
    return parts, last_owner


def _get(at: Any, part: str | int) -> Any:
    try:
        return at[part]
    except (KeyError, IndexError, TypeError):
        return None


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _step(owner: type[BaseModel] | None, annotation: Any, part: str | int) -> Any:
    if owner is not None:
        return _bare(_fields(owner).get(str(part)))
    args = get_args(annotation)
    if get_origin(annotation) is list:
        return _bare(args[0])
    return _bare(args[1]) if get_origin(annotation) is dict else None


def _bare(annotation: Any) -> Any:
    """Unwrap `Annotated` and `| None`; unions of several branches are left to `_branch`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    branches = [arg for arg in get_args(annotation) if arg is not type(None)]
    if type(None) in get_args(annotation) and len(branches) == 1:
        return _bare(branches[0])
    return annotation


def _branch(annotation: Any, tag: str) -> Any:
    """The union's branch that pydantic chose: `<list>` is the list, any other tag names a model."""
    if tag == "<list>":
        return next(
            (_bare(arg) for arg in get_args(annotation) if get_origin(_bare(arg)) is list),
            None,
        )
    return getattr(model, tag.strip("<>"), None)
