"""Full image names, as containerd stores them: every short form has exactly one."""

from __future__ import annotations

from typing import Final

DEFAULT_REGISTRY: Final = "docker.io"


def full_name(image: str) -> str:
    """Return the name under which containerd looks for `image`.

    >>> full_name("ubuntu")
    'docker.io/library/ubuntu:latest'
    >>> full_name("ghcr.io/open-webui/open-webui:ollama")
    'ghcr.io/open-webui/open-webui:ollama'

    With a digest the tag says nothing more and is dropped.
    """
    name, _, digest = image.partition("@")
    first, slash, rest = name.partition("/")
    # As every client does: the first part is a host if it cannot be part of a path on the default registry.
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, path = first, rest
    else:
        registry, path = DEFAULT_REGISTRY, name
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    # A colon in the last part belongs to a tag, never to a port.
    head, separator, last = path.rpartition("/")
    last, _, tag = last.partition(":")
    path = f"{head}{separator}{last}"
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    return f"{registry}/{path}" + (f"@{digest}" if digest else f":{tag or 'latest'}")


def split_name(name: str) -> tuple[str, str, str]:
    """Return registry, repository, and tag or digest of a full name.

    >>> split_name("docker.io/library/ubuntu:24.04")
    ('docker.io', 'library/ubuntu', '24.04')
    """
    registry, _, path = name.partition("/")
    repository, _, digest = path.partition("@")
    if digest:
        return registry, repository, digest
    repository, _, tag = path.rpartition(":")
    return registry, repository, tag
