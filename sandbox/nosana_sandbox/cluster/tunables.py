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
    """Record the settings before `user` (a cluster's slug) changes them; repeating is harmless."""
    with _changing(record) as noted:
        # Only the first cluster sees the original settings.
        if not noted["users"]:
            noted["values"] = {str(file): file.read_text() for file in tunables if file.exists()}
        noted["users"] = sorted({*noted["users"], user})
        for file in tunables:
            if file in _AT_LEAST and file.exists() and int(file.read_text()) < _AT_LEAST[file]:
                # A machine on which it cannot be written may have a sufficient value anyway.
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
                # Where they cannot be written, nothing has changed them.
                with contextlib.suppress(OSError):
                    Path(file).write_text(value)


@contextmanager
def _changing(record: Path) -> Iterator[dict[str, Any]]:
    """Yield the record for changes; other processes wait. Without users the file is empty."""
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
