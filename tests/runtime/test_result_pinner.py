"""Several pin services and gateways of one network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fakes.virtual_time import run_virtually
from nosana_operator.content import IpfsGateways, PinRefused, PinUnavailable, cid_of
from nosana_operator.errors import NosanaError, Unavailable
from nosana_operator.runtime.errors import SettingsError
from nosana_operator.runtime.result_pins import ResultPinner, make_pinners
from nosana_operator.runtime.settings import IpfsSettings, PinSettings

DATA = b'{"status": "success"}'


@dataclass
class Service:
    """A pin service that does as told, after that many seconds."""

    answer: NosanaError | None = None
    takes: float = 0.0
    pinned: list[bytes] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    left: bool = False

    async def pin(self, data: bytes, name: str) -> str:
        self.asked.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.takes)
        except asyncio.CancelledError:
            self.left = True
            raise
        if self.answer is not None:
            raise self.answer
        self.pinned.append(data)
        return cid_of(data)


def pinned_after(*services: Service) -> float:
    """Seconds until one of them had it."""

    async def main() -> float:
        await ResultPinner(services, None).pin(DATA, name="result")
        return asyncio.get_running_loop().time()

    return run_virtually(main())


async def test_the_next_service_takes_what_one_does_not() -> None:
    away, refuses, works, spare = (
        Service(PinUnavailable("away")),
        Service(PinRefused("quota")),
        Service(),
        Service(),
    )
    await ResultPinner([away, refuses, works, spare], None).pin(DATA, name="result")
    assert (works.pinned, spare.pinned) == ([DATA], [])


def test_a_silent_service_does_not_keep_the_next_one_from_it() -> None:
    silent, slow, spare = Service(takes=1000), Service(takes=3), Service()
    assert pinned_after(silent, slow, spare) == 8
    assert (slow.asked, spare.asked) == ([5], [])
    assert silent.left, "nobody waits for it any more"


def test_a_slow_service_may_still_be_the_first() -> None:
    slow, slower = Service(takes=7), Service(takes=30)
    assert pinned_after(slow, slower) == 7
    assert (slow.pinned, slower.left) == ([DATA], True)


def test_the_next_service_is_asked_at_once_when_one_refuses() -> None:
    assert pinned_after(Service(PinRefused("quota"), takes=1), Service(takes=2)) == 3


def test_a_service_that_fails_leaves_the_slow_one_its_time() -> None:
    assert pinned_after(Service(takes=20), Service(PinUnavailable("away"), takes=1)) == 20


def test_who_gives_up_leaves_all_services() -> None:
    services = [Service(takes=1000), Service(takes=1000)]

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await ResultPinner(services, None).pin(DATA, name="result")

    run_virtually(main())
    assert all(one.left for one in services)


async def test_what_the_last_service_said_is_told_when_none_takes_it() -> None:
    with pytest.raises(PinRefused, match="quota"):
        await ResultPinner([Service(PinUnavailable("away")), Service(PinRefused("quota"))], None).pin(
            DATA, name="result"
        )


async def test_no_service_is_an_outage_that_names_the_setting() -> None:
    with pytest.raises(Unavailable, match=r"networks\.<name>\.ipfs\.pin"):
        await ResultPinner([], None).pin(DATA, name="result")


async def test_without_a_gateway_nobody_can_be_asked() -> None:
    assert await ResultPinner([Service()], None).gives(cid_of(DATA))


@pytest.mark.parametrize("given", [True, False])
async def test_a_gateway_gives_it_or_not(given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(self: IpfsGateways, cid: str) -> bytes:
        if not given:
            raise Unavailable("no gateway answers")
        return DATA

    monkeypatch.setattr(IpfsGateways, "fetch", fetch)
    session: object = None
    gateways = IpfsGateways(["http://gateway.test"], session)  # type: ignore[arg-type]
    assert await ResultPinner([Service()], gateways).gives(cid_of(DATA)) is given


class Pinata:
    """Takes one token only; `token` may be changed."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.seen: list[str | None] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers.get("Authorization"))
        if self.seen[-1] != f"Bearer {self.token}":
            return web.json_response({"error": "INVALID_CREDENTIALS"}, status=401)
        await request.read()
        return web.json_response({"IpfsHash": cid_of(DATA)})


@pytest.fixture
async def pinata() -> AsyncIterator[tuple[Pinata, str]]:
    service = Pinata("first")
    app = web.Application()
    app.router.add_post("/pinning/pinFileToIPFS", service.handle)
    server = TestServer(app)
    await server.start_server()
    yield service, str(server.make_url("/"))
    await server.close()


async def test_a_token_that_was_rotated_is_read_again(pinata: tuple[Pinata, str], tmp_path: Path) -> None:
    service, url = pinata
    token = tmp_path / "token"
    token.write_text("first\n")
    settings = IpfsSettings(pin=(PinSettings(type="pinata", url=url, token_file=token),))
    async with aiohttp.ClientSession() as http:
        pinner = ResultPinner(make_pinners("mainnet", settings, http), None)
        await pinner.pin(DATA, name="one")
        service.token = "second"
        with pytest.raises(PinRefused):
            await pinner.pin(DATA, name="two")
        token.write_text("second\n")
        await pinner.pin(DATA, name="two")
        token.unlink()
        with pytest.raises(
            PinRefused, match=r"networks\.mainnet\.ipfs\.pin\[0\]\.tokenFile .* cannot be read"
        ):
            await pinner.pin(DATA, name="three")
    assert service.seen == ["Bearer first", "Bearer first", "Bearer second"]


async def test_a_token_that_is_missing_at_the_start_is_refused_then(tmp_path: Path) -> None:
    settings = IpfsSettings(
        pin=(PinSettings(type="pinata", url="https://pin.example", token_file=tmp_path / "token"),)
    )
    async with aiohttp.ClientSession() as http:
        with pytest.raises(SettingsError, match="cannot be read"):
            make_pinners("mainnet", settings, http)
