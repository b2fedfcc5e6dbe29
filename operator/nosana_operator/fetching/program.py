"""`nosana-fetch SPEC`: fetch everything that an op needs before it starts; exit code 0 when all is there.

The log has a JSON line a second. When something cannot be had, the sentence that says what and what to do is
the last line, and the container's termination message, from where the operator takes it.
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
from nosana_operator.fetching.transfer import WORK_FOLDER, Stopped, Transfer
from nosana_operator.fetching.web import Web

AT_ONCE: Final = 8
"""Files fetched at the same time."""
TERMINATION_LOG: Final = Path("/dev/termination-log")
_LIST_ATTEMPTS: Final = 6
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_LONGEST_MESSAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class Work:
    """One file to fetch, and where to."""

    file: RemoteFile
    folder: Path
    mode: int


def fetch_all(spec: Spec, progress: Progress, reporter: Reporter) -> None:
    """Fetch everything of `spec`. Raises FetchError with the sentence to show."""
    web, stop = Web(AT_ONCE), threading.Event()
    for folder in (*(resource.folder for resource in spec.resources), *spec.folders):
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE, "list") as pool:
        listings = list(pool.map(lambda r: _list(r, spec, web, stop, reporter), spec.resources))
    works = plan(zip(spec.resources, listings, strict=True))
    sizes = {work.folder / work.file.path: work.file.size for work in works}
    progress.expect(sizes)
    check_room(sum(size or 0 for size in sizes.values()), spec.room, works)
    transfer = Transfer(web, progress, stop, reporter.retrying)
    _each(works, lambda work: _fetch(transfer, work), stop)
    for resource, listing in zip(spec.resources, listings, strict=True):
        for path, content in listing.documents.items():
            _write(resource.folder / path, content)
    for resource in spec.resources:
        shutil.rmtree(resource.folder / WORK_FOLDER, ignore_errors=True)
        if _writable(resource):
            _open_to_all(resource.folder)


def plan(listed: Iterable[tuple[Resource, Listing]]) -> list[Work]:
    """What to fetch, the largest first. Of two files at one place the later resource's counts.

    Raises FetchError when a file would have to be a folder too.
    """
    works: dict[PurePosixPath, Work] = {}
    folders: dict[PurePosixPath, str] = {}
    for resource, listing in listed:
        mode = 0o666 if _writable(resource) else 0o644
        for file in listing.files:
            place = PurePosixPath(resource.folder) / file.path
            works[place] = Work(file, resource.folder, mode)
            folders.update(dict.fromkeys(place.parents, file.name))
    for place, work in works.items():
        if place in folders:
            raise FetchError(
                f"{work.file.name!r} and {folders[place]!r} cannot lie in one folder: the first would "
                "have to be a file and a folder; give them targets of their own, or choose with `files`"
            )
    return sorted(works.values(), key=lambda work: work.file.size or 0, reverse=True)


def check_room(total: int, room: int | None, works: list[Work]) -> None:
    """Say at once what would else be found out after hours. Raises FetchError."""
    if room is not None and total > room:
        raise FetchError(
            f"the files need {_human(total)}, but the job may store {_human(room)}; fetch less, or raise "
            "ephemeralStorage of its resources"
        )
    if works:
        disk = os.statvfs(works[0].folder)
        free = disk.f_bavail * disk.f_frsize
        here = sum(
            (w.folder / w.file.path).stat().st_size for w in works if (w.folder / w.file.path).is_file()
        )
        if total - here > free:
            raise FetchError(
                f"the files need {_human(total)}, but the node has room for {_human(free)}; fetch less, or "
                "run the job on a node with a larger disk"
            )


def _list(resource: Resource, spec: Spec, web: Web, stop: threading.Event, reporter: Reporter) -> Listing:
    mirrors = dict(spec.mirrors)
    pause = 0.5
    for attempt in range(_LIST_ATTEMPTS):
        try:
            match resource:
                case S3():
                    return list_s3(resource, mirrors, web)
                case HuggingFace():
                    return list_hugging_face(resource, mirrors, web)
            return list_ollama(resource, mirrors, web)
        except Interrupted as error:
            if attempt == _LIST_ATTEMPTS - 1:
                raise FetchError(
                    f"{_named(resource)} cannot be listed: {error}; start the job again later"
                ) from None
            reporter.retrying(_named(resource), str(error), error.wait or pause)
            stop.wait(error.wait or pause)
            pause *= 2
    raise AssertionError("the last attempt returns or raises")


def _named(resource: Resource) -> str:
    match resource:
        case S3():
            return "the S3 resource"
        case HuggingFace():
            return f"Hugging Face repository {resource.repo!r}"
    return f"Ollama model {resource.model!r}"


def _each(works: list[Work], do: Callable[[Work], None], stop: threading.Event) -> None:
    """Do all; the first failure ends the others and is raised."""
    with ThreadPoolExecutor(AT_ONCE, "fetch") as pool:
        futures = [pool.submit(do, work) for work in works]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.exception() for future in done):
            stop.set()
            for future in futures:
                future.cancel()
    errors = [e for f in futures if not f.cancelled() and (e := f.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, Stopped)):
        raise error


def _fetch(transfer: Transfer, work: Work) -> None:
    try:
        transfer.fetch(work.file, work.folder, mode=work.mode)
    except OSError as error:
        raise _disk_error(error, work.file.name) from error


def _disk_error(error: OSError, name: str) -> FetchError:
    if error.errno in _FULL:
        return FetchError(
            f"no room is left on the node for {name}; fetch less, or run the job on a node with a larger disk"
        )
    why = os.strerror(error.errno) if error.errno else type(error).__name__
    return FetchError(
        f"{name} cannot be written ({why}); is its name, or its folder's, one that a file can have?"
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
    """The op may run as anybody."""
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(PermissionError):  # a volume's own root may be another's
            os.chmod(path, 0o777)  # noqa: S103 - only the op can reach it


def _human(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def main(arguments: list[str] | None = None, termination_log: Path = TERMINATION_LOG) -> int:
    """Run the program. Returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        sys.stderr.write(
            "usage: nosana-fetch SPEC\n\nSPEC is the file that the operator writes; see fetching/spec.py\n"
        )
        return 2
    os.umask(0o022)
    progress = Progress()
    with Reporter(progress) as reporter:
        try:
            fetch_all(read_spec(Path(given[0])), progress, reporter)
        except FetchError as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001 - the last line of the program: it has to leave its sentence
            # Names and places only: the texts of errors and the local values may hold credentials.
            for frame in traceback.extract_tb(error.__traceback__):
                sys.stderr.write(f"{frame.filename}:{frame.lineno} {frame.name}\n")
            message = (
                f"nosana-fetch failed ({type(error).__name__}); please report it with the container's log"
            )
        else:
            reporter.done()
            return 0
    message = message[:_LONGEST_MESSAGE]
    reporter.say("failed", message=message)
    with contextlib.suppress(OSError):
        termination_log.write_text(message, encoding="utf-8")
    return 1


def run() -> None:
    """The command: as the container's first process it has to ask for its signals."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    sys.exit(main())
