"""A Hugging Face Hub: repositories with commits, gated and private ones, and a CDN behind redirects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from nosana_sandbox.resources.serving import Served, Trouble, serve

_LARGE: Final = 1 << 16
"""From this size on a file is in large-file storage; smaller ones are Git's."""


@dataclass(frozen=True, slots=True)
class Repository:
    """Files by path. `token`: who has to ask for it; `gated`: its terms have to be accepted first.

    All of `revisions` are its one commit.
    """

    files: Mapping[str, bytes]
    revisions: frozenset[str] = frozenset({"main"})
    token: str | None = None
    gated: bool = False

    @property
    def commit(self) -> str:
        """The one commit that it has."""
        state = hashlib.sha1(usedforsecurity=False)
        for path, content in sorted(self.files.items()):
            state.update(path.encode() + b"\0" + content)
        return state.hexdigest()


@dataclass(slots=True)
class Hub:
    """All repositories by `owner/name`."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    cdn: str = ""
    """Origin of the CDN; empty: the hub's own."""
    trouble: Trouble = field(default_factory=Trouble)
    served: list[Served] = field(default_factory=list)


def hub_app(hub: Hub) -> web.Application:
    """The Hub as a web application."""
    app = web.Application()

    def find(request: web.Request) -> Repository | web.Response:
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = hub.repositories.get(name)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.token and not repository.gated and token != repository.token):
            # The real one does not tell a stranger whether a private repository is there.
            return _refusal(401 if not token else 404, "RepoNotFound", "Repository not found")
        if repository.gated and token != repository.token:
            return _refusal(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted")
        return repository

    async def info(request: web.Request) -> web.StreamResponse:
        status = hub.trouble.next_status(request.path)
        if status is not None:
            return web.Response(status=status)
        found = find(request)
        if isinstance(found, web.Response):
            return found
        revision = request.match_info.get("revision", "main")
        if revision not in (*found.revisions, "main", found.commit):
            return _refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        blobs = "blobs" in request.query
        siblings = [_sibling(path, content, blobs) for path, content in sorted(found.files.items())]
        return web.json_response({"sha": found.commit, "siblings": siblings})

    async def resolve(request: web.Request) -> web.StreamResponse:
        found = find(request)
        if isinstance(found, web.Response):
            return found
        path = request.match_info["path"]
        if path not in found.files or request.match_info["revision"] != found.commit:
            return _refusal(404, "EntryNotFound", "Entry not found")
        content = found.files[path]
        if len(content) < _LARGE:
            return await serve(
                request, content, etag=f'"{_git_sha1(content)}"', trouble=hub.trouble, log=hub.served
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
            request, repository.files[request.match_info["path"]], trouble=hub.trouble, log=hub.served
        )

    app.router.add_get("/api/models/{owner}/{name}", info)
    app.router.add_get("/api/models/{owner}/{name}/revision/{revision}", info)
    app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", resolve)
    app.router.add_get("/cdn/{owner}/{name}/{path:.+}", cdn)
    return app


def _sibling(path: str, content: bytes, blobs: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"rfilename": path}
    if blobs:
        told |= {"size": len(content), "blobId": _git_sha1(content)}
        if len(content) >= _LARGE:
            digest = hashlib.sha256(content).hexdigest()
            pointer = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
            )
            told["blobId"] = _git_sha1(pointer.encode())
            told["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": len(pointer)}
    return told


def _refusal(status: int, code: str, message: str) -> web.Response:
    return web.json_response(
        {"error": message}, status=status, headers={"X-Error-Code": code, "X-Error-Message": message}
    )


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
