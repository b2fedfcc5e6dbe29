"""Ollama: lists a model's manifest and blobs in a registry, for the file layout of `ollama pull`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, urlencode

from nosana_operator.fetching.errors import FetchError
from nosana_operator.fetching.listing import Digest, Listing, RemoteFile, Request, always
from nosana_operator.fetching.names import mirrored, safe_path
from nosana_operator.fetching.spec import Ollama
from nosana_operator.fetching.web import Web

REGISTRY: Final = "registry.ollama.ai"
_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class ModelName:
    """`[host/][namespace/]model[:tag]` with defaults filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def path(self) -> str:
        """The path of the repository in the registry."""
        return f"{self.namespace}/{self.model}"


def parse_model_name(text: str) -> ModelName:
    """Parse a model's name and fill in defaults. Raises FetchError when it is invalid."""
    head, _, last = text.strip().rpartition("/")
    last, _, tag = last.partition(":")
    parts = [*(head.split("/") if head else []), last]
    host = parts.pop(0) if len(parts) == 3 else REGISTRY
    namespace = parts.pop(0) if len(parts) == 2 else "library"
    name = ModelName(host, namespace, parts[0], tag or "latest")
    port = re.fullmatch(r"([A-Za-z0-9.-]+)(:[0-9]{1,5})?", name.host)
    if len(parts) != 1 or not port or not all(map(_PART.fullmatch, (namespace, name.model, name.tag))):
        raise FetchError(f"{text[:200]!r} is not the name of an Ollama model; write it as for `ollama pull`")
    return name


def list_ollama(resource: Ollama, mirrors: dict[str, str], web: Web) -> Listing:
    """The model's blobs and manifest. Raises FetchError or Interrupted."""
    name = parse_model_name(resource.model)
    what = f"Ollama model {resource.model!r}"
    registry = mirrored(f"https://{name.host}", mirrors)
    remedy = "check the model and its tag as the registry lists them"
    base = f"{registry}/v2/{quote(name.path)}"
    headers = {"Accept": _MANIFEST}
    request = Request(f"{base}/manifests/{quote(name.tag)}", headers)
    headers |= _authorization(request, name, web)
    manifest, _ = web.document(Request(request.url, headers), what, remedy)
    try:
        document = json.loads(manifest)
        blobs = {str(b["digest"]): int(b["size"]) for b in (document["config"], *document["layers"])}
        hashes = {digest: match[1] for digest in blobs if (match := _DIGEST.fullmatch(digest))}
    except (ValueError, KeyError, TypeError):
        hashes, blobs = {}, {"?": 0}
    if len(hashes) != len(blobs):
        raise FetchError(f"{registry} does not respond like an Ollama registry for {what}; {remedy}")
    authorization = {key: value for key, value in headers.items() if key == "Authorization"}
    files = tuple(
        RemoteFile(
            f"{resource.model} (blob {hashes[digest][:12]})",
            PurePosixPath("blobs", f"sha256-{hashes[digest]}"),
            always(Request(f"{base}/blobs/{digest}", authorization)),
            size,
            Digest("sha256", hashes[digest]),
            remedy,
        )
        for digest, size in blobs.items()
    )
    path = safe_path(f"manifests/{name.host.replace(':', '+')}/{name.path}/{name.tag}", what)
    return Listing(files, {path: manifest})


def _authorization(request: Request, name: ModelName, web: Web) -> dict[str, str]:
    """The header with an anonymous token, for registries that require one even for public models; else empty."""
    with web.get(request) as response:
        challenge = response.headers.get("WWW-Authenticate", "") if response.status == 401 else ""
        response.close()
    fields = dict(_CHALLENGE.findall(challenge))
    if not challenge.lower().startswith("bearer") or not fields.get("realm", "").startswith("http"):
        return {}
    query = urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
    what = f"a token for {name.path}"
    request = Request(f"{fields['realm']}?{query}")
    data, _ = web.document(request, what, "the registry issues tokens to account holders only")
    try:
        document = json.loads(data)
        return {"Authorization": f"Bearer {document.get('token') or document['access_token']}"}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FetchError(f"the registry issues no token for {name.path}; the model may be private") from None
