"""A stand-in for the Hugging Face Hub: repositories with commits, private ones, redirects to a CDN."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from nosana_sandbox.resources.serving import Faults, Served, serve

_LARGE: Final = 1 << 16
"""Files of this size and larger are in large-file storage, smaller ones in Git."""


@dataclass(frozen=True, slots=True)
class Repository:
    """Files by path. `token`: required for access; `gated`: its terms have to be accepted first.

    All `revisions` are names of the one commit.
    """

    files: Mapping[str, bytes]
    revisions: frozenset[str] = frozenset({"main"})
    token: str | None = None
    gated: bool = False

    @property
    def commit(self) -> str:
        """The hash of the one commit."""
        state = hashlib.sha1(usedforsecurity=False)
        for path, content in sorted(self.files.items()):
            state.update(path.encode() + b"\0" + content)
        return state.hexdigest()


@dataclass(slots=True)
class Hub:
    """All repositories by `owner/name`."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    cdn: str = ""
    """Origin of the CDN; empty: the hub itself."""
    faults: Faults = field(default_factory=Faults)
    served: list[Served] = field(default_factory=list)


def hub_app(hub: Hub) -> web.Application:
    """The Hub as a web application."""
    app = web.Application()

    def find(request: web.Request) -> Repository | web.Response:
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = hub.repositories.get(name)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.token and not repository.gated and token != repository.token):
            # The real hub does not reveal whether a private repository exists.
            return _refusal(401 if not token else 404, "RepoNotFound", "Repository not found")
        if repository.gated and token != repository.token:
            return _refusal(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted")
        return repository

    async def info(request: web.Request) -> web.StreamResponse:
        status = hub.faults.next_status(request.path)
        if status is not None:
            return web.Response(status=status)
        repository = find(request)
        if isinstance(repository, web.Response):
            return repository
        revision = request.match_info.get("revision", "main")
        if revision not in (*repository.revisions, "main", repository.commit):
            return _refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        blobs = "blobs" in request.query
        siblings = [_sibling(path, content, blobs) for path, content in sorted(repository.files.items())]
        return web.json_response({"sha": repository.commit, "siblings": siblings})

    async def resolve(request: web.Request) -> web.StreamResponse:
        repository = find(request)
        if isinstance(repository, web.Response):
            return repository
        path = request.match_info["path"]
        if path not in repository.files or request.match_info["revision"] != repository.commit:
            return _refusal(404, "EntryNotFound", "Entry not found")
        content = repository.files[path]
        if len(content) < _LARGE:
            return await serve(
                request, content, etag=f'"{_git_sha1(content)}"', faults=hub.faults, log=hub.served
            )
        owner, name = request.match_info["owner"], request.match_info["name"]
        headers = {
            "Location": f"{hub.cdn}/cdn/{owner}/{name}/{path}",
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
        }
        return web.Response(status=302, headers=headers)

    async def cdn(request: web.Request) -> web.StreamResponse:
        repository = hub.repositories[f"{request.match_info['owner']}/{request.match_info['name']}"]
        return await serve(
            request, repository.files[request.match_info["path"]], faults=hub.faults, log=hub.served
        )

    app.router.add_get("/api/models/{owner}/{name}", info)
    app.router.add_get("/api/models/{owner}/{name}/revision/{revision}", info)
    app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", resolve)
    app.router.add_get("/cdn/{owner}/{name}/{path:.+}", cdn)
    return app


def _sibling(path: str, content: bytes, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": len(content), "blobId": _git_sha1(content)}
        if len(content) >= _LARGE:
            digest = hashlib.sha256(content).hexdigest()
            pointer = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
            )
            sibling["blobId"] = _git_sha1(pointer.encode())
            sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": len(pointer)}
    return sibling


def _refusal(status: int, code: str, message: str) -> web.Response:
    return web.json_response(
        {"error": message}, status=status, headers={"X-Error-Code": code, "X-Error-Message": message}
    )


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
