"""The sandbox's IPFS, with requests as clients of Kubo, Pinata and gateways send them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from nosana_operator.content import FetchTimeouts, IpfsGateways, KuboPinner, PinataPinner, cid_of
from nosana_sandbox.ipfs import IpfsStore, ipfs_app

VECTORS = Path(__file__).parents[2] / "data" / "ipfs-cid.json"
TOKEN = {"Authorization": "Bearer anything"}
BIG = bytes(range(256)) * 4096  # 1 MiB: four chunks and a root


@pytest.fixture
def store() -> IpfsStore:
    return IpfsStore()


@pytest.fixture
async def client(store: IpfsStore) -> AsyncIterator[Any]:
    async with TestClient(TestServer(ipfs_app(store))) as client:
        yield client


def form(data: bytes, **fields: object) -> aiohttp.FormData:
    built = aiohttp.FormData()
    built.add_field("file", data, filename="job.json", content_type="application/octet-stream")
    for name, value in fields.items():
        built.add_field(name, json.dumps(value))
    return built


async def test_pinned_json_has_the_known_cid_wrapped_or_bare(client: TestClient) -> None:
    vector = json.loads(VECTORS.read_text())[0]
    for body in (
        vector["definition"],
        {"pinataContent": vector["definition"], "pinataMetadata": {"name": "x"}},
    ):
        answer = await client.post("/pinning/pinJSONToIPFS", json=body, headers=TOKEN)
        pinned = await answer.json()
        assert answer.status == 200
        assert pinned["IpfsHash"] == vector["cid"]
        assert pinned["PinSize"] > len(json.dumps(vector["definition"], separators=(",", ":")))
        assert pinned["Timestamp"].endswith("Z")
    assert pinned["isDuplicate"] is True
    served = await client.get(f"/ipfs/{vector['cid']}")
    assert await served.json() == vector["definition"]


async def test_kubo_add_responds_with_a_line_per_file(client: TestClient, store: IpfsStore) -> None:
    answer = await client.post("/api/v0/add?cid-version=0&pin=true", data=form(BIG))
    line = json.loads(await answer.text())
    assert (line["Name"], line["Hash"]) == ("job.json", cid_of(BIG))
    assert int(line["Size"]) == store.pins[cid_of(BIG)].size
    pins = await (await client.post("/api/v0/pin/ls")).json()
    assert pins["Keys"] == {cid_of(BIG): {"Type": "recursive", "Name": ""}}
    missing = await client.post("/api/v0/pin/ls?arg=QmNLei78zWmzUdbeRB3CiUfAizWUrbeeZh5K1rhAQKCh51")
    assert missing.status == 500


@pytest.mark.parametrize("query", ["cid-version=1", "raw-leaves=true", "chunker=size-1024"])
async def test_kubo_add_refuses_what_would_give_another_cid(client: TestClient, query: str) -> None:
    answer = await client.post(f"/api/v0/add?{query}", data=form(b"x"))
    assert answer.status == 500
    assert (await answer.json())["Type"] == "error"


async def test_gateway_serves_exact_bytes_and_the_raw_root_block(
    client: TestClient, store: IpfsStore
) -> None:
    cid = store.add(BIG).cid
    assert await (await client.get(f"/ipfs/{cid}")).read() == BIG
    raw = await client.get(f"/ipfs/{cid}?format=raw")
    assert raw.content_type == "application/vnd.ipld.raw"
    block = await raw.read()
    assert len(block) < 300  # links only
    assert await (await client.get(f"/ipfs/{cid}", headers={"Accept": raw.content_type})).read() == block


async def test_the_same_block_is_found_under_both_cid_versions(client: TestClient, store: IpfsStore) -> None:
    vector = json.loads(VECTORS.read_text())[0]
    data = json.dumps(vector["definition"], separators=(",", ":")).encode()
    assert store.add(data).cid == vector["cid"]
    as_v1 = "bafybeicokfensxwutxktp2crc23mihgxpwjc3tzi7agovoqlvn4wt7rpva"
    assert await (await client.get(f"/ipfs/{as_v1}")).read() == data
    leaf = store.put_block(b"a raw leaf", dag_pb=False)
    assert leaf.startswith("bafkrei")
    assert await (await client.get(f"/ipfs/{leaf}")).read() == b"a raw leaf"


async def test_gateway_refuses_invalid_requests(client: TestClient, store: IpfsStore) -> None:
    cid = store.add(b"here").cid
    assert (await client.get("/ipfs/not-a-cid")).status == 400
    assert (await client.get(f"/ipfs/{cid}?format=car")).status == 400
    store.forget(cid)
    gone = await client.get(f"/ipfs/{cid}")
    assert gone.status == 404
    assert cid in await gone.text()
    assert cid not in store.pins


async def test_corrupt_content_does_not_match_its_cid(client: TestClient, store: IpfsStore) -> None:
    cid = store.add(b"true").cid
    store.corrupt(cid, b"false")
    assert await (await client.get(f"/ipfs/{cid}")).read() == b"false"
    store.forget(cid)
    store.add(b"true")
    assert await (await client.get(f"/ipfs/{cid}")).read() == b"true"


async def test_faults_apply_to_every_request_until_cleared(client: TestClient, store: IpfsStore) -> None:
    cid = store.add(b"x").cid
    store.unreachable = 503
    assert (await client.get(f"/ipfs/{cid}")).status == 503
    assert (await client.post("/api/v0/add", data=form(b"x"))).status == 503
    store.unreachable = "cut"
    with pytest.raises(aiohttp.ClientError):
        await client.get(f"/ipfs/{cid}")
    store.unreachable = "hang"
    with pytest.raises(TimeoutError):
        await client.get(f"/ipfs/{cid}", timeout=aiohttp.ClientTimeout(total=0.05))
    store.unreachable = None
    assert (await client.get(f"/ipfs/{cid}")).status == 200


async def test_pinata_requires_a_token(store: IpfsStore) -> None:
    async with TestClient(TestServer(ipfs_app(store, token="right"))) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
            answer = await client.post("/pinning/pinJSONToIPFS", json={}, headers=headers)
            assert answer.status == 401
        right = {"Authorization": "Bearer right"}
        assert (await client.post("/pinning/pinJSONToIPFS", json={}, headers=right)).status == 200
        assert (await client.get("/data/testAuthentication", headers=right)).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/pinning/pinJSONToIPFS", {"data": b"not json"}),
        ("/pinning/pinJSONToIPFS", {"data": b"[1]"}),
        ("/pinning/pinFileToIPFS", {"data": b"no form"}),
        ("/pinning/pinFileToIPFS", {"data": form(b"x", pinataOptions={"cidVersion": 1})}),
    ],
)
async def test_pinata_refuses_bad_requests(client: TestClient, path: str, body: dict) -> None:
    answer = await client.post(path, headers=TOKEN, **body)
    assert answer.status == 400
    assert (await answer.json())["error"]["details"]


async def test_the_operators_clients_fetch_what_they_pinned(client: TestClient, store: IpfsStore) -> None:
    url = str(client.make_url("")).rstrip("/")
    async with aiohttp.ClientSession() as session:
        for pinner in (KuboPinner(url, session), PinataPinner(url, session, "token")):
            cid = await pinner.pin(BIG, "result.json")
            assert cid == cid_of(BIG)
        gateways = IpfsGateways([url], session, size_limit=2 * len(BIG), timeouts=FetchTimeouts(2, 4))
        assert await gateways.fetch(cid) == BIG


async def test_faults_are_set_over_http(client: TestClient, store: IpfsStore) -> None:
    cid = store.add(b"the truth").cid
    assert (await client.post(f"/sandbox/faults/corrupt/{cid}", data=b"a lie")).status == 204
    assert await (await client.get(f"/ipfs/{cid}")).read() == b"a lie"
    assert (await client.post("/sandbox/faults/unreachable", json={"fault": 503})).status == 204
    assert (await client.get(f"/ipfs/{cid}")).status == 503
    assert (await client.post("/sandbox/faults/unreachable", json={"fault": None})).status == 204
    assert (await client.post(f"/sandbox/faults/forget/{cid}")).status == 204
    assert (await client.get(f"/ipfs/{cid}")).status == 404
    refused = await client.post("/sandbox/faults/unreachable", json={"fault": "slow"})
    assert (refused.status, store.unreachable) == (400, None)
