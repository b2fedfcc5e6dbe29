"""File names and URLs from outside: safe paths below the target, and mirrors."""

from __future__ import annotations

from pathlib import PurePosixPath

from nosana_operator.fetching.errors import FetchError

_LONGEST_PART = 255


def safe_path(name: str, of: str) -> PurePosixPath:
    """The name as a path below the target. `of` is the resource, for the error message.

    Raises FetchError when the path would be outside the target, or when no file can have this name.
    """
    parts = name.split("/")
    if (
        not name
        or "\0" in name
        or "\\" in name
        or any(part in ("", ".", "..") or len(part.encode()) > _LONGEST_PART for part in parts)
    ):
        raise FetchError(
            f"the file name {name[:200]!r} of {of} leads out of the target folder or is not a valid file name; rename "
            "the file at its source, or select other files with `files`"
        )
    return PurePosixPath(*parts)


def mirrored(url: str, mirrors: dict[str, str]) -> str:
    """The URL to request in place of `url`. A mirror may have a mirror itself; each is used at most once.

    A prefix has to end where a segment of the URL ends: `s3://models` does not apply to `s3://models-2`.
    """
    unused = dict(mirrors)
    while True:
        prefixes = [prefix for prefix in unused if url == prefix or url.startswith(prefix.rstrip("/") + "/")]
        if not prefixes:
            return url
        prefix = max(prefixes, key=len)
        url = unused.pop(prefix).rstrip("/") + url[len(prefix.rstrip("/")) :]
