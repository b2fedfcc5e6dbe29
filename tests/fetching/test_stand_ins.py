"""Stand-in content for the resources of job definitions."""

from __future__ import annotations

import pytest

from nosana_sandbox.resources.bucket import Bucket
from nosana_sandbox.resources.catalogue import stock
from nosana_sandbox.resources.hub import Hub
from nosana_sandbox.resources.ollama_registry import Registry
from support.fetching import Fetch, content_of

DEFINITION = {
    "global": {"variables": {"MODEL": "gpt-oss:20b"}},
    "ops": [
        {"args": {"image": "a"}},
        {
            "args": {
                "resources": [
                    {
                        "type": "HF",
                        "repo": "lab/m",
                        "files": ["a/x.bin", "y"],
                        "revision": "v1",
                        "accessToken": "t",
                    },
                    {"type": "HF", "repo": "lab/m", "files": ["z"]},
                    {"type": "Ollama", "model": "%%global.variables.MODEL%%"},
                    {"type": "Ollama", "model": "no name"},
                    "__remove-if-empty__",
                    {"__spread__": "%%ops.x.results.y%%"},
                ]
            }
        },
    ],
}


@pytest.mark.contract
async def test_everything_that_a_definition_refers_to_can_be_fetched(
    fetch: Fetch, hub: Hub, registry: Registry, public_bucket: Bucket
) -> None:
    stock([DEFINITION], public_bucket, hub, registry)
    public_bucket.anything = True
    result = await fetch(
        {"type": "HF", "repo": "lab/m", "files": ["a/x.bin", "y"], "revision": "v1"},
        {"type": "Ollama", "model": "gpt-oss:20b"},
        {"type": "S3", "sources": [{"url": "https://models.test/any/thing"}]},
        {"type": "S3", "sources": [{"url": "https://models.test/some", "files": ["file"]}]},
    )
    assert (result.code, result.message) == (0, "")
    assert content_of(fetch.folder(0)) == {
        "x.bin": b"stand-in for lab/m/a/x.bin\n",
        "y": b"stand-in for lab/m/y\n",
    }
    assert b"stand-in for library/gpt-oss:20b\n" in content_of(fetch.folder(1)).values()
    assert content_of(fetch.folder(2)) == {"stand-in": b"stand-in for any/thing/stand-in\n"}
    assert content_of(fetch.folder(3)) == {"file": b"stand-in for some/file\n"}
