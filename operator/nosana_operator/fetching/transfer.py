"""Downloads one remote file to one local file.

It resumes after interruptions. The file gets its name only when its size and hash are verified.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import urllib3

from nosana_operator.backoff import Backoff
from nosana_operator.fetching.errors import Damaged, FetchError, Interrupted, Missing
from nosana_operator.fetching.listing import Digest, RemoteFile
from nosana_operator.fetching.progress import Progress
from nosana_operator.fetching.web import Web, check_status

WORK_FOLDER: Final = ".nosana-fetch"
"""Contains incomplete files; deleted at the end."""
CHUNK: Final = 1 << 20
_ATTEMPTS: Final = 6
"""Attempts in a row without a new byte."""
BACKOFF: Final = Backoff(first=0.5, longest=30.0)
_MAX_QUEUED_UPDATES: Final = 4
_MD5_ETAG: Final = re.compile(r'"([0-9a-f]{32})"')
_ENCRYPTED: Final = (
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
)
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Wait = Callable[[float], object]


class Stopped(FetchError):
    """Another file failed, so this one is not needed any more."""


class _Hash:
    """Computes a digest in a thread of its own, while the caller reads on."""

    def __init__(self, digest: Digest, size: int | None) -> None:
        self._state = hashlib.new(
            "sha1" if digest.algorithm == "git-sha1" else digest.algorithm, usedforsecurity=False
        )
        if digest.algorithm == "git-sha1":
            self._state.update(f"blob {size}\0".encode())
        self._worker = ThreadPoolExecutor(1, "hash")
        self._queued: deque[Future[None]] = deque()

    def update(self, data: bytes) -> None:
        self._queued.append(self._worker.submit(self._state.update, data))
        while len(self._queued) > _MAX_QUEUED_UPDATES:
            self._queued.popleft().result()

    def close(self) -> str:
        """The digest of all data. No update may follow."""
        self._worker.shutdown()
        return self._state.hexdigest()


@dataclass(slots=True)
class _State:
    """The progress of one file."""

    target: Path
    offset: int = 0
    hash: _Hash | None = None
    digest: Digest | None = None
    size: int | None = None
    etag: str | None = None
    complete: bool = False


class Transfer:
    """Downloads files. `stop` ends all downloads; `retrying(name, reason, wait)` is called before each retry."""

    def __init__(
        self,
        web: Web,
        progress: Progress,
        stop: threading.Event,
        retrying: Callable[[str, str, float], None],
        wait: Wait | None = None,
    ) -> None:
        self._web = web
        self._progress = progress
        self._stop = stop
        self._retrying = retrying
        self._wait: Wait = wait or stop.wait

    def fetch(self, file: RemoteFile, folder: Path, *, mode: int = 0o644) -> None:
        """Download to `folder/file.path`. Raises FetchError, or the file system's OSError."""
        target = folder / file.path
        if target.is_file():  # from an earlier run of this container, and verified
            size = target.stat().st_size
            self._progress.set_size(target, size)
            self._progress.add(size)
            self._progress.file_done()
            return
        part = folder / WORK_FOLDER / hashlib.sha256(f"{file.path}\0{file.digest}".encode()).hexdigest()[:32]
        part.parent.mkdir(parents=True, exist_ok=True)
        for last in (False, True):
            try:
                self._complete(file, part, target)
                break
            except Missing:
                part.unlink(missing_ok=True)
                if not file.may_be_missing:
                    raise
                self._progress.file_done()
                return
            except Damaged as error:
                part.unlink(missing_ok=True)
                if last:
                    raise
                self._retrying(file.name, str(error), 0.0)
        part.chmod(mode)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.rename(target)
        self._progress.file_done()

    def _complete(self, file: RemoteFile, part: Path, target: Path) -> None:
        """Download all bytes to `part` and verify them. Raises Damaged when they are wrong."""
        state = _State(target, digest=file.digest, size=file.size)
        # Without a hash, a change of the file since an earlier run would go unnoticed.
        with part.open("r+b" if part.exists() and file.digest else "w+b") as out:
            try:
                self._reread(state, out)
                attempts = 0
                while not state.complete:
                    before = state.offset
                    try:
                        self._attempt(file, state, out)
                    except Interrupted as error:
                        attempts = 1 if state.offset > before else attempts + 1
                        self._pause(file, attempts, error)
                self._verify(file, state)
            except Damaged:
                self._progress.add(-state.offset)
                raise
            finally:
                if state.hash:
                    state.hash.close()

    def _pause(self, file: RemoteFile, attempts: int, error: Interrupted) -> None:
        """Wait before the next attempt. Raises FetchError after too many attempts without a new byte."""
        if attempts >= _ATTEMPTS:
            raise FetchError(
                f"{file.name} could not be fetched in {attempts} attempts: {error}; start the job again later"
            ) from None
        pause = error.wait or BACKOFF.wait(attempts)
        self._retrying(file.name, str(error), pause)
        self._wait(pause)
        self._check_stop()

    def _attempt(self, file: RemoteFile, state: _State, out: IO[bytes]) -> None:
        with self._web.get(file.request(), start=state.offset, if_range=state.etag) as response:
            if state.offset and response.status == 416:
                self._restart(state, out)
                raise Interrupted("the server does not have the requested range")
            check_status(response, file.name, file.remedy)
            self._begin(file, state, out, response)
            while data := response.read(CHUNK, decode_content=False):
                self._check_stop()
                out.write(data)
                if state.hash:
                    state.hash.update(data)
                state.offset += len(data)
                self._progress.add(len(data))
            out.flush()
        if state.size is not None and state.offset < state.size:
            raise Interrupted("the server ended the response early")
        self._progress.set_size(state.target, state.offset)
        state.complete = True

    def _begin(
        self, file: RemoteFile, state: _State, out: IO[bytes], response: urllib3.BaseHTTPResponse
    ) -> None:
        """Adjust the state to the response: the requested range, or the whole file."""
        headers = response.headers
        length = headers.get("Content-Length")
        total = int(length) if length and length.isdecimal() else None
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if match is None or int(match[1]) != state.offset:
                self._restart(state, out)
                raise Interrupted("the server sent another range than requested")
            total = int(match[2]) if match[2].isdecimal() else None
        elif state.offset:
            self._restart(state, out)
        if state.size is not None and total is not None and total != state.size:
            raise Damaged(
                f"{file.name} has {total} bytes, but {state.size} were announced; it changed at its "
                "source, or a proxy alters it: start the job again"
            )
        if state.size is None and total is not None:
            state.size = total
            self._progress.set_size(state.target, total)
        etag = headers.get("ETag")
        state.etag = etag if etag and etag.startswith('"') else None
        if file.md5_etag and state.offset == 0:
            self._use_etag(state, response)

    def _use_etag(self, state: _State, response: urllib3.BaseHTTPResponse) -> None:
        """Verify by the ETag where it is an MD5: an S3 object not uploaded in parts and not encrypted with a key."""
        headers = response.headers
        if any(name in headers for name in _ENCRYPTED):
            digest = None
        elif state.digest is None and "x-amz-request-id" in headers:
            match = _MD5_ETAG.fullmatch(headers.get("ETag", ""))
            digest = Digest("md5", match[1]) if match else None
        else:
            return
        if state.hash:
            state.hash.close()
        state.digest = digest
        state.hash = _Hash(digest, state.size) if digest else None

    def _restart(self, state: _State, out: IO[bytes]) -> None:
        """Start again from the first byte."""
        self._progress.add(-state.offset)
        if state.hash:
            state.hash.close()
        state.offset, state.etag = 0, None
        state.hash = _Hash(state.digest, state.size) if state.digest else None
        out.seek(0)
        out.truncate()

    def _reread(self, state: _State, out: IO[bytes]) -> None:
        """Resume with the bytes from an earlier run of this container."""
        if state.digest:
            state.hash = _Hash(state.digest, state.size)
        while data := out.read(CHUNK):
            if state.hash:
                state.hash.update(data)
            state.offset += len(data)
        self._progress.add(state.offset)
        if state.size is not None and state.offset > state.size:
            self._restart(state, out)
        state.complete = 0 < state.offset == state.size

    def _verify(self, file: RemoteFile, state: _State) -> None:
        actual = state.hash.close() if state.hash else None
        if state.digest is not None and actual != state.digest.value:
            raise Damaged(
                f"{file.name} does not have the {state.digest.algorithm} hash that its server states; it was "
                "damaged there or in transit: upload it again, or start the job again"
            )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped("another file could not be fetched")
