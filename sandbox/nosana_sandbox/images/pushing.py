"""Pushes images to a registry by its HTTP API (the distribution specification, v2)."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from typing import Final

from nosana_operator.errors import NosanaError
from nosana_sandbox.images.archive import MANIFEST_TYPE, Login, Packed

_OK: Final = frozenset({200, 201, 202})
_ABSENT: Final = 404


class RegistryError(NosanaError):
    """The registry refused a request; the message says which and why."""


class RegistryClient:
    """Pushes images over `connection`, which stays open between requests."""

    def __init__(self, connection: http.client.HTTPConnection, login: Login | None = None) -> None:
        """`login`: for a registry that requires one."""
        self._connection = connection
        self._headers: dict[str, str] = {}
        if login is not None:
            secret = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"

    def digest(self, repository: str, tag: str) -> str | None:
        """Return the SHA-256, in hex, of the manifest that the tag points to; None when there is none."""
        headers = {"Accept": MANIFEST_TYPE}
        status, answer = self._send("HEAD", f"/v2/{repository}/manifests/{tag}", headers=headers)
        if status == _ABSENT:
            return None
        return answer["Docker-Content-Digest"].removeprefix("sha256:")

    def push(self, repository: str, tag: str, image: Packed) -> None:
        """Push the image; blobs that the repository has already are not sent again."""
        for digest, content in image.blobs.items():
            if digest != image.manifest:
                self._push_blob(repository, digest, content)
        self._send(
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            body=image.blobs[image.manifest],
            headers={"Content-Type": MANIFEST_TYPE},
        )

    def _push_blob(self, repository: str, digest: str, content: bytes) -> None:
        path = f"/v2/{repository}/blobs"
        status, _ = self._send("HEAD", f"{path}/sha256:{digest}")
        if status != _ABSENT:
            return
        _, answer = self._send("POST", f"{path}/uploads/")
        where = answer["Location"]
        target = where[where.index("/v2/") :]
        target += ("&" if "?" in target else "?") + f"digest=sha256:{digest}"
        self._send("PUT", target, body=content, headers={"Content-Type": "application/octet-stream"})

    def _send(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage]:
        """Return status and headers; 404 is an answer to HEAD alone. Raises `RegistryError`."""
        self._connection.request(method, path, body, {**self._headers, **(headers or {})})
        response = self._connection.getresponse()
        content = response.read()
        if response.status not in _OK and (method, response.status) != ("HEAD", _ABSENT):
            raise RegistryError(
                f"{method} {path} was answered with {response.status}: {_said(content) or response.reason}"
            )
        return response.status, response.headers


def _said(content: bytes) -> str:
    try:
        return "; ".join(str(error.get("message")) for error in json.loads(content)["errors"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return content.decode(errors="replace").strip()
