"""S3: resolves an address to a bucket, lists its objects, and makes the request for each.

obstore lists and signs. Requests to public buckets have no signature.

A bucket has no folders, so consoles and tools create markers: objects of 0 bytes whose key ends with a slash. obstore
removes that slash from listed keys, and a marker then looks like an empty file (`markers_removed`):

    key in the bucket      listed by obstore      fetched
    m/sub/        0 B      m/sub        0 B       no: it is the folder of m/sub/f
    m/sub/f       5 B      m/sub/f      5 B       yes
    m/empty/      0 B      m/empty      0 B       GET m/empty is 404: no file, skipped
    m/flag        0 B      m/flag       0 B       GET m/flag is 200: an empty file
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import S3Store

from nosana_operator.fetching.errors import FetchError, Interrupted
from nosana_operator.fetching.listing import Digest, Listing, RemoteFile, Request, always
from nosana_operator.fetching.names import mirrored, safe_path
from nosana_operator.fetching.spec import S3, Credentials, S3Source
from nosana_operator.fetching.web import Web

_AWS_PATH_STYLE: Final = re.compile(r"s3[.-](?:([a-z0-9-]+)\.)?amazonaws\.com(?:\.cn)?")
_AWS_VIRTUAL: Final = re.compile(r"(?P<bucket>.+)\.s3[.-](?:([a-z0-9-]+)\.)?amazonaws\.com(?:\.cn)?")
_MD5: Final = re.compile(r'"?([0-9a-f]{32})"?')
_INVALID_KEY: Final = re.compile(r'Path "(.+?)"(?: contained|: Encountered)', re.DOTALL)
_STATUS: Final = re.compile(r"status code: (\d{3})\b")
_INVALID_PATH: Final = (InvalidPathError, ValueError)
"""obstore's errors for a listed key, and for a prefix, that is not one of its paths."""
_SIGNATURE_LIFETIME: Final = timedelta(hours=12)
_DEFAULT_REGION: Final = "us-east-1"
"""The region in signatures for servers without regions."""


class InvalidKey(FetchError):
    """An object's key that cannot be a file name."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in a bucket. `bucket` None: the endpoint's host is the bucket (virtual-hosted style)."""

    endpoint: str
    bucket: str | None
    prefix: str
    region: str | None = None
    """None: the address does not contain a region."""

    def url(self, key: str) -> str:
        """The URL of an object, without a signature."""
        parts = [self.endpoint, *([self.bucket] if self.bucket else []), quote(key, safe="/-_.~")]
        return "/".join(parts)

    def key(self, name: str) -> str:
        """The key of the file with this name below the folder."""
        return f"{self.prefix}/{name}" if self.prefix else name


def places(source: S3Source, *, signed: bool) -> tuple[Place, ...]:
    """The places that the address may mean, most likely first. Pure.

    `s3://bucket/…` is AWS. An https address is ambiguous: its first path segment may be the bucket or a folder. It is
    usually the bucket on servers that require keys, and usually a folder on public hosts.
    Raises FetchError when the address is invalid.
    """
    if source.url is None:
        if source.bucket is None:
            raise FetchError("an S3 resource has no address; set its url, bucket or buckets")
        return (_aws(source.bucket, ""),)
    parts = urlsplit(source.url)
    path = unquote(parts.path).strip("/")
    if parts.scheme == "s3" and parts.netloc:
        return (_aws(parts.netloc, path),)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise FetchError(
            f"{_without_secrets(source.url)!r} is not the address of a bucket; write https://… without a query, or "
            "s3://bucket/folder"
        )
    endpoint = f"{parts.scheme}://{parts.netloc}"
    if virtual := _AWS_VIRTUAL.fullmatch(parts.hostname):
        return (Place(endpoint, None, path, virtual[2]),)
    first, _, rest = path.partition("/")
    if source.bucket is not None:
        return (Place(endpoint, source.bucket, rest if first == source.bucket else path),)
    path_style = (Place(endpoint, first, rest),) if first else ()
    if match := _AWS_PATH_STYLE.fullmatch(parts.hostname):
        return tuple(replace(place, region=match[1]) for place in path_style)
    whole = (Place(endpoint, None, path),)
    candidates = (*path_style, *whole) if signed else (*whole, *path_style)
    if not candidates:
        raise FetchError(f"{_without_secrets(source.url)!r} has no bucket; add it to the url, or set bucket")
    return candidates


def _aws(bucket: str, prefix: str) -> Place:
    return Place("https://s3.amazonaws.com", bucket, prefix)


def list_s3(resource: S3, mirrors: dict[str, str], web: Web) -> Listing:
    """The files of all sources. If two have the same path, the later source wins. Raises FetchError."""
    files: dict[PurePosixPath, RemoteFile] = {}
    for source in resource.sources:
        source = replace(source, url=mirrored(source.url, mirrors) if source.url else None)
        for file in _source_files(source, resource.credentials, web):
            files[file.path] = file
    return Listing(tuple(markers_removed(files.values())))


def markers_removed(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The listed files without folder markers. Pure.

    An empty file is a marker if its path is a folder of another file, or also that of a file with bytes. Every other
    one may be the marker of an empty folder: it is skipped if the server does not have it.
    """
    listed = list(files)
    taken = {folder for file in listed for folder in file.path.parents}
    taken |= {file.path for file in listed if file.size}
    return [
        replace(file, may_be_missing=file.size == 0)
        for file in listed
        if file.size != 0 or file.path not in taken
    ]


def _source_files(source: S3Source, credentials: Credentials | None, web: Web) -> Iterator[RemoteFile]:
    what = _without_secrets(source.url) if source.url else f"bucket {source.bucket!r}"
    candidates = [
        _in_region(place, credentials, web) for place in places(source, signed=credentials is not None)
    ]
    if source.files:
        place = (
            _first_that_lists(candidates, credentials)
            if credentials and len(candidates) > 1
            else candidates[0]
        )
        for name in source.files:
            path = safe_path(name, what)
            yield _file(place, place.key(name), path, credentials, what)
        return
    problem: FetchError | None = None
    for place in candidates:
        try:
            files = markers_removed(_listed(place, credentials, what))
        except InvalidKey:
            raise
        except FetchError as error:
            problem = problem or error
            continue
        if files:
            yield from files
            return
    # The address may be the URL of a single file.
    place = candidates[0]
    name = place.prefix.rpartition("/")[2]
    if not name:
        raise problem or _empty(what)
    file = _file(place, place.prefix, safe_path(name, what), credentials, what)
    try:
        with web.get(file.request()) as response:
            if response.status == 200 and not response.headers.get("Content-Type", "").startswith(
                "text/html"
            ):
                yield file
                return
            response.close()
    except Interrupted as error:
        raise problem or error from None
    raise problem or _empty(what)


def _empty(what: str) -> FetchError:
    return FetchError(f"{what} has no files; check the folder's name, which is case-sensitive")


def _first_that_lists(candidates: list[Place], credentials: Credentials | None) -> Place:
    """The first place whose listing the server allows, else the first."""
    for place in candidates:
        try:
            next(iter(_store(place, credentials).list(place.prefix or None, chunk_size=1)), None)
        except _INVALID_PATH:
            return place
        except BaseError:
            continue
        return place
    return candidates[0]


def _listed(place: Place, credentials: Credentials | None, what: str) -> Iterator[RemoteFile]:
    """All files below the place. Raises FetchError."""
    try:
        for batch in _store(place, credentials).list(place.prefix or None):
            for meta in batch:
                key = str(meta["path"])
                name = key[len(place.prefix) :].lstrip("/") if place.prefix else key
                if not name:
                    continue  # the marker of the folder itself
                file = _file(place, key, safe_path(name, what), credentials, what)
                md5 = _MD5.fullmatch(meta["e_tag"] or "")
                yield replace(file, size=meta["size"], digest=Digest("md5", md5[1]) if md5 else None)
    except (BaseError, ValueError) as error:
        raise _listing_error(error, credentials, what) from None


def _listing_error(error: Exception, credentials: Credentials | None, what: str) -> FetchError:
    """What obstore's error means. Its text is not shown, because it may contain the signature."""
    text = str(error)
    if isinstance(error, _INVALID_PATH) and (match := _INVALID_KEY.search(text)):
        return _invalid_key(match[1], what)
    # A listing fails with GenericError whatever the status; only the text has it.
    status = match[1] if (match := _STATUS.search(text)) else None
    if status in ("401", "403"):
        return FetchError(
            f"the server refuses to list {what} (HTTP {status}); "
            + (
                "check the keys and the REGION of IAM, and that the key may list the bucket"
                if credentials
                else "set IAM when the bucket is private, or list its files in `files`"
            )
        )
    if status == "404":
        return FetchError(f"there is no bucket at {what} (HTTP 404); check its name")
    reason = f"the server responds with HTTP {status}" if status else "the server cannot be reached"
    return FetchError(
        f"{what} cannot be listed: {reason}, or it is not an S3 server; check the url, or list its files in `files`"
    )


def _invalid_key(key: str, what: str) -> InvalidKey:
    return InvalidKey(
        f"the key {key[:200]!r} of {what} cannot be a file name: it has an empty part, a part of dots, or a control "
        "character; rename the object, or list the other files in `files`"
    )


def _store(place: Place, credentials: Credentials | None) -> S3Store:
    options: dict[str, str] = (
        {"access_key_id": credentials.key_id, "secret_access_key": credentials.secret} if credentials else {}
    )
    return S3Store(
        place.bucket or "-",
        endpoint=place.endpoint,
        region=place.region or _DEFAULT_REGION,
        virtual_hosted_style_request=place.bucket is None,
        skip_signature=credentials is None,
        client_options={"allow_http": True, "timeout": timedelta(seconds=30)},
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
        **options,  # type: ignore[arg-type]
    )


def _file(
    place: Place, key: str, path: PurePosixPath, credentials: Credentials | None, what: str
) -> RemoteFile:
    if credentials is None:
        request = always(Request(place.url(key)))
        remedy = f"check the name and that {what} is public; a private bucket needs IAM"
    else:
        store = _store(place, credentials)

        def request() -> Request:
            try:
                return Request(obstore.sign(store, "GET", key, _SIGNATURE_LIFETIME))
            except TypeError:
                # obstore's error for every key that is not one of its paths.
                raise _invalid_key(key, what) from None

        remedy = "check its name, and the keys, the region and the rights of IAM"
    return RemoteFile(key, path, request, remedy=remedy, md5_etag=True)


def _in_region(place: Place, credentials: Credentials | None, web: Web) -> Place:
    """The place with its region. AWS serves a bucket only in its region, and names it in a response header."""
    region = place.region or (credentials.region if credentials else None)
    if _AWS_PATH_STYLE.fullmatch(urlsplit(place.endpoint).hostname or "") and place.bucket:
        if not region:
            with web.get(Request(place.url(""))) as response:
                region = response.headers.get("x-amz-bucket-region")
                response.close()
        if region and place.region is None:
            return replace(place, endpoint=f"https://s3.{region}.amazonaws.com", region=region)
    return replace(place, region=region or None)


def _without_secrets(url: str) -> str:
    """The address without user, password and query, which may be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:500]
