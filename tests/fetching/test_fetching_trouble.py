"""Faults of disks and servers, and signals."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from nosana_operator.fetching import __main__ as command
from nosana_operator.fetching import program
from nosana_operator.fetching.errors import FetchError
from nosana_operator.fetching.listing import Listing, RemoteFile, Request, always
from nosana_operator.fetching.program import plan
from nosana_operator.fetching.spec import S3, HuggingFace
from nosana_operator.fetching.transfer import Transfer
from nosana_sandbox.resources.bucket import Bucket
from support.fetching import Fetch, Site, content_of, retried_files

PLACE = {"type": "S3", "sources": [{"url": "https://models.test/m"}]}


def at(folder: str, *paths: str) -> tuple[S3, Listing]:
    request = always(Request("http://x"))
    files = [RemoteFile(path, path=Path(path), request=request, size=len(path)) for path in paths]  # type: ignore[arg-type]
    return S3(Path(folder), ()), Listing(tuple(files))


def test_plan_takes_the_largest_first_and_the_later_of_two() -> None:
    works = plan([at("/r/0", "bb", "a", "cc/dddd"), at("/r/0/cc", "dddd")])
    assert [(str(work.folder), work.file.name) for work in works] == [
        ("/r/0/cc", "dddd"),
        ("/r/0", "bb"),
        ("/r/0", "a"),
    ]


def test_plan_refuses_a_file_that_is_a_folder() -> None:
    with pytest.raises(FetchError, match="'a' and 'a/b' cannot be in one folder"):
        plan([at("/r/0", "a", "a/b")])


def test_writable_files_are_writable_for_every_user() -> None:
    request = always(Request("http://x"))
    file = RemoteFile("a", path=Path("a"), request=request)  # type: ignore[arg-type]
    listed: list[tuple[S3 | HuggingFace, Listing]] = [
        (S3(Path("/r/0"), (), writable=True), Listing((file,))),
        (HuggingFace(Path("/r/1"), "x"), Listing((file,))),
    ]
    assert [work.mode for work in plan(listed)] == [0o666, 0o644]


@pytest.mark.contract
@pytest.mark.parametrize("times", [1, 2])
async def test_an_s3_object_is_verified_by_its_etag(fetch: Fetch, public_bucket: Bucket, times: int) -> None:
    public_bucket.objects = {"m/w": b"w" * 200_000}
    public_bucket.faults.damaged["/m/w"] = times
    result = await fetch(PLACE)
    assert result.code == times - 1
    if times == 2:
        assert "m/w does not have the md5 hash" in result.message
        assert content_of(fetch.folder()) == {}


@pytest.mark.contract
@pytest.mark.parametrize("listed", [True, False])
async def test_an_etag_that_is_not_a_hash_is_not_verified(
    fetch: Fetch, public_bucket: Bucket, listed: bool
) -> None:
    public_bucket.objects = {"m/w": b"w" * 200_000}
    public_bucket.encrypted = True
    public_bucket.faults.cut["/m/w"] = [70_000]
    files = {} if listed else {"files": ["w"]}
    result = await fetch({"type": "S3", "sources": [{"url": "https://models.test/m", **files}]})
    assert (result.code, result.message) == (0, "")
    assert content_of(fetch.folder()) == {"w": b"w" * 200_000}


@pytest.mark.contract
async def test_a_full_disk_is_reported(
    fetch: Fetch, public_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    public_bucket.objects = {"m/w": b"w"}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Transfer, "fetch", full)
    result = await fetch(PLACE)
    assert result.message == (
        "no room is left on the node for m/w; fetch less, or run the job on a node with a larger disk"
    )


@pytest.mark.contract
async def test_a_disk_that_is_too_small_is_said_at_once(
    fetch: Fetch, public_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    public_bucket.objects = {"m/w": b"w" * 5000}

    class Disk:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(program.os, "statvfs", lambda _: Disk)  # type: ignore[attr-defined]
    result = await fetch(PLACE)
    assert "the files need 5.0 kB, but the node has room for 4.1 kB" in result.message


@pytest.mark.contract
async def test_one_failure_ends_the_others(fetch: Fetch, site: Site) -> None:
    site.files = {f"/{n}": b"x" * 100 for n in range(40)}
    site.faults.status = {"/39": [404], **{f"/{n}": [503] * 9 for n in range(8)}}
    result = await fetch(
        {"type": "S3", "sources": [{"url": site.url, "files": ["39", *map(str, range(39))]}]}
    )
    assert "there is no 39 (HTTP 404)" in result.message
    assert len(site.served) < 40
    assert len(retried_files(result)) < 40


@pytest.mark.contract
async def test_an_unexpected_error_is_reported_without_secrets(
    fetch: Fetch, public_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Authorization: hf_secret")

    monkeypatch.setattr(program, "plan", broken)
    public_bucket.objects = {"m/w": b"w"}
    result = await fetch(PLACE)
    assert result.message.startswith("nosana-fetch failed (RuntimeError)")
    assert "hf_secret" not in result.message + capsys.readouterr().err + str(result.lines)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    for name in ("program", "s3"):
        monkeypatch.delitem(sys.modules, f"nosana_operator.fetching.{name}")
    with pytest.raises(
        SystemExit, match=r"needs obstore; install it with pip install 'nosana-operator\[fetch\]'"
    ):
        command.main()


@pytest.mark.contract
async def test_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    """PID 1 of a container gets no default handler for SIGTERM."""
    requested: list[str] = []

    async def hangs(request: web.Request) -> web.StreamResponse:
        requested.append(request.path)
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"x")
        process.send_signal(signal.SIGTERM)
        await release.wait()
        return response

    release = asyncio.Event()
    app = web.Application()
    app.router.add_get("/{path:.*}", hangs)
    async with TestServer(app) as server:
        source = {"url": str(server.make_url("")).rstrip("/"), "files": ["f"]}
        resource = {"type": "S3", "folder": str(tmp_path / "0"), "sources": [source]}
        spec: dict[str, Any] = {"mirrors": {}, "room": None, "folders": [], "resources": [resource]}
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        command = [sys.executable, "-m", "nosana_operator.fetching", str(tmp_path / "spec.json")]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        code = await asyncio.wait_for(process.wait(), 30)
        release.set()
    assert code == 143
    assert requested == ["/f"]
