"""Fills the stand-in servers with small files under the real names that job definitions refer to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from nosana_operator.fetching.errors import FetchError
from nosana_operator.fetching.ollama import parse_model_name
from nosana_sandbox.resources.bucket import Bucket
from nosana_sandbox.resources.hub import Hub, Repository
from nosana_sandbox.resources.ollama_registry import Registry


def stock(definitions: Iterable[Mapping[str, Any]], bucket: Bucket, hub: Hub, registry: Registry) -> None:
    """Add content to bucket, hub and registry for everything that the definitions (parsed JSON) refer to."""
    definitions = list(definitions)
    for key in started_files(definitions):
        bucket.objects[key] = f"stand-in for {key}\n".encode()
    for resource in referenced_resources(definitions):
        match resource.get("type"):
            case "HF" if isinstance(resource.get("repo"), str):
                _stock_hub(hub, resource)
            case "Ollama" if isinstance(resource.get("model"), str):
                _stock_registry(registry, str(resource["model"]))


def started_files(definitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Keys of objects in a public bucket that an op's command line refers to, such as `./config/run.sh`."""
    for definition in definitions:
        for op in definition.get("ops") or ():
            args = op.get("args") or {}
            words = [w for field in ("entrypoint", "cmd") if isinstance(w := args.get(field), list)]
            folder = PurePosixPath("/", args.get("work_dir") or "")
            paths = [folder / word for line in words for word in line if isinstance(word, str)]
            for resource in args.get("resources") or ():
                match resource:
                    case {"type": "S3", "url": str(url), "target": str(target)}:
                        top = PurePosixPath("/", target)
                        for path in paths:
                            if path != top and path.is_relative_to(top):
                                yield f"{urlsplit(url).path.strip('/')}/{path.relative_to(top)}"


def _stock_hub(hub: Hub, resource: Mapping[str, Any]) -> None:
    repo = str(resource["repo"])
    files = resource.get("files")
    names = [name for name in files if isinstance(name, str)] if isinstance(files, list) else []
    existing = hub.repositories.get(repo)
    content = {name: f"stand-in for {repo}/{name}\n".encode() for name in names or ["README.md"]}
    token = resource.get("accessToken")
    hub.repositories[repo] = Repository(
        {**(existing.files if existing else {}), **content},
        revisions=frozenset(
            {*(existing.revisions if existing else ()), str(resource.get("revision") or "main")}
        ),
        token=token if isinstance(token, str) else None,
    )


def _stock_registry(registry: Registry, model: str) -> None:
    try:
        name = parse_model_name(model)
    except FetchError:
        return
    key = f"{name.path}:{name.tag}"
    if key not in registry.manifests:
        registry.add(key, f"stand-in for {key}\n".encode())


def referenced_resources(definitions: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """All resources of all ops. Literals of `global.variables` are replaced: model names often contain them."""
    for definition in definitions:
        variables = (definition.get("global") or {}).get("variables") or {}
        for op in definition.get("ops") or ():
            for resource in (op.get("args") or {}).get("resources") or ():
                if isinstance(resource, Mapping):
                    yield {key: _replaced(value, variables) for key, value in resource.items()}


def _replaced(value: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        for name, text in variables.items():
            value = value.replace(f"%%global.variables.{name}%%", str(text))
        return value
    return [_replaced(item, variables) for item in value] if isinstance(value, list) else value
