"""Image references as Docker reads them, written out in full. Pure.

Definitions are written for Docker, where `ubuntu` is `docker.io/library/ubuntu:latest`. Other container runtimes
refuse a short name, or look it up in another registry.
"""

from __future__ import annotations

from typing import Final

DOCKER_HUB: Final = "docker.io"
_OLD_DOCKER_HUB: Final = "index.docker.io"


def full_reference(image: str) -> str:
    """The reference with its registry, path and tag or digest."""
    registry, path = split_registry(image)
    name, at, _ = path.partition("@")
    has_tag = ":" in name.rpartition("/")[2]
    return f"{registry}/{path if at or has_tag else f'{name}:latest'}"


def split_registry(image: str) -> tuple[str, str]:
    """The registry and the rest of a reference.

    The first part is a registry when it has a dot, a colon or an upper-case letter, or is `localhost`. Images of
    Docker Hub without an owner belong to `library`.
    """
    first, slash, rest = image.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    registry, path = (first, rest) if is_host else (DOCKER_HUB, image)
    if registry == _OLD_DOCKER_HUB:
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return registry, path
