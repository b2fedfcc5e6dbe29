"""`nosana-fetch SPEC`: fetches everything that an op needs before it starts; exit code 0 when all is complete.

It logs a JSON line every second. When something cannot be fetched, an error message with the remedy is the last
line and also the container's termination message, where the operator reads it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from nosana_operator.fetching.errors import FetchError, Interrupted
from nosana_operator.fetching.hugging_face import list_hugging_face
from nosana_operator.fetching.listing import Listing, RemoteFile
from nosana_operator.fetching.ollama import list_ollama
from nosana_operator.fetching.progress import Progress, Reporter
from nosana_operator.fetching.s3 import list_s3
from nosana_operator.fetching.spec import S3, HuggingFace, Resource, Spec, read_spec
from nosana_operator.fetching.transfer import BACKOFF, WORK_FOLDER, Stopped, Transfer
from nosana_operator.fetching.web import Web

CONCURRENCY: Final = 8
"""Files fetched at the same time."""
TERMINATION_LOG: Final = Path("/dev/termination-log")
_LIST_ATTEMPTS: Final = 6
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_LONGEST_MESSAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class Download:
    """One file to fetch: the folder it goes to, and its mode."""

    file: RemoteFile
    folder: Path
    mode: int


def fetch_all(spec: Spec, progress: Progress, reporter: Reporter) -> None:
    """Fetch everything in `spec`. Raises FetchError."""
    web, stop = Web(CONCURRENCY), threading.Event()
    for folder in (*(resource.folder for resource in spec.resources), *spec.folders):
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(CONCURRENCY, "list") as pool:
        listings = list(pool.map(lambda r: _list(r, spec, web, stop, reporter), spec.resources))
    downloads = plan(zip(spec.resources, listings, strict=True))
    sizes = {download.folder / download.file.path: download.file.size for download in downloads}
    progress.expect(sizes)
    check_room(sum(size or 0 for size in sizes.values()), spec.room, downloads)
    transfer = Transfer(web, progress, stop, reporter.retrying)
    _each(downloads, lambda download: _fetch(transfer, download), stop)
    for resource, listing in zip(spec.resources, listings, strict=True):
        for path, content in listing.documents.items():
            _write(resource.folder / path, content)
    for resource in spec.resources:
        shutil.rmtree(resource.folder / WORK_FOLDER, ignore_errors=True)
        if _writable(resource):
            _open_to_all(resource.folder)


def plan(listed: Iterable[tuple[Resource, Listing]]) -> list[Download]:
    """What to fetch, largest files first. If two files have one path, the later resource wins.

    Raises FetchError when one path is a file and a folder.
    """
    downloads: dict[PurePosixPath, Download] = {}
    folders: dict[PurePosixPath, str] = {}
    for resource, listing in listed:
        mode = 0o666 if _writable(resource) else 0o644
        for file in listing.files:
            place = PurePosixPath(resource.folder) / file.path
            downloads[place] = Download(file, resource.folder, mode)
            folders.update(dict.fromkeys(place.parents, file.name))
    for place, download in downloads.items():
        if place in folders:
            raise FetchError(
                f"{download.file.name!r} and {folders[place]!r} cannot be in one folder: the first would "
                "have to be a file and a folder; use separate targets, or select files with `files`"
            )
    return sorted(downloads.values(), key=lambda download: download.file.size or 0, reverse=True)


def check_room(total: int, room: int | None, downloads: list[Download]) -> None:
    """Raise FetchError when the files do not fit, rather than after hours of downloading."""
    if room is not None and total > room:
        raise FetchError(
            f"the files need {_human(total)}, but the job may store {_human(room)}; fetch less, or raise "
            "ephemeralStorage of its resources"
        )
    if downloads:
        disk = os.statvfs(downloads[0].folder)
        free = disk.f_bavail * disk.f_frsize
        here = sum(
            (w.folder / w.file.path).stat().st_size for w in downloads if (w.folder / w.file.path).is_file()
        )
        if total - here > free:
            raise FetchError(
                f"the files need {_human(total)}, but the node has room for {_human(free)}; fetch less, or "
                "run the job on a node with a larger disk"
            )


def _list(resource: Resource, spec: Spec, web: Web, stop: threading.Event, reporter: Reporter) -> Listing:
    mirrors = dict(spec.mirrors)
    for attempt in range(1, _LIST_ATTEMPTS + 1):
        try:
            match resource:
                case S3():
                    return list_s3(resource, mirrors, web)
                case HuggingFace():
                    return list_hugging_face(resource, mirrors, web)
            return list_ollama(resource, mirrors, web)
        except Interrupted as error:
            if attempt == _LIST_ATTEMPTS:
                raise FetchError(
                    f"{_named(resource)} cannot be listed: {error}; start the job again later"
                ) from None
            pause = error.wait or BACKOFF.wait(attempt)
            reporter.retrying(_named(resource), str(error), pause)
            stop.wait(pause)
    raise AssertionError("the last attempt returns or raises")


def _named(resource: Resource) -> str:
    match resource:
        case S3():
            return "the S3 resource"
        case HuggingFace():
            return f"Hugging Face repository {resource.repo!r}"
    return f"Ollama model {resource.model!r}"


def _each(downloads: list[Download], do: Callable[[Download], None], stop: threading.Event) -> None:
    """Run all in parallel. The first failure cancels the others and is raised."""
    with ThreadPoolExecutor(CONCURRENCY, "fetch") as pool:
        futures = [pool.submit(do, download) for download in downloads]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.exception() for future in done):
            stop.set()
            for future in futures:
                future.cancel()
    errors = [e for f in futures if not f.cancelled() and (e := f.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, Stopped)):
        raise error


def _fetch(transfer: Transfer, download: Download) -> None:
    try:
        transfer.fetch(download.file, download.folder, mode=download.mode)
    except OSError as error:
        raise _disk_error(error, download.file.name) from error


def _disk_error(error: OSError, name: str) -> FetchError:
    if error.errno in _FULL:
        return FetchError(
            f"no room is left on the node for {name}; fetch less, or run the job on a node with a larger disk"
        )
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return FetchError(
        f"{name} cannot be written ({reason}); check that its name and its folder's name are valid file names"
    )


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise _disk_error(error, path.name) from error


def _writable(resource: Resource) -> bool:
    return isinstance(resource, S3) and resource.writable


def _open_to_all(folder: Path) -> None:
    """Make the folders writable for every user, because the op may run as any."""
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(PermissionError):  # the root of a volume may belong to another user
            os.chmod(path, 0o777)  # noqa: S103 - only the op can reach it


def _human(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def main(arguments: list[str] | None = None, termination_log: Path = TERMINATION_LOG) -> int:
    """Run the program and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        sys.stderr.write(
            "usage: nosana-fetch SPEC\n\nSPEC is a file that the operator writes; see fetching/spec.py\n"
        )
        return 2
    os.umask(0o022)
    progress = Progress()
    with Reporter(progress) as reporter:
        try:
            fetch_all(read_spec(Path(arguments[0])), progress, reporter)
        except FetchError as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001 - the program always ends with a message
            # Only names and line numbers: error texts and local values may contain credentials.
            for frame in traceback.extract_tb(error.__traceback__):
                sys.stderr.write(f"{frame.filename}:{frame.lineno} {frame.name}\n")
            message = (
                f"nosana-fetch failed ({type(error).__name__}); please report it with the container's log"
            )
        else:
            reporter.done()
            return 0
    message = message[:_LONGEST_MESSAGE]
    reporter.write("failed", message=message)
    with contextlib.suppress(OSError):
        termination_log.write_text(message, encoding="utf-8")
    return 1


def run() -> None:
    """The command. As PID 1 of its container it gets no default signal handlers."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    sys.exit(main())
