"""Kernel settings of the whole machine that a cluster changes, put back when the last one is gone.

The kubelet changes some and has no switch to leave them alone, only one to refuse to start where they differ.
One is ours: the default number of file watchers is used up by a handful of nodes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

TUNABLES: Final = (
    Path("/proc/sys/vm/overcommit_memory"),
    Path("/proc/sys/vm/panic_on_oom"),
    Path("/proc/sys/kernel/panic"),
    Path("/proc/sys/kernel/panic_on_oops"),
    Path("/proc/sys/kernel/keys/root_maxkeys"),
    Path("/proc/sys/kernel/keys/root_maxbytes"),
    Path("/proc/sys/fs/inotify/max_user_instances"),
)

_AT_LEAST: Final = {Path("/proc/sys/fs/inotify/max_user_instances"): 1024}

RECORD: Final = Path("/run/nosana-sandbox-tunables.json")
"""Shared by all sandboxes of the machine, and gone with a restart as the changed settings are."""


def remember(user: str, record: Path = RECORD, tunables: tuple[Path, ...] = TUNABLES) -> None:
    """Note what the settings are before `user` (a cluster's slug) changes them. Again is fine."""
    with _changing(record) as noted:
        # Only the first finds the machine as it was.
        if not noted["users"]:
            noted["values"] = {str(file): file.read_text() for file in tunables if file.exists()}
        noted["users"] = sorted({*noted["users"], user})
        for file in tunables:
            if file in _AT_LEAST and file.exists() and int(file.read_text()) < _AT_LEAST[file]:
                # A machine that lets nobody write it may have enough all the same.
                with contextlib.suppress(OSError):
                    file.write_text(str(_AT_LEAST[file]))


def restore(user: str, record: Path = RECORD) -> None:
    """Put the settings back unless another cluster still runs on them."""
    with _changing(record) as noted:
        if user not in noted["users"]:
            return
        noted["users"] = [other for other in noted["users"] if other != user]
        if not noted["users"]:
            for file, value in noted.pop("values").items():
                # A machine that lets nobody write them had them changed by nobody.
                with contextlib.suppress(OSError):
                    Path(file).write_text(value)


@contextmanager
def _changing(record: Path) -> Iterator[dict[str, Any]]:
    """Give what is noted, to be changed; other processes wait. A note without users is an empty file."""
    record.touch(mode=0o600)
    with record.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read()
        noted = json.loads(text) if text else {"users": []}
        yield noted
        file.seek(0)
        file.truncate()
        if noted["users"]:
            json.dump(noted, file)
