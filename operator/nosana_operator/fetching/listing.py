"""The files of one resource, as listed before any of them is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

Algorithm = Literal["md5", "sha256", "git-sha1"]


@dataclass(frozen=True, slots=True)
class Digest:
    """The expected hash of a file, in lower-case hex. `git-sha1` is Git's hash of a blob."""

    algorithm: Algorithm
    value: str


@dataclass(frozen=True, slots=True)
class Request:
    """The URL and headers of a GET. Headers and the URL's query may contain credentials and are never logged."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def always(request: Request) -> Callable[[], Request]:
    """For files whose request does not expire."""
    return lambda: request


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file."""

    name: str
    """The name at the source, for messages."""
    path: PurePosixPath
    """The path below the resource's folder."""
    request: Callable[[], Request]
    """Called for each attempt, because signatures expire."""
    size: int | None = None
    """Bytes, as listed; None if the listing has no size."""
    digest: Digest | None = None
    remedy: str = "check the name"
    """What the author can do when the server does not have the file or refuses it."""
    may_be_missing: bool = False
    """Whether to skip the file if the server does not have it."""
    md5_etag: bool = False
    """Whether the ETag may be the content's MD5, as on S3 servers."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of one resource."""

    files: tuple[RemoteFile, ...]
    documents: Mapping[PurePosixPath, bytes] = field(default_factory=dict)
    """Small files that the listing itself contained, by path below the resource's folder."""
