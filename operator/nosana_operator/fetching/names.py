"""Names that others chose, and where they may lie."""

from __future__ import annotations

from pathlib import PurePosixPath

from nosana_operator.fetching.errors import FetchError

_LONGEST_PART = 255


def safe_path(name: str, of: str) -> PurePosixPath:
    """The name as a path below the target. `of` says whose file it is.

    Raises FetchError when it would lie outside, or when no file can have that name.
    """
    parts = name.split("/")
    if (
        not name
        or "\0" in name
        or "\\" in name
        or any(part in ("", ".", "..") or len(part.encode()) > _LONGEST_PART for part in parts)
    ):
        raise FetchError(
            f"the file name {name[:200]!r} of {of} leads out of the target folder or is no file name; rename "
            "the file at its source, or leave it out with `files`"
        )
    return PurePosixPath(*parts)


def mirrored(url: str, mirrors: dict[str, str]) -> str:
    """The URL to ask in place of `url`. A mirror may itself have one; each is used once at most.

    The beginning has to end where a part of the URL does: `s3://models` is no mirror of `s3://models-2`.
    """
    left = dict(mirrors)
    while True:
        fitting = [start for start in left if url == start or url.startswith(start.rstrip("/") + "/")]
        if not fitting:
            return url
        start = max(fitting, key=len)
        url = left.pop(start).rstrip("/") + url[len(start.rstrip("/")) :]
