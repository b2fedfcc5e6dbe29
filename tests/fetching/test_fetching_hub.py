"""Hugging Face: against a hub with the real API."""

from __future__ import annotations

import pytest

from nosana_sandbox.resources.hub import Hub, Repository
from support.fetching import Fetch, content_of, names_of

pytestmark = pytest.mark.contract
WEIGHTS = bytes(range(256)) * 2048
FILES = {"config.json": b"{}", "1_Pooling/config.json": b"[]", "deep/er/model.safetensors": WEIGHTS}


@pytest.fixture(autouse=True)
def repository(hub: Hub) -> None:
    hub.repositories["lab/model"] = Repository(FILES)


def hf(**more: object) -> dict[str, object]:
    return {"type": "HF", "repo": "lab/model", **more}


async def test_whole_repository_keeps_its_folders(fetch: Fetch) -> None:
    ran = await fetch(hf())
    assert (ran.code, ran.message) == (0, "")
    assert content_of(fetch.folder()) == FILES
    total = sum(map(len, FILES.values()))
    assert ran.lines[-1] | {"rate": 0} == {
        "event": "fetched", "bytes": total, "total": total, "rate": 0, "files": 3, "of": 3,
    }  # fmt: skip


async def test_listed_files_lose_their_folders_unless_they_would_collide(fetch: Fetch) -> None:
    await fetch(hf(files=["deep/er/model.safetensors", "config.json"], revision="main"))
    assert content_of(fetch.folder()) == {"model.safetensors": WEIGHTS, "config.json": b"{}"}
    await fetch(hf(files=list(FILES), folder=str(fetch.folder(1))))
    assert content_of(fetch.folder(1)) == {
        "model.safetensors": WEIGHTS, "config.json": b"{}", "1_Pooling/config.json": b"[]",
    }  # fmt: skip


async def test_goes_on_where_it_was_cut(fetch: Fetch, hub: Hub) -> None:
    hub.trouble.cut["model.safetensors"] = [100_000, 200_000]
    ran = await fetch(hf(files=["deep/er/model.safetensors"]))
    assert ran.code == 0
    assert content_of(fetch.folder()) == {"model.safetensors": WEIGHTS}
    starts = [served.start for served in hub.served]
    assert starts[0] == 0
    assert sorted(starts) == starts
    assert names_of(ran) == ["deep/er/model.safetensors"] * 2


@pytest.mark.parametrize("times", [1, 2])
async def test_damage_is_found_and_fetched_once_more(fetch: Fetch, hub: Hub, times: int) -> None:
    hub.trouble.damaged["model.safetensors"] = times
    ran = await fetch(hf(files=["deep/er/model.safetensors"]))
    if times == 1:
        assert ran.code == 0
        assert content_of(fetch.folder()) == {"model.safetensors": WEIGHTS}
    else:
        assert ran.code == 1
        assert "sha256" in ran.message
        assert "deep/er/model.safetensors" in ran.message
        assert content_of(fetch.folder()) == {}


async def test_small_files_are_verified_too(fetch: Fetch, hub: Hub) -> None:
    hub.trouble.damaged["config.json"] = 9
    ran = await fetch(hf(files=["config.json"]))
    assert ran.code == 1
    assert "git-sha1" in ran.message


async def test_token_goes_to_the_hub(fetch: Fetch, hub: Hub) -> None:
    hub.repositories["lab/model"] = Repository(FILES, token="hf_secret")
    ran = await fetch(hf())
    assert ran.code == 1
    assert "set accessToken" in ran.message
    ran = await fetch(hf(token="hf_wrong"))
    assert ran.code == 1
    assert "hf_" not in ran.message + str(ran.lines)
    assert (await fetch(hf(token="hf_secret"))).code == 0
    assert content_of(fetch.folder()) == FILES


async def test_gated_repository_names_the_remedy(fetch: Fetch, hub: Hub) -> None:
    hub.repositories["lab/model"] = Repository(FILES, token="hf_secret", gated=True)
    ran = await fetch(hf(token="hf_other"))
    assert "403" in ran.message
    assert "accepted its terms" in ran.message


async def test_wrong_names_are_told(fetch: Fetch) -> None:
    ran = await fetch(hf(files=["model.safetensor"]))
    assert "has no file 'model.safetensor'" in ran.message
    ran = await fetch(hf(files=["Config.json"]))
    assert "did you mean 'config.json'?" in ran.message
    ran = await fetch(hf(revision="v9"))
    assert "at revision 'v9'" in ran.message


async def test_busy_hub_is_asked_again(fetch: Fetch, hub: Hub) -> None:
    hub.trouble.status["/api/models"] = [503]
    hub.trouble.status["/cdn/"] = [429, 500]
    ran = await fetch(hf())
    assert ran.code == 0
    assert content_of(fetch.folder()) == FILES
    assert len(names_of(ran)) == 3


async def test_an_earlier_run_is_gone_on_from(fetch: Fetch, hub: Hub) -> None:
    hub.trouble.cut["model.safetensors"] = [300_000]
    spec = hf(files=["deep/er/model.safetensors", "config.json"])
    hub.trouble.status["/config.json"] = [404]
    first = await fetch(spec)
    assert first.code == 1
    hub.served.clear()
    second = await fetch(spec)
    assert second.code == 0
    assert content_of(fetch.folder()) == {"model.safetensors": WEIGHTS, "config.json": b"{}"}


async def test_a_name_that_leads_out_is_refused(fetch: Fetch, hub: Hub) -> None:
    hub.repositories["lab/model"] = Repository({"../../evil": b"x"})
    ran = await fetch(hf())
    assert ran.code == 1
    assert "leads out of the target folder" in ran.message
    assert not (fetch.root.parent / "evil").exists()


async def test_the_token_stays_with_the_hub(fetch: Fetch, hub: Hub) -> None:
    """Large files come from a CDN on another host, which is none of the token's business."""
    hub.repositories["lab/model"] = Repository(FILES, token="hf_secret")
    hub.cdn = fetch.mirrors["https://huggingface.co"].replace("127.0.0.1", "localhost")
    assert (await fetch(hf(token="hf_secret"))).code == 0
    told = {served.path: served.authorized for served in hub.served}
    assert told.pop("/cdn/lab/model/deep/er/model.safetensors") is False
    assert set(told.values()) == {True}
