"""The cluster's registries: Debian's docker-registry twice, a public one and one behind a login.

Every registry of the world is one of these two for the nodes: containerd's mirror setting sends it here, and
`docker.io/library/ubuntu` is the repository of that whole name. So images are pulled by the kubelet's usual
rules, and one that nobody has put here cannot be pulled.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import fcntl
import http.client
import os
import secrets
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from nosana_sandbox.cluster import config
from nosana_sandbox.cluster import layout as at
from nosana_sandbox.cluster.errors import StartError
from nosana_sandbox.cluster.forward import socket_in_namespace
from nosana_sandbox.cluster.layout import Layout
from nosana_sandbox.images.archive import Image, Login, Packed
from nosana_sandbox.images.pushing import RegistryClient, RegistryError
from nosana_sandbox.images.references import split_name

_TIMEOUT: Final = 30.0
_DEFAULT: Final = "_default"
"""containerd's name for registries that have no folder of their own."""

_BCRYPT_COST: Final = 4
"""The lowest cost: there is nothing to protect, and each pull checks the password again."""
_BCRYPT_ALPHABET: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def configuration(layout: Layout) -> dict[str, Path]:
    """Write the registries' configuration, and return each file by its program's name."""
    layout.logins.touch(mode=0o600)
    write_mirror(layout, _DEFAULT, private=False)
    files = {}
    for name, port, logins in (
        ("registry", at.REGISTRY_PORT, None),
        ("registry-private", at.PRIVATE_REGISTRY_PORT, layout.logins),
    ):
        files[name] = layout.folder / f"{name}.json"
        files[name].write_text(config.registry(layout.folder / name, port, logins))
    return files


def answers(layout: Layout) -> bool:
    """Whether both registries accept connections."""
    for port in (at.REGISTRY_PORT, at.PRIVATE_REGISTRY_PORT):
        with socket_in_namespace(layout.namespace) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return False
    return True


def push(layout: Layout, images: Iterable[tuple[Image, Packed]]) -> list[str]:
    """Put the images into the registries and return the names under which another one was there before.

    Raises `StartError`.
    """
    replaced = []
    for image, packed in images:
        registry, repository, tag = split_name(image.name)
        write_mirror(layout, registry, private=image.login is not None)
        if image.login is not None:
            allow(layout.logins, image.login)
        port = at.REGISTRY_PORT if image.login is None else at.PRIVATE_REGISTRY_PORT
        path = f"{config.mirrored(registry)}/{repository}"
        try:
            with closing(_connect(layout, port)) as connection:
                client = RegistryClient(connection, image.login)
                before = client.digest(path, tag)
                if before == packed.manifest:
                    continue
                client.push(path, tag, packed)
        except (OSError, http.client.HTTPException) as error:
            raise StartError(
                f"the sandbox's registry does not answer ({error}); take the sandbox down and up again"
            ) from error
        except RegistryError as error:
            raise StartError(f"the sandbox's registry did not take {image.name}: {error}") from error
        if before is not None:
            replaced.append(image.name)
    return replaced


def write_mirror(layout: Layout, registry: str, *, private: bool) -> None:
    """Send the nodes here for images of `registry`, also for `private` ones; they read it at each pull."""
    file = layout.mirrors / registry / "hosts.toml"
    text = config.mirror(registry, private=private)
    # What had private images keeps them.
    if file.exists() and (not private or file.read_text() == text):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace(file, text)


def allow(logins: Path, login: Login) -> None:
    """Allow a login to pull from the private registry, which reads the file again when it changes."""
    with logins.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = dict(line.split(":", 1) for line in logins.read_text().splitlines())
        there = entries.get(login.user)
        if there is not None and _bcrypt(login.password, there) == there:
            return
        salt = "".join(secrets.choice(_BCRYPT_ALPHABET) for _ in range(22))
        entries[login.user] = _bcrypt(login.password, f"$2b${_BCRYPT_COST:02}${salt}")
        _replace(logins, "".join(f"{user}:{value}\n" for user, value in entries.items()))


def _bcrypt(password: str, setting: str) -> str:
    """Hash by the C library's `crypt`; `setting` is an earlier hash, or method, cost and salt."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    made: bytes | None = library.crypt(password.encode(), setting.encode())
    if made is None or not made.startswith(b"$2"):
        raise StartError("this machine's C library cannot hash passwords by bcrypt; install libxcrypt")
    return made.decode()


def _connect(layout: Layout, port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    connection.sock = socket_in_namespace(layout.namespace)
    connection.sock.settimeout(_TIMEOUT)
    connection.sock.connect(("127.0.0.1", port))
    return connection


def _replace(file: Path, text: str) -> None:
    """Write atomically: a reader gets the old text or the new one."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.rename(file)
