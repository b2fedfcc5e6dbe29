"""Hugging Face: lists the files of a repository at one commit, with sizes and hashes.

The Hub returns sizes and hashes with the repository's metadata. It redirects the request for a file to a CDN.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from nosana_operator.fetching.errors import FetchError
from nosana_operator.fetching.listing import Digest, Listing, RemoteFile, Request, always
from nosana_operator.fetching.names import mirrored, safe_path
from nosana_operator.fetching.spec import HuggingFace
from nosana_operator.fetching.web import Web

HUB: Final = "https://huggingface.co"


def list_hugging_face(resource: HuggingFace, mirrors: dict[str, str], web: Web) -> Listing:
    """The files of the repository. Raises FetchError or Interrupted."""
    hub = mirrored(HUB, mirrors)
    what = f"Hugging Face repository {resource.repo!r}"
    headers = {"Authorization": f"Bearer {resource.token}"} if resource.token else {}
    remedy = (
        "check repo and revision, and that the owner of accessToken may read it and has accepted its terms"
        if resource.token
        else "check repo and revision; set accessToken when it is private or its terms have to be accepted"
    )
    revision = f"/revision/{quote(resource.revision, safe='')}" if resource.revision else ""
    repo = quote(resource.repo, safe="/")
    request = Request(f"{hub}/api/models/{repo}{revision}?blobs=true", headers)
    described = f"{what} at revision {resource.revision!r}" if resource.revision else what
    document, _ = web.document(request, described, remedy)
    try:
        info = json.loads(document)
        commit = str(info["sha"])
        siblings: dict[str, Mapping[str, Any]] = {str(file["rfilename"]): file for file in info["siblings"]}
    except (ValueError, KeyError, TypeError):
        raise FetchError(f"{hub} does not respond like a Hugging Face hub for {what}; {remedy}") from None
    selected = target_paths(resource.files) if resource.files else {name: name for name in siblings}
    files = []
    for name, target in selected.items():
        file = siblings.get(name)
        if file is None:
            near = difflib.get_close_matches(name, siblings, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "check `files`"
            raise FetchError(f"{what} has no file {name!r}; {hint}")
        request = Request(f"{hub}/{repo}/resolve/{commit}/{quote(name, safe='/')}", headers)
        files.append(_file(name, safe_path(target, what), request, file, remedy))
    return Listing(tuple(files))


def target_paths(files: Sequence[str]) -> dict[str, str]:
    """Listed file → its path below the target: the name without folders, as job definitions expect it.

    Files whose names without folders are equal keep their folders (docs/decisions/0006).
    """
    uses = Counter(name.rpartition("/")[2] for name in dict.fromkeys(files))
    return {name: name if uses[name.rpartition("/")[2]] > 1 else name.rpartition("/")[2] for name in files}


def _file(
    name: str, path: PurePosixPath, request: Request, file: Mapping[str, Any], remedy: str
) -> RemoteFile:
    large = file.get("lfs")
    if isinstance(large, Mapping) and "sha256" in large:
        return RemoteFile(
            name, path, always(request), int(large["size"]), Digest("sha256", large["sha256"]), remedy
        )
    size, blob = file.get("size"), file.get("blobId")
    return RemoteFile(
        name,
        path,
        always(request),
        size if isinstance(size, int) else None,
        Digest("git-sha1", blob) if isinstance(blob, str) and isinstance(size, int) else None,
        remedy,
    )
