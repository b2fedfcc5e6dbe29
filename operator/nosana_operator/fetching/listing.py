"""What one resource consists of, before anything of it is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

Algorithm = Literal["md5", "sha256", "git-sha1"]


@dataclass(frozen=True, slots=True)
class Digest:
    """A hash that the content has to have, in lower-case hex. `git-sha1` is Git's hash of a blob."""

    algorithm: Algorithm
    value: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to GET. Headers and the URL's query may hold credentials: they are never shown."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def always(request: Request) -> Callable[[], Request]:
    """For files whose request never runs out."""
    return lambda: request


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file."""

    name: str
    """For people: what it is called where it comes from."""
    path: PurePosixPath
    """Below the resource's folder."""
    request: Callable[[], Request]
    """Made anew for each attempt: signatures run out."""
    size: int | None = None
    """Bytes, as listed; None: not known before it is asked for."""
    digest: Digest | None = None
    remedy: str = "check the name"
    """What to do when the other side says that there is no such file, or refuses it."""
    md5_etag: bool = False
    """From an S3 server: its ETag may be the content's MD5."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of one resource."""

    files: tuple[RemoteFile, ...]
    documents: Mapping[PurePosixPath, bytes] = field(default_factory=dict)
    """Small files that came with the listing."""
