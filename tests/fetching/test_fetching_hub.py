"""Hugging Face resources, fetched from a stand-in hub."""

from __future__ import annotations

import pytest

from nosana_sandbox.resources.hub import Hub, Repository
from support.fetching import Fetch, content_of, retried_files

pytestmark = pytest.mark.contract
WEIGHTS = bytes(range(256)) * 2048
FILES = {"config.json": b"{}", "1_Pooling/config.json": b"[]", "deep/er/model.safetensors": WEIGHTS}


@pytest.fixture(autouse=True)
def repository(hub: Hub) -> None:
    hub.repositories["lab/model"] = Repository(FILES)


def hf(**more: object) -> dict[str, object]:
    return {"type": "HF", "repo": "lab/model", **more}


async def test_whole_repository_keeps_its_folders(fetch: Fetch) -> None:
    result = await fetch(hf())
    assert (result.code, result.message) == (0, "")
    assert content_of(fetch.folder()) == FILES
    total = sum(map(len, FILES.values()))
    assert result.lines[-1] | {"rate": 0} == {
        "event": "fetched", "bytes": total, "total": total, "rate": 0, "files": 3, "of": 3,
    }  # fmt: skip


async def test_listed_files_lose_their_folders_unless_they_would_collide(fetch: Fetch) -> None:
    await fetch(hf(files=["deep/er/model.safetensors", "config.json"], revision="main"))
    assert content_of(fetch.folder()) == {"model.safetensors": WEIGHTS, "config.json": b"{}"}
    await fetch(hf(files=list(FILES), folder=str(fetch.folder(1))))
    assert content_of(fetch.folder(1)) == {
        "model.safetensors": WEIGHTS, "config.json": b"{}", "1_Pooling/config.json": b"[]",
    }  # fmt: skip


async def test_a_broken_download_resumes(fetch: Fetch, hub: Hub) -> None:
    hub.faults.cut["model.safetensors"] = [100_000, 200_000]
    result = await fetch(hf(files=["deep/er/model.safetensors"]))
    assert result.code == 0
    assert content_of(fetch.folder()) == {"model.safetensors": WEIGHTS}
    starts = [served.start for served in hub.served]
    assert starts[0] == 0
    assert sorted(starts) == starts
    assert retried_files(result) == ["deep/er/model.safetensors"] * 2


@pytest.mark.parametrize("times", [1, 2])
async def test_a_damaged_file_is_fetched_once_more(fetch: Fetch, hub: Hub, times: int) -> None:
    hub.faults.damaged["model.safetensors"] = times
    result = await fetch(hf(files=["deep/er/model.safetensors"]))
    if times == 1:
        assert result.code == 0
        assert content_of(fetch.folder()) == {"model.safetensors": WEIGHTS}
    else:
        assert result.code == 1
        assert "sha256" in result.message
        assert "deep/er/model.safetensors" in result.message
        assert content_of(fetch.folder()) == {}


async def test_small_files_are_verified_too(fetch: Fetch, hub: Hub) -> None:
    hub.faults.damaged["config.json"] = 9
    result = await fetch(hf(files=["config.json"]))
    assert result.code == 1
    assert "git-sha1" in result.message


async def test_token_goes_to_the_hub(fetch: Fetch, hub: Hub) -> None:
    hub.repositories["lab/model"] = Repository(FILES, token="hf_secret")
    result = await fetch(hf())
    assert result.code == 1
    assert "set accessToken" in result.message
    result = await fetch(hf(token="hf_wrong"))
    assert result.code == 1
    assert "hf_" not in result.message + str(result.lines)
    assert (await fetch(hf(token="hf_secret"))).code == 0
    assert content_of(fetch.folder()) == FILES


async def test_gated_repository_names_the_remedy(fetch: Fetch, hub: Hub) -> None:
    hub.repositories["lab/model"] = Repository(FILES, token="hf_secret", gated=True)
    result = await fetch(hf(token="hf_other"))
    assert "403" in result.message
    assert "accepted its terms" in result.message


async def test_wrong_names_are_reported(fetch: Fetch) -> None:
    result = await fetch(hf(files=["model.safetensor"]))
    assert "has no file 'model.safetensor'" in result.message
    result = await fetch(hf(files=["Config.json"]))
    assert "did you mean 'config.json'?" in result.message
    result = await fetch(hf(revision="v9"))
    assert "at revision 'v9'" in result.message


async def test_a_busy_hub_is_retried(fetch: Fetch, hub: Hub) -> None:
    hub.faults.status["/api/models"] = [503]
    hub.faults.status["/cdn/"] = [429, 500]
    result = await fetch(hf())
    assert result.code == 0
    assert content_of(fetch.folder()) == FILES
    assert len(retried_files(result)) == 3


async def test_a_second_run_resumes_the_first(fetch: Fetch, hub: Hub) -> None:
    hub.faults.cut["model.safetensors"] = [300_000]
    spec = hf(files=["deep/er/model.safetensors", "config.json"])
    hub.faults.status["/config.json"] = [404]
    first = await fetch(spec)
    assert first.code == 1
    hub.served.clear()
    second = await fetch(spec)
    assert second.code == 0
    assert content_of(fetch.folder()) == {"model.safetensors": WEIGHTS, "config.json": b"{}"}


async def test_a_name_that_leads_out_is_refused(fetch: Fetch, hub: Hub) -> None:
    hub.repositories["lab/model"] = Repository({"../../evil": b"x"})
    result = await fetch(hf())
    assert result.code == 1
    assert "leads out of the target folder" in result.message
    assert not (fetch.root.parent / "evil").exists()


async def test_the_token_is_not_sent_to_the_cdn(fetch: Fetch, hub: Hub) -> None:
    """Large files come from a CDN on another host."""
    hub.repositories["lab/model"] = Repository(FILES, token="hf_secret")
    hub.cdn = fetch.mirrors["https://huggingface.co"].replace("127.0.0.1", "localhost")
    assert (await fetch(hf(token="hf_secret"))).code == 0
    authorized = {served.path: served.authorized for served in hub.served}
    assert authorized.pop("/cdn/lab/model/deep/er/model.safetensors") is False
    assert set(authorized.values()) == {True}
