"""S3 resources: a table of addresses, and fetches from moto and from a plain web server."""

from __future__ import annotations

import urllib.parse
import urllib.request
from pathlib import PurePosixPath

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from nosana_operator.fetching.errors import FetchError
from nosana_operator.fetching.listing import RemoteFile, Request, always
from nosana_operator.fetching.names import mirrored, safe_path
from nosana_operator.fetching.s3 import Place, markers_removed, places
from nosana_operator.fetching.spec import S3Source
from nosana_sandbox.resources.bucket import Bucket
from support.fetching import Fetch, Site, content_of, retried_files

AWS = "https://s3.amazonaws.com"
R2 = "https://acc.r2.cloudflarestorage.com"


@pytest.mark.parametrize(
    ("source", "signed", "expected"),
    [
        (S3Source("s3://b/p/q"), False, [Place(AWS, "b", "p/q")]),
        (S3Source("s3://b"), True, [Place(AWS, "b", "")]),
        (S3Source(bucket="b"), True, [Place(AWS, "b", "")]),
        (S3Source(f"{R2}/b/p", "b"), True, [Place(R2, "b", "p")]),
        (S3Source(f"{R2}/p", "b"), True, [Place(R2, "b", "p")]),
        (S3Source(f"{R2}/b/p"), True, [Place(R2, "b", "p"), Place(R2, None, "b/p")]),
        (
            S3Source("https://m.io/x/1"),
            False,
            [Place("https://m.io", None, "x/1"), Place("https://m.io", "x", "1")],
        ),
        (S3Source("https://m.io/"), False, [Place("https://m.io", None, "")]),
        (
            S3Source("https://b.s3.eu-west-1.amazonaws.com/p/"),
            False,
            [Place("https://b.s3.eu-west-1.amazonaws.com", None, "p", "eu-west-1")],
        ),
        (
            S3Source("https://s3.eu-west-1.amazonaws.com/b/p"),
            False,
            [Place("https://s3.eu-west-1.amazonaws.com", "b", "p", "eu-west-1")],
        ),
        (
            S3Source("http://h:9000/b/a%20b"),
            True,
            [Place("http://h:9000", "b", "a b"), Place("http://h:9000", None, "b/a b")],
        ),
    ],
)
def test_an_address_means_these_places(source: S3Source, signed: bool, expected: list[Place]) -> None:
    assert list(places(source, signed=signed)) == expected


@pytest.mark.parametrize(
    "source",
    [
        S3Source(),
        S3Source("ftp://x/y"),
        S3Source("models/x"),
        S3Source("https://user:pw@h/x"),
        S3Source("s3:///x"),
    ],
)
def test_invalid_addresses_are_refused(source: S3Source) -> None:
    with pytest.raises(FetchError) as error:
        places(source, signed=False)
    assert "pw" not in str(error.value)


MIRRORS = {"s3://bucket": "https://models.io", "https://models.io": "http://here:1/m/"}


@pytest.mark.parametrize(
    ("url", "requested"),
    [
        ("s3://bucket/a", "http://here:1/m/a"),
        ("s3://bucket", "http://here:1/m"),
        ("s3://bucket-2/a", "s3://bucket-2/a"),
        ("https://models.io/x", "http://here:1/m/x"),
        ("https://models.io.evil/x", "https://models.io.evil/x"),
    ],
)
def test_mirrors(url: str, requested: str) -> None:
    assert mirrored(url, MIRRORS) == requested


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "", "a//b", "a\0b", "..\\x", "x" * 300, "a/.", "a/"]
)
def test_names_outside_the_target_are_refused(name: str) -> None:
    with pytest.raises(FetchError, match="leads out of the target folder"):
        safe_path(name, "somewhere")


# -- moto -------------------------------------------------------------------------------------------------

OBJECTS = {"folder/a.txt": b"a", "folder/deep/b c+ü.bin": b"b" * 500_000, "other/c": b"c"}
HEADERS = {"x-amz-acl": "public-read", "Content-Type": "application/octet-stream"}
KEYS = {"region": "us-east-1", "keyId": "AKIAKEY", "secret": "very/secret"}


@pytest.fixture
def bucket(moto: str) -> str:
    """A new public bucket with OBJECTS."""
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", data=b"", method="POST")).close()
    _put(f"{moto}/models", b"")
    for key, content in OBJECTS.items():
        _put(f"{moto}/models/{urllib.parse.quote(key)}", content)
    return moto


def _put(url: str, content: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(url, content, HEADERS, method="PUT")).close()


def s3(*sources: dict[str, object], keys: object = None, **more: object) -> dict[str, object]:
    return {"type": "S3", "sources": list(sources), **({"credentials": keys} if keys else {}), **more}


@pytest.mark.contract
@pytest.mark.parametrize("keys", [None, KEYS], ids=["public", "signed"])
async def test_folder_of_a_bucket(fetch: Fetch, bucket: str, keys: object) -> None:
    result = await fetch(s3({"url": f"{bucket}/models/folder"}, keys=keys))
    assert (result.code, result.message) == (0, "")
    assert content_of(fetch.folder()) == {"a.txt": b"a", "deep/b c+ü.bin": b"b" * 500_000}
    assert result.lines[-1]["total"] == 500_001
    assert "very/secret" not in str(result.lines)


@pytest.mark.contract
async def test_other_forms_of_addresses(fetch: Fetch, bucket: str) -> None:
    result = await fetch(
        s3({"url": f"{bucket}/models", "files": ["other/c", "folder/a.txt"]}, keys=KEYS),
        s3({"url": bucket, "bucket": "models"}, keys=KEYS),
        s3(
            {"url": f"{bucket}/models/folder/deep"},
            {"url": f"{bucket}/models", "files": ["other/c"]},
            writable=True,
        ),
        s3({"url": f"{bucket}/models/folder/a.txt"}),
    )
    assert (result.code, result.message) == (0, "")
    assert content_of(fetch.folder(0)) == {"other/c": b"c", "folder/a.txt": b"a"}
    assert content_of(fetch.folder(1)) == OBJECTS
    assert content_of(fetch.folder(2)) == {"b c+ü.bin": b"b" * 500_000, "other/c": b"c"}
    assert content_of(fetch.folder(3)) == {"a.txt": b"a"}
    assert (fetch.folder(2) / "other").stat().st_mode & 0o777 == 0o777
    assert (fetch.folder(2) / "other/c").stat().st_mode & 0o777 == 0o666
    assert (fetch.folder(0) / "other/c").stat().st_mode & 0o777 == 0o644


@pytest.mark.contract
async def test_missing_folders_and_files(fetch: Fetch, bucket: str) -> None:
    result = await fetch(s3({"url": f"{bucket}/models/nothing"}))
    assert result.code == 1
    assert "nothing" in result.message
    result = await fetch(s3({"url": f"{bucket}/models", "files": ["no/such"]}, keys=KEYS))
    assert "there is no no/such (HTTP 404); check its name" in result.message


@pytest.mark.contract
@pytest.mark.parametrize("keys", [None, KEYS], ids=["public", "signed"])
async def test_folder_markers_are_skipped(fetch: Fetch, bucket: str, keys: object) -> None:
    """As consoles create them with "Create folder"."""
    for key in ("folder/", "folder/deep/", "folder/empty/", "folder/flag", "folder/both/"):
        _put(f"{bucket}/models/{key}", b"")
    _put(f"{bucket}/models/folder/both", b"a file beside its marker")
    result = await fetch(s3({"url": f"{bucket}/models/folder"}, keys=keys))
    assert (result.code, result.message) == (0, "")
    assert content_of(fetch.folder()) == {
        "a.txt": b"a",
        "both": b"a file beside its marker",
        "deep/b c+ü.bin": b"b" * 500_000,
        "flag": b"",
    }
    assert (result.lines[-1]["files"], result.lines[-1]["of"]) == (5, 5)


@pytest.mark.contract
async def test_a_marker_in_another_source_is_skipped_too(fetch: Fetch, bucket: str) -> None:
    _put(f"{bucket}/models/other/deep/", b"")
    result = await fetch(s3({"url": f"{bucket}/models/folder"}, {"url": f"{bucket}/models/other"}))
    assert (result.code, result.message) == (0, "")
    assert set(content_of(fetch.folder())) == {"a.txt", "deep/b c+ü.bin", "c"}


@pytest.mark.contract
async def test_a_listed_file_with_bytes_has_to_be_there(fetch: Fetch, public_bucket: Bucket) -> None:
    public_bucket.objects = {"m/w": b"w", "m/v": b"v"}
    public_bucket.faults.status["/m/w"] = [404]
    result = await fetch(s3({"url": "https://models.test/m"}))
    assert (result.code, "there is no m/w (HTTP 404)" in result.message) == (1, True)


def test_markers_and_empty_files() -> None:
    def listed(path: str, size: int | None) -> RemoteFile:
        return RemoteFile(path, PurePosixPath(path), always(Request("http://x")), size)

    files = [
        listed("a", 0), listed("a/b/c", 5), listed("a/b", 0), listed("d", 0), listed("e", 0), listed("e", 7),
        listed("f", None), listed("g", 3), listed("g/h", 4),
    ]  # fmt: skip
    kept = [(file.name, file.size, file.may_be_missing) for file in markers_removed(files)]
    assert kept == [
        ("a/b/c", 5, False), ("d", 0, True), ("e", 7, False), ("f", None, False), ("g", 3, False), ("g/h", 4, False),
    ]  # fmt: skip


@pytest.mark.contract
@pytest.mark.parametrize("keys", [None, KEYS], ids=["public", "signed"])
@pytest.mark.parametrize(
    "key", ["folder/x//b.txt", "folder/x/./b", "folder/x/../b", "folder/t\tab", "folder/x\x01y"]
)
async def test_a_key_that_cannot_be_a_file_name_is_named(
    fetch: Fetch, bucket: str, key: str, keys: object
) -> None:
    _put(f"{bucket}/models/{urllib.parse.quote(key)}", b"x")
    result = await fetch(s3({"url": f"{bucket}/models/folder"}, keys=keys))
    assert result.code == 1
    assert f"the key {key!r} of {bucket}/models/folder cannot be a file name" in result.message
    assert "rename the object, or list the other files in `files`" in result.message
    result = await fetch(s3({"url": f"{bucket}/models/folder", "files": ["a.txt"]}, keys=keys))
    assert result.code == 0


@pytest.mark.contract
@pytest.mark.parametrize(
    ("status", "keys", "message"),
    [
        (403, None, "the server refuses to list {} (HTTP 403); set IAM when the bucket is private"),
        (403, KEYS, "the server refuses to list {} (HTTP 403); check the keys and the REGION of IAM"),
        (401, KEYS, "the server refuses to list {} (HTTP 401); check the keys"),
        (404, KEYS, "there is no bucket at {} (HTTP 404); check its name"),
        (405, None, "{} cannot be listed: the server responds with HTTP 405, or it is not an S3 server"),
    ],
)
async def test_a_listing_that_fails_names_the_reason(
    fetch: Fetch, status: int, keys: object, message: str
) -> None:
    async def get(request: web.Request) -> web.Response:
        return web.Response(text="<Error><Code>No</Code></Error>", status=status)

    app = web.Application()
    app.router.add_get("/{path:.*}", get)
    async with TestServer(app) as server:
        url = str(server.make_url("/models/m"))
        result = await fetch(s3({"url": url}, keys=keys))
    assert result.code == 1
    assert result.message.startswith(message.format(url))


@pytest.mark.contract
async def test_the_key_is_named_whatever_else_the_address_may_mean(fetch: Fetch) -> None:
    """The host itself is not a bucket, but that is not the reason."""
    listing = (
        "<ListBucketResult><Name>models</Name><IsTruncated>false</IsTruncated><Contents><Key>m//b</Key>"
        "<LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>1</Size></Contents></ListBucketResult>"
    )

    async def get(request: web.Request) -> web.Response:
        known = request.path.rstrip("/") == "/models"
        return web.Response(text=listing if known else "<Error/>", status=200 if known else 404)

    app = web.Application()
    app.router.add_get("/{path:.*}", get)
    async with TestServer(app) as server:
        result = await fetch(s3({"url": str(server.make_url("/models/m"))}))
    assert (result.code, "the key 'm//b' of" in result.message) == (1, True)


@pytest.mark.contract
@pytest.mark.parametrize("keys", [None, KEYS], ids=["public", "signed"])
async def test_an_address_that_cannot_be_a_key_is_refused(fetch: Fetch, bucket: str, keys: object) -> None:
    result = await fetch(s3({"url": f"{bucket}/models/x//y"}, keys=keys))
    assert (result.code, "the key " in result.message, "x//y'" in result.message) == (1, True, True)


@pytest.mark.contract
async def test_a_key_that_cannot_be_signed_is_named(fetch: Fetch, bucket: str) -> None:
    _put(f"{bucket}/models/t%09ab", b"x")
    result = await fetch(s3({"url": f"{bucket}/models", "files": ["t\tab"]}, keys=KEYS))
    assert result.code == 1
    assert "the key 't\\tab'" in result.message
    result = await fetch(s3({"url": f"{bucket}/models", "files": ["t\tab"]}))
    assert (result.code, content_of(fetch.folder())) == (0, {"t\tab": b"x"})


# -- a plain web server -----------------------------------------------------------------------------------


@pytest.mark.contract
async def test_listed_files_of_a_web_server(fetch: Fetch, site: Site) -> None:
    site.files = {"/nets/a.bin": b"a" * 200_000, "/nets/b.bin": b"b"}
    site.faults.cut["a.bin"] = [70_000]
    result = await fetch(s3({"url": f"{site.url}/nets", "files": ["a.bin", "b.bin"]}))
    assert result.code == 0
    assert content_of(fetch.folder()) == {"a.bin": b"a" * 200_000, "b.bin": b"b"}
    assert any(served.start > 0 for served in site.served)
    # The sizes come from the responses: there is no listing.
    assert (result.lines[-1]["bytes"], result.lines[-1]["total"]) == (200_001, 200_001)


@pytest.mark.contract
async def test_a_file_that_changes_during_the_download_is_fetched_again(fetch: Fetch, site: Site) -> None:
    """The first part has another ETag and is discarded."""
    site.files = {"/f": b"old" * 100_000}
    site.faults.cut["/f"] = [100_000]
    site.on_cut = lambda: site.files.update({"/f": b"new" * 100_000})
    result = await fetch(s3({"url": site.url, "files": ["f"]}))
    assert result.code == 0
    assert content_of(fetch.folder()) == {"f": b"new" * 100_000}


@pytest.mark.contract
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "HTTP 401"),
        (403, "is public; a private bucket needs IAM"),
        (404, "there is no nets/a"),
        (451, "legal reasons"),
    ],
)
async def test_final_statuses_are_not_retried(fetch: Fetch, site: Site, status: int, message: str) -> None:
    site.files = {"/nets/a": b"a"}
    site.faults.status["/nets/a"] = [status]
    result = await fetch(s3({"url": f"{site.url}/nets", "files": ["a"]}))
    assert result.code == 1
    assert message in result.message
    assert retried_files(result) == []
    assert result.lines[-1] == {"event": "failed", "message": result.message}


@pytest.mark.contract
async def test_a_server_that_stays_broken_fails_the_fetch(fetch: Fetch, site: Site) -> None:
    site.files = {"/a": b"a"}
    site.faults.status["/a"] = [500] * 9
    result = await fetch(s3({"url": site.url, "files": ["a"]}))
    assert (
        "a could not be fetched in 6 attempts: the server is busy or broken (HTTP 500 for a)"
        in result.message
    )


@pytest.mark.contract
async def test_too_much_for_the_job_fails_before_the_download(fetch: Fetch, bucket: str) -> None:
    fetch.room = 1000
    result = await fetch(s3({"url": f"{bucket}/models/folder"}))
    assert result.message == (
        "the files need 500.0 kB, but the job may store 1.0 kB; fetch less, or raise ephemeralStorage of its resources"
    )
    assert content_of(fetch.folder()) == {}


@pytest.mark.contract
async def test_folders_for_other_mounts_are_created(fetch: Fetch, site: Site) -> None:
    site.files = {"/a": b"a"}
    fetch.folders = [fetch.folder() / "sub" / "er"]
    assert (await fetch(s3({"url": site.url, "files": ["a"]}))).code == 0
    assert fetch.folders[0].is_dir()


async def test_an_unreadable_spec_is_reported(fetch: Fetch) -> None:
    result = await fetch({"type": "FTP"})
    assert result.code == 1
    assert "use the fetch image of the operator's own version" in result.message
