"""Several pin services and gateways of one network."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nosana_operator.content import IpfsGateways, PinRefused, PinUnavailable, cid_of
from nosana_operator.errors import NosanaError, Unavailable
from nosana_operator.runtime.networks import ResultPinner

DATA = b'{"status": "success"}'


@dataclass
class Service:
    """A pin service that does as told."""

    answer: NosanaError | None = None
    pinned: list[bytes] = field(default_factory=list)

    async def pin(self, data: bytes, name: str) -> str:
        if self.answer is not None:
            raise self.answer
        self.pinned.append(data)
        return cid_of(data)


async def test_the_next_service_takes_what_one_does_not() -> None:
    away, refuses, works, spare = (
        Service(PinUnavailable("away")),
        Service(PinRefused("quota")),
        Service(),
        Service(),
    )
    await ResultPinner([away, refuses, works, spare], None).pin(DATA, name="result")
    assert (works.pinned, spare.pinned) == ([DATA], [])


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
