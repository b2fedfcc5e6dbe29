"""OCI images, made of bytes alone: the same image gives the same bytes and so the same digests.

An archive holds any number of images; what they share (the root file system of all stand-ins) is in it once.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# Go's names of the machine, by Python's.
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}

_OCI: Final = "application/vnd.oci.image"
MANIFEST_TYPE: Final = f"{_OCI}.manifest.v1+json"


@dataclass(frozen=True)
class File:
    """One entry of a layer: a file with `content`, a folder (`content` None), or a link (`link` set)."""

    content: bytes | None = None
    mode: int = 0o644
    link: str | None = None


@dataclass(frozen=True)
class Login:
    """Who may pull an image that is not public."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Image:
    """An image under its full name. `layers` are plain tar archives, the lowest first.

    With a `login` only who knows it can pull the image.
    """

    name: str
    layers: tuple[bytes, ...]
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    login: Login | None = None
    user: str = ""
    """`uid:gid` that it runs as; empty: root."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Packed:
    """An image as archives and registries hold it: `blobs` by SHA-256 in hex, `manifest` is one of them."""

    manifest: str
    blobs: Mapping[str, bytes]


def folder() -> File:
    """Return an ordinary folder for a layer."""
    return File(None, 0o755)


def script(text: str) -> File:
    """Return an executable file for a layer."""
    return File(text.encode(), 0o755)


def layer(files: Mapping[str, File]) -> bytes:
    """Return a tar archive of `files` by path (no leading slash); folders above a file come by themselves."""
    entries = dict(files)
    for path in files:
        for above in Path(path).parents:
            if str(above) != ".":
                entries.setdefault(str(above), folder())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        # Sorted, a folder comes before what is in it.
        for path in sorted(entries):
            _add(tar, path, entries[path])
    return out.getvalue()


def pack(image: Image, machine: str) -> Packed:
    """Return the image's manifest, configuration and layers, for `machine` (as `platform.machine()` says)."""
    blobs: dict[str, bytes] = {}
    config = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {
            "Env": [f"{name}={value}" for name, value in image.environment.items()],
            **({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}),
            **({"Cmd": list(image.cmd)} if image.cmd else {}),
            **({"User": image.user} if image.user else {}),
            **({"Labels": dict(image.labels)} if image.labels else {}),
        },
        # A layer that is not compressed has one digest for both of its uses.
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(part)}" for part in image.layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _blob(_json(config), f"{_OCI}.config.v1+json", blobs),
        "layers": [_blob(part, f"{_OCI}.layer.v1.tar", blobs) for part in image.layers],
    }
    text = _json(manifest)
    blobs[_digest(text)] = text
    return Packed(_digest(text), blobs)


def write_archive(images: Iterable[Image], machine: str, to: Path) -> None:
    """Write the images as one OCI archive for `machine` (as `platform.machine()` calls it)."""
    blobs: dict[str, bytes] = {}
    manifests = []
    for image in images:
        packed = pack(image, machine)
        blobs |= packed.blobs
        entry = _blob(packed.blobs[packed.manifest], MANIFEST_TYPE, blobs)
        manifests.append({**entry, "annotations": {"io.containerd.image.name": image.name}})
    index = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.index.v1+json",
        "manifests": manifests,
    }
    files = {
        "oci-layout": File(_json({"imageLayoutVersion": "1.0.0"})),
        "index.json": File(_json(index)),
        **{f"blobs/sha256/{digest}": File(content) for digest, content in blobs.items()},
    }
    to.write_bytes(layer(files))


def _blob(content: bytes, media_type: str, blobs: dict[str, bytes]) -> dict[str, Any]:
    digest = _digest(content)
    blobs[digest] = content
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add(tar: tarfile.TarFile, path: str, file: File) -> None:
    # Owner root, time 0: nothing of the machine that builds gets in.
    entry = tarfile.TarInfo(path)
    entry.mode = file.mode
    if file.link is not None:
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, file.link, 0o777
        tar.addfile(entry)
    elif file.content is None:
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    else:
        entry.size = len(file.content)
        tar.addfile(entry, io.BytesIO(file.content))
