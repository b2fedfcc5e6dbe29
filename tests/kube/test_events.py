"""Events: shape, repeats as a series, bounds, and that recording never fails. On a clock that jumps."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Any

from fakes.virtual_time import run_virtually
from nosana_operator.errors import NotFound, Refused
from nosana_operator.kube import EventRecorder

JOB = {
    "apiVersion": "nosana.io/v1alpha1",
    "kind": "NosanaJob",
    "metadata": {"name": "j", "namespace": "ns", "uid": "u", "resourceVersion": "5"},
}


class Api:
    """Keeps what it is given; fails as told."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.patched: list[dict[str, Any]] = []
        self.failures: list[Exception] = []

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if self.failures:
            raise self.failures.pop(0)
        self.created.append(dict(body))
        return dict(body)

    async def patch(
        self, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]:
        if self.failures:
            raise self.failures.pop(0)
        assert (kind, namespace, name) == ("Event", "ns", self.created[-1]["metadata"]["name"])
        self.patched.append(dict(patch))
        return {}


def recorder(api: Api) -> EventRecorder:
    loop = asyncio.get_running_loop()
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return EventRecorder(
        api,
        controller="nosana.io/operator",
        instance="pod-1",
        clock=loop.time,
        now=lambda: start + datetime.timedelta(seconds=loop.time()),
    )


def say(events: EventRecorder, note: str = "It runs.", regarding: dict[str, Any] = JOB) -> None:
    events.event(regarding, type="Normal", reason="Started", action="Start", note=note)


def test_an_event_as_the_api_wants_it() -> None:
    async def main() -> None:
        api = Api()
        events = recorder(api)
        say(events)
        await events.flush(1)
        (event,) = api.created
        name = event["metadata"].pop("name")
        assert name.startswith("j.")
        assert event == {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": "ns"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "nosana.io/operator",
            "reportingInstance": "pod-1",
            "type": "Normal",
            "reason": "Started",
            "action": "Start",
            "note": "It runs.",
            "regarding": {
                "apiVersion": "nosana.io/v1alpha1",
                "kind": "NosanaJob",
                "name": "j",
                "namespace": "ns",
                "uid": "u",
                "resourceVersion": "5",
            },
        }

    run_virtually(main())


def test_a_cluster_scoped_object_has_its_events_in_default() -> None:
    async def main() -> None:
        api = Api()
        events = recorder(api)
        say(events, regarding={"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "x"}})
        await events.flush(1)
        assert api.created[0]["metadata"]["namespace"] == "default"

    run_virtually(main())


def test_repeats_become_a_series_written_at_most_every_ten_seconds() -> None:
    async def main() -> None:
        api = Api()
        events = recorder(api)
        sender = asyncio.create_task(events.run())
        for _ in range(30):
            say(events)
            await asyncio.sleep(1)
        await asyncio.sleep(20)
        sender.cancel()
        assert len(api.created) == 1
        counts = [patch["series"]["count"] for patch in api.patched]
        assert counts == [11, 21, 30]
        assert api.patched[-1]["series"]["lastObservedTime"] == "2026-01-01T00:00:29.000000Z"

    run_virtually(main())


def test_after_the_window_a_new_event_begins_and_other_notes_are_other_events() -> None:
    async def main() -> None:
        api = Api()
        events = recorder(api)
        sender = asyncio.create_task(events.run())
        say(events)
        await asyncio.sleep(361)
        say(events)
        say(events, "It still runs.")
        await asyncio.sleep(1)
        sender.cancel()
        assert len({event["metadata"]["name"] for event in api.created}) == 3

    run_virtually(main())


def test_a_failure_is_counted_and_the_next_repeat_starts_anew() -> None:
    async def main() -> None:
        api = Api()
        events = recorder(api)
        sender = asyncio.create_task(events.run())
        api.failures = [Refused("the namespace is terminating")]
        say(events)
        await asyncio.sleep(1)
        assert events.dropped == 1
        say(events)
        await asyncio.sleep(11)
        api.failures = [NotFound("expired")]
        say(events)
        await asyncio.sleep(11)
        say(events)
        await asyncio.sleep(11)
        sender.cancel()
        assert len(api.created) == 2
        assert api.patched == []

    run_virtually(main())


def test_too_many_are_dropped_and_not_waited_for() -> None:
    async def main() -> None:
        api = Api()
        events = recorder(api)
        for number in range(3000):
            say(events, f"Note {number}.")
        await events.flush(1)
        assert len(api.created) == 1000
        assert events.dropped == 2000

    run_virtually(main())


def test_a_long_note_is_cut_at_a_character() -> None:
    async def main() -> None:
        api = Api()
        events = recorder(api)
        say(events, "ä" * 1000)
        await events.flush(1)
        assert api.created[0]["note"] == "ä" * 512

    run_virtually(main())
