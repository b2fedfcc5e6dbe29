"""Several pin services and gateways of one network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from fakes.virtual_time import run_virtually
from nosana_operator.content import IpfsGateways, PinRefused, PinUnavailable, cid_of
from nosana_operator.errors import NosanaError, Unavailable
from nosana_operator.runtime.result_pins import ResultPinner

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
