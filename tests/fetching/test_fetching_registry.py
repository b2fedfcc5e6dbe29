"""Ollama: against a registry with the real API."""

from __future__ import annotations

import hashlib

import pytest

from nosana_operator.fetching.errors import FetchError
from nosana_operator.fetching.ollama import ModelName, model_name
from nosana_sandbox.resources.registry import Registry
from support.fetching import Fetch, content_of

WEIGHTS = b"w" * 300_000


@pytest.mark.contract
@pytest.mark.parametrize("wants_token", [False, True])
async def test_model_lies_as_ollama_pull_leaves_it(
    fetch: Fetch, registry: Registry, wants_token: bool
) -> None:
    registry.wants_token = wants_token
    manifest = registry.add("library/tinyllama:latest", WEIGHTS)
    ran = await fetch({"type": "Ollama", "model": "tinyllama"})
    assert (ran.code, ran.message) == (0, "")
    found = content_of(fetch.folder())
    assert found.pop("manifests/registry.ollama.ai/library/tinyllama/latest") == manifest
    assert found == {
        f"blobs/sha256-{hashlib.sha256(content).hexdigest()}": content for content in registry.blobs.values()
    }


@pytest.mark.contract
async def test_damaged_blob_and_missing_model(fetch: Fetch, registry: Registry) -> None:
    registry.add("me/mine:q4", WEIGHTS)
    registry.trouble.damaged["/blobs/"] = 9
    ran = await fetch({"type": "Ollama", "model": "me/mine:q4"})
    assert ran.code == 1
    assert "sha256" in ran.message
    ran = await fetch({"type": "Ollama", "model": "tinylama"})
    assert "there is no Ollama model 'tinylama' (HTTP 404)" in ran.message


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
def test_names(text: str, name: ModelName) -> None:
    assert model_name(text) == name


@pytest.mark.parametrize("text", ["", "a/b/c/d", "../../etc", "a:b:c", "x/../y:z", "a b", "host/ns/.."])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(FetchError, match="no name of an Ollama model"):
        model_name(text)
