"""One remote file → one local file: goes on where it was cut, and is there only when it is right."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import urllib3

from nosana_operator.fetching.errors import Damaged, FetchError, Interrupted
from nosana_operator.fetching.listing import Digest, RemoteFile
from nosana_operator.fetching.progress import Progress
from nosana_operator.fetching.web import Web, check

WORK_FOLDER: Final = ".nosana-fetch"
"""Holds what is not complete; gone at the end."""
CHUNK: Final = 1 << 20
_ATTEMPTS: Final = 6
"""In a row without a single byte."""
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_HASHES_WAITING: Final = 4
_MD5_ETAG: Final = re.compile(r'"([0-9a-f]{32})"')
_ENCRYPTED: Final = (
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
)
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Wait = Callable[[float], object]


class Stopped(FetchError):
    """Another file failed: this one is not needed any more."""


class _Hash:
    """A digest in the making, beside the thread that reads."""

    def __init__(self, digest: Digest, size: int | None) -> None:
        self._state = hashlib.new(
            "sha1" if digest.algorithm == "git-sha1" else digest.algorithm, usedforsecurity=False
        )
        if digest.algorithm == "git-sha1":
            self._state.update(f"blob {size}\0".encode())
        self._worker = ThreadPoolExecutor(1, "hash")
        self._waiting: deque[Future[None]] = deque()

    def update(self, data: bytes) -> None:
        self._waiting.append(self._worker.submit(self._state.update, data))
        while len(self._waiting) > _HASHES_WAITING:
            self._waiting.popleft().result()

    def close(self) -> str:
        """The digest of all that was given; nothing can follow."""
        self._worker.shutdown()
        return self._state.hexdigest()


@dataclass(slots=True)
class _State:
    """How far one file is."""

    target: Path
    at: int = 0
    hash: _Hash | None = None
    digest: Digest | None = None
    size: int | None = None
    etag: str | None = None
    complete: bool = False


class Transfer:
    """Fetches files. `stop` ends all of them; `retrying(name, why, wait)` is told of each new attempt."""

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
        """Make `folder/file.path`. Raises FetchError with the sentence to show; OSError of the disk."""
        target = folder / file.path
        if target.is_file():  # by an earlier run of this container, and then it is right
            size = target.stat().st_size
            self._progress.learn(target, size)
            self._progress.add(size)
            self._progress.file_done()
            return
        part = folder / WORK_FOLDER / hashlib.sha256(f"{file.path}\0{file.digest}".encode()).hexdigest()[:32]
        part.parent.mkdir(parents=True, exist_ok=True)
        for last in (False, True):
            try:
                self._complete(file, part, target)
                break
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
        """Get all bytes into `part` and verify them. Raises Damaged when they are wrong."""
        state = _State(target, digest=file.digest, size=file.size)
        # Without a hash nobody could tell whether the file has changed since an earlier run.
        with part.open("r+b" if part.exists() and file.digest else "w+b") as out:
            try:
                self._reread(state, out)
                attempts = 0
                while not state.complete:
                    before = state.at
                    try:
                        self._attempt(file, state, out)
                    except Interrupted as error:
                        attempts = 1 if state.at > before else attempts + 1
                        self._pause(file, attempts, error)
                self._verify(file, state)
            except Damaged:
                self._progress.add(-state.at)
                raise
            finally:
                if state.hash:
                    state.hash.close()

    def _pause(self, file: RemoteFile, attempts: int, error: Interrupted) -> None:
        """Wait before the next attempt. Raises FetchError when there were enough without a byte."""
        if attempts >= _ATTEMPTS:
            raise FetchError(
                f"{file.name} could not be fetched in {attempts} attempts: {error}; start the job again later"
            ) from None
        pause = min(_FIRST_WAIT * 2 ** (attempts - 1), _LONGEST_WAIT)
        pause = error.wait or pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts
        self._retrying(file.name, str(error), pause)
        self._wait(pause)
        self._check_stop()

    def _attempt(self, file: RemoteFile, state: _State, out: IO[bytes]) -> None:
        with self._web.get(file.request(), start=state.at, if_range=state.etag) as answer:
            if state.at and answer.status == 416:
                self._restart(state, out)
                raise Interrupted("the server has no such part of it")
            check(answer, file.name, file.remedy)
            self._begin(file, state, out, answer)
            while data := answer.read(CHUNK, decode_content=False):
                self._check_stop()
                out.write(data)
                if state.hash:
                    state.hash.update(data)
                state.at += len(data)
                self._progress.add(len(data))
            out.flush()
        if state.size is not None and state.at < state.size:
            raise Interrupted("the server ended it early")
        self._progress.learn(state.target, state.at)
        state.complete = True

    def _begin(
        self, file: RemoteFile, state: _State, out: IO[bytes], answer: urllib3.BaseHTTPResponse
    ) -> None:
        """Fit state to answer: a part, or the whole from its beginning."""
        headers = answer.headers
        length = headers.get("Content-Length")
        total = int(length) if length and length.isdecimal() else None
        if answer.status == 206:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if match is None or int(match[1]) != state.at:
                self._restart(state, out)
                raise Interrupted("the server sent another part than was asked for")
            total = int(match[2]) if match[2].isdecimal() else None
        elif state.at:
            self._restart(state, out)
        if state.size is not None and total is not None and total != state.size:
            raise Damaged(
                f"{file.name} has {total} bytes where {state.size} were announced; it was changed at its "
                "source, or a proxy between alters it: start the job again"
            )
        if state.size is None and total is not None:
            state.size = total
            self._progress.learn(state.target, total)
        etag = headers.get("ETag")
        state.etag = etag if etag and etag.startswith('"') else None
        if file.md5_etag and state.at == 0:
            self._trust_etag(file, state, answer)

    def _trust_etag(self, file: RemoteFile, state: _State, answer: urllib3.BaseHTTPResponse) -> None:
        """Of an S3 object, the ETag is its MD5 unless it was put in parts or is encrypted with a key."""
        headers = answer.headers
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
        """From the first byte."""
        self._progress.add(-state.at)
        if state.hash:
            state.hash.close()
        state.at, state.etag = 0, None
        state.hash = _Hash(state.digest, state.size) if state.digest else None
        out.seek(0)
        out.truncate()

    def _reread(self, state: _State, out: IO[bytes]) -> None:
        """Take in what an earlier run of this container got."""
        if state.digest:
            state.hash = _Hash(state.digest, state.size)
        while data := out.read(CHUNK):
            if state.hash:
                state.hash.update(data)
            state.at += len(data)
        self._progress.add(state.at)
        if state.size is not None and state.at > state.size:
            self._restart(state, out)
        state.complete = 0 < state.at == state.size

    def _verify(self, file: RemoteFile, state: _State) -> None:
        found = state.hash.close() if state.hash else None
        if state.digest is not None and found != state.digest.value:
            raise Damaged(
                f"{file.name} does not have the {state.digest.algorithm} hash that its server states; it is "
                "damaged there or on the way: upload it again, or start the job again"
            )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped("another file could not be fetched")
