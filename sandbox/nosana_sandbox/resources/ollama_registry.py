"""A stand-in for Ollama's registry: manifests and blobs, and anonymous tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from nosana_sandbox.resources.serving import Faults, Served, serve

_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_TOKEN: Final = "anybody's"


@dataclass(slots=True)
class Registry:
    """Models by `namespace/model:tag`. `requires_token`: pulls need a token from /token."""

    requires_token: bool = False
    faults: Faults = field(default_factory=Faults)
    served: list[Served] = field(default_factory=list)
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def add(self, model: str, weights: bytes) -> bytes:
        """Add a model and return the bytes of its manifest. The name is complete: `library/tinyllama:latest`."""
        config = json.dumps({"model_format": "gguf", "model_family": "llama"}).encode()
        layers = [
            ("application/vnd.ollama.image.model", weights),
            ("application/vnd.ollama.image.template", b"{{ .Prompt }}"),
            ("application/vnd.ollama.image.license", b"a licence"),
        ]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": self._blob("application/vnd.docker.container.image.v1+json", config),
                "layers": [self._blob(kind, content) for kind, content in layers],
            }
        ).encode()
        self.manifests[model] = manifest
        return manifest

    def _blob(self, kind: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}


def registry_app(registry: Registry) -> web.Application:
    """The registry as a web application."""
    app = web.Application()

    def unauthorized(request: web.Request) -> web.Response | None:
        if not registry.requires_token or request.headers.get("Authorization") == f"Bearer {_TOKEN}":
            return None
        realm = f"{request.url.origin()}/token"
        scope = f"repository:{request.match_info['namespace']}/{request.match_info['model']}:pull"
        challenge = f'Bearer realm="{realm}",service="ollama",scope="{scope}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async def token(request: web.Request) -> web.Response:
        if not request.query.get("scope"):
            return web.Response(status=400)
        return web.json_response({"token": _TOKEN})

    async def manifest(request: web.Request) -> web.Response:
        status = registry.faults.next_status(request.path)
        if status is not None:
            return web.Response(status=status)
        if refused := unauthorized(request):
            return refused
        info = request.match_info
        document = registry.manifests.get(f"{info['namespace']}/{info['model']}:{info['tag']}")
        if document is None:
            problem = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return web.json_response(problem, status=404)
        return web.Response(body=document, content_type=_MANIFEST)

    async def blob(request: web.Request) -> web.StreamResponse:
        if refused := unauthorized(request):
            return refused
        content = registry.blobs.get(request.match_info["digest"])
        if content is None:
            return web.Response(status=404)
        return await serve(request, content, faults=registry.faults, log=registry.served)

    app.router.add_get("/token", token)
    app.router.add_get("/v2/{namespace}/{model}/manifests/{tag}", manifest)
    app.router.add_get("/v2/{namespace}/{model}/blobs/{digest}", blob)
    return app
