"""The list of resources to fetch, which the operator writes into the job's Secret (`workload/resources.py`).

{"mirrors": {"s3://bucket": "https://…"}, "room": 1000000000,
 "resources": [
   {"type": "S3", "folder": "/resources/0", "writable": true,
    "sources": [{"url": "https://…", "bucket": "b", "files": ["a"]}],
    "credentials": {"region": "…", "keyId": "…", "secret": "…"}},
   {"type": "HF", "folder": "/resources/1", "repo": "owner/name", "revision": "main",
    "files": ["a/b"], "token": "…"},
   {"type": "Ollama", "folder": "/resources/2", "model": "llama3.2"}],
 "folders": ["/resources/0/sub"]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nosana_operator.fetching.errors import FetchError


@dataclass(frozen=True, slots=True)
class Credentials:
    """Access keys for S3. If `region` is empty, it is looked up."""

    region: str
    key_id: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class S3Source:
    """A folder in a bucket. `files` None: all files below it."""

    url: str | None = None
    bucket: str | None = None
    files: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class S3:
    """Files from buckets, fetched into one folder."""

    folder: Path
    sources: tuple[S3Source, ...]
    credentials: Credentials | None = None
    writable: bool = False
    """The op may write to the folder, as any user."""


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """A model repository. `files` None: all files; `revision` None: the default branch."""

    folder: Path
    repo: str
    revision: str | None = None
    files: tuple[str, ...] | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Ollama:
    """A model from an Ollama registry."""

    folder: Path
    model: str


Resource = S3 | HuggingFace | Ollama


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that one op needs before it starts."""

    resources: tuple[Resource, ...]
    mirrors: Mapping[str, str] = field(default_factory=dict)
    """URL prefix → the prefix that replaces it."""
    room: int | None = None
    """Bytes that the op may store; None: limited by the disk alone."""
    folders: tuple[Path, ...] = ()
    """Folders to create in any case, as mount points of other volumes."""


def read_spec(file: Path) -> Spec:
    """Read the file. Raises FetchError when it is invalid: operator and fetch image have different versions."""
    try:
        return _spec(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"the list of resources to fetch cannot be read ({type(error).__name__}); use the fetch image of the "
            "operator's own version (fetch.image in its settings)"
        ) from None


def _spec(data: Mapping[str, Any]) -> Spec:
    return Spec(
        resources=tuple(_resource(item) for item in data["resources"]),
        mirrors=dict(data["mirrors"]),
        room=data["room"],
        folders=tuple(Path(folder) for folder in data["folders"]),
    )


def _resource(data: Mapping[str, Any]) -> Resource:
    folder = Path(data["folder"])
    match data["type"]:
        case "S3":
            keys = data.get("credentials")
            return S3(
                folder,
                tuple(
                    S3Source(s.get("url"), s.get("bucket"), _names(s.get("files"))) for s in data["sources"]
                ),
                Credentials(keys["region"], keys["keyId"], keys["secret"]) if keys else None,
                data.get("writable", False),
            )
        case "HF":
            return HuggingFace(
                folder, data["repo"], data.get("revision"), _names(data.get("files")), data.get("token")
            )
        case "Ollama":
            return Ollama(folder, data["model"])
    raise ValueError("an unknown type of resource")


def _names(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
