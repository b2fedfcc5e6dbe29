"""Programs that outlive the command that started them, and that can be found and stopped reliably.

A process is known by its number together with the time it started and the boot it belongs to: a number alone
may be somebody else's by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nosana_sandbox.cluster.errors import ClusterError

SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The shell joins the control group itself and then becomes the program: at no moment is there a process of
# ours outside the group. It also leaves the caller's folder, which may be a mount that somebody removes.
_JOIN_AND_BECOME: Final = 'echo 0 > "$1" && cd / && shift && exec "$@"'


@dataclass(frozen=True)
class Process:
    """One program that was started; `started` in clock ticks since boot, as the kernel counts."""

    pid: int
    started: int
    boot: str


class ProcessTable:
    """The programs of one sandbox, recorded in `file`, logging into `logs`/NAME.log."""

    def __init__(self, file: Path, logs: Path, membership: Path) -> None:
        """`membership` is the `cgroup.procs` file that each program joins."""
        self._file = file
        self._logs = logs
        self._membership = membership

    def spawn(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stdin: int | None = None,
    ) -> Process:
        """Start `command` (first word: absolute path or found on the system's path) and record it as `name`.

        It gets `environment` and a search path, nothing of ours: a proxy setting of the caller would send the
        cluster's own traffic away. `stdin` is a descriptor that it inherits, else it reads nothing.
        """
        if self.alive(name):
            raise ClusterError(f"{name} is running already; stop it first")
        self._logs.mkdir(parents=True, exist_ok=True)
        log = str(self._logs / f"{name}.log")
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
            if stdin is None
            else (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _JOIN_AND_BECOME, name, str(self._membership), *command],
            {"PATH": SEARCH_PATH, **(environment or {})},
            file_actions=actions,
            setsid=True,
        )
        process = Process(pid, _start_time(pid) or 0, boot_id())
        with self._changing() as recorded:
            recorded[name] = process
        return process

    def alive(self, name: str) -> bool:
        """Whether the program recorded as `name` still runs."""
        process = self._read().get(name)
        return process is not None and is_alive(process)

    def known(self) -> dict[str, bool]:
        """For each recorded program, whether it still runs."""
        return {name: is_alive(process) for name, process in self._read().items()}

    def pid(self, name: str) -> int | None:
        """Return the number of the running program `name`, else None."""
        process = self._read().get(name)
        return process.pid if process is not None and is_alive(process) else None

    def stop(self, name: str, grace: float = 10.0) -> None:
        """Stop the program (SIGTERM, after `grace` seconds SIGKILL) and drop its record."""
        process = self._read().get(name)
        if process is None:
            return
        for sign, time_limit in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            if not is_alive(process):
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, sign)
            deadline = time.monotonic() + time_limit
            while is_alive(process) and time.monotonic() < deadline:
                time.sleep(0.02)
        with self._changing() as recorded:
            recorded.pop(name, None)

    def kill_all(self) -> None:
        """Kill all recorded programs, and drop their records."""
        recorded = self._read()
        for process in recorded.values():
            if is_alive(process):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10.0
        while any(is_alive(process) for process in recorded.values()):
            if time.monotonic() > deadline:
                raise ClusterError("programs of the sandbox do not end although killed; try again")
            time.sleep(0.02)
        self._file.unlink(missing_ok=True)

    def tail(self, name: str, lines: int = 12) -> str:
        """Return the last lines of the program's log."""
        with contextlib.suppress(OSError):
            return "\n".join((self._logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _read(self) -> dict[str, Process]:
        try:
            return {name: Process(**entry) for name, entry in json.loads(self._file.read_text()).items()}
        except FileNotFoundError:
            return {}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Process]]:
        """Yield the record for changes; other threads and processes wait."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            recorded = self._read()
            yield recorded
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps({name: asdict(p) for name, p in recorded.items()}, indent=1))
            fresh.rename(self._file)


def boot_id() -> str:
    """Return the kernel's name for this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_alive(process: Process) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    if process.boot != boot_id():
        return False
    # A child of ours stays a zombie until collected; somebody else's child is not ours to collect.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return _start_time(process.pid) == process.started


def _start_time(pid: int) -> int | None:
    """Return when the process started (`man 5 proc`, stat, field 22), None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(rest[18])
