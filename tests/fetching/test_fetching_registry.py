"""Ollama models, fetched from a stand-in registry."""

from __future__ import annotations

import hashlib

import pytest

from nosana_operator.fetching.errors import FetchError
from nosana_operator.fetching.ollama import ModelName, parse_model_name
from nosana_sandbox.resources.ollama_registry import Registry
from support.fetching import Fetch, content_of

WEIGHTS = b"w" * 300_000


@pytest.mark.contract
@pytest.mark.parametrize("requires_token", [False, True])
async def test_model_lies_as_ollama_pull_leaves_it(
    fetch: Fetch, registry: Registry, requires_token: bool
) -> None:
    registry.requires_token = requires_token
    manifest = registry.add("library/tinyllama:latest", WEIGHTS)
    result = await fetch({"type": "Ollama", "model": "tinyllama"})
    assert (result.code, result.message) == (0, "")
    files = content_of(fetch.folder())
    assert files.pop("manifests/registry.ollama.ai/library/tinyllama/latest") == manifest
    assert files == {
        f"blobs/sha256-{hashlib.sha256(content).hexdigest()}": content for content in registry.blobs.values()
    }


@pytest.mark.contract
async def test_damaged_blob_and_missing_model(fetch: Fetch, registry: Registry) -> None:
    registry.add("me/mine:q4", WEIGHTS)
    registry.faults.damaged["/blobs/"] = 9
    result = await fetch({"type": "Ollama", "model": "me/mine:q4"})
    assert result.code == 1
    assert "sha256" in result.message
    result = await fetch({"type": "Ollama", "model": "tinylama"})
    assert "there is no Ollama model 'tinylama' (HTTP 404)" in result.message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("llama3.1", ModelName("registry.ollama.ai", "library", "llama3.1", "latest")),
        ("gpt-oss:120b", ModelName("registry.ollama.ai", "library", "gpt-oss", "120b")),
        ("me/mine:q4_K_M", ModelName("registry.ollama.ai", "me", "mine", "q4_K_M")),
        ("hf.co/lab/model-GGUF:Q8_0", ModelName("hf.co", "lab", "model-GGUF", "Q8_0")),
        ("host:5000/ns/m", ModelName("host:5000", "ns", "m", "latest")),
    ],
)
def test_names_get_their_defaults(text: str, name: ModelName) -> None:
    assert parse_model_name(text) == name


@pytest.mark.parametrize("text", ["", "a/b/c/d", "../../etc", "a:b:c", "x/../y:z", "a b", "host/ns/.."])
def test_invalid_names_are_refused(text: str) -> None:
    with pytest.raises(FetchError, match="is not the name of an Ollama model"):
        parse_model_name(text)
