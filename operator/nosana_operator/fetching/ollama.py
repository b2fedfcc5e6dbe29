"""Ollama: a model's manifest and blobs from a registry, laid out as `ollama pull` leaves them."""

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
    """`[host/][namespace/]model[:tag]`, complete."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def path(self) -> str:
        """Of its repository in the registry."""
        return f"{self.namespace}/{self.model}"


def model_name(text: str) -> ModelName:
    """The name with the parts that it leaves out. Raises FetchError when it is none."""
    head, _, last = text.strip().rpartition("/")
    last, _, tag = last.partition(":")
    parts = [*(head.split("/") if head else []), last]
    host = parts.pop(0) if len(parts) == 3 else REGISTRY
    namespace = parts.pop(0) if len(parts) == 2 else "library"
    name = ModelName(host, namespace, parts[0], tag or "latest")
    port = re.fullmatch(r"([A-Za-z0-9.-]+)(:[0-9]{1,5})?", name.host)
    if len(parts) != 1 or not port or not all(map(_PART.fullmatch, (namespace, name.model, name.tag))):
        raise FetchError(f"{text[:200]!r} is no name of an Ollama model; write it as for `ollama pull`")
    return name


def list_ollama(resource: Ollama, mirrors: dict[str, str], web: Web) -> Listing:
    """The model's blobs, and its manifest. Raises FetchError or Interrupted."""
    name = model_name(resource.model)
    what = f"Ollama model {resource.model!r}"
    registry = mirrored(f"https://{name.host}", mirrors)
    remedy = "check the model and its tag as the registry lists them"
    base = f"{registry}/v2/{quote(name.path)}"
    headers = {"Accept": _MANIFEST}
    asked = Request(f"{base}/manifests/{quote(name.tag)}", headers)
    headers |= _token(asked, name, web)
    manifest, _ = web.document(Request(asked.url, headers), what, remedy)
    try:
        document = json.loads(manifest)
        blobs = {str(b["digest"]): int(b["size"]) for b in (document["config"], *document["layers"])}
        hashes = {digest: match[1] for digest in blobs if (match := _DIGEST.fullmatch(digest))}
    except (ValueError, KeyError, TypeError):
        hashes, blobs = {}, {"?": 0}
    if len(hashes) != len(blobs):
        raise FetchError(f"{registry} does not answer as an Ollama registry for {what}; {remedy}")
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
    place = safe_path(f"manifests/{name.host.replace(':', '+')}/{name.path}/{name.tag}", what)
    return Listing(files, {place: manifest})


def _token(asked: Request, name: ModelName, web: Web) -> dict[str, str]:
    """The header of an anonymous token, where the registry wants one even for public models."""
    with web.get(asked) as answer:
        challenge = answer.headers.get("WWW-Authenticate", "") if answer.status == 401 else ""
        answer.close()
    fields = dict(_CHALLENGE.findall(challenge))
    if not challenge.lower().startswith("bearer") or not fields.get("realm", "").startswith("http"):
        return {}
    query = urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
    what = f"a token for {name.path}"
    asked = Request(f"{fields['realm']}?{query}")
    data, _ = web.document(asked, what, "the registry gives it to account holders only")
    try:
        document = json.loads(data)
        return {"Authorization": f"Bearer {document.get('token') or document['access_token']}"}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FetchError(f"the registry gives no token for {name.path}; the model may be private") from None
