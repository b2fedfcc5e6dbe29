"""Folders of an op's container where volumes and resources may be mounted. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

_RESERVED: Final = tuple(PurePosixPath(path) for path in ("/", "/dev", "/proc", "/sys"))
"""The container runtime mounts these itself."""


def mount_path(folder: str) -> PurePosixPath:
    """The folder without doubled and trailing slashes; Python alone treats `//x` as a root of its own."""
    return PurePosixPath("/" + folder.lstrip("/"))


def is_absolute_folder(folder: str) -> bool:
    """Whether a kubelet can mount something there: absolute, without `..`, and without characters it refuses."""
    return (
        folder.startswith("/")
        and ".." not in PurePosixPath(folder).parts
        and not any(character in folder for character in ":\0")
    )


def is_reserved(folder: str, *, inside: bool = False) -> bool:
    """Whether the runtime mounts that folder itself; with `inside`, also for folders in /dev, /proc and /sys."""
    path = mount_path(folder)
    return path in _RESERVED or (inside and any(path.is_relative_to(taken) for taken in _RESERVED[1:]))
