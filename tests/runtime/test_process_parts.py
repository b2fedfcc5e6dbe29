"""Health, logging and the one port, without a cluster."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import aiohttp
import pytest

from fakes.virtual_time import run_virtually
from nosana_operator.kube import KubeUnavailable
from nosana_operator.runtime.errors import StartError
from nosana_operator.runtime.health import ApiHealth, measure_loop_lag
from nosana_operator.runtime.logging import configure_logging
from nosana_operator.runtime.metrics.operator_metrics import OperatorMetrics
from nosana_operator.runtime.settings import LogSettings
from nosana_operator.runtime.web import WebServer


def test_api_health_goes_by_answers_of_any_kind() -> None:
    async def main() -> None:
        health = ApiHealth()
        assert health.problem() == "the Kubernetes API has not answered yet"
        health.observe("get", "Pod", "404", 0.1)
        assert health.problem() is None
        await asyncio.sleep(31)
        for code in ("none", "500", "503"):
            health.observe("get", "Pod", code, 0.1)
        assert health.problem() == "the Kubernetes API has not answered for 31 s"
        health.observe("get", "Pod", "403", 0.1)
        assert health.problem() is None

    run_virtually(main())


def test_the_api_is_asked_only_when_nothing_else_was(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        health = ApiHealth()
        asked: list[float] = []
        loop = asyncio.get_running_loop()

        async def read_path(path: str) -> bytes:
            asked.append(loop.time())
            if 20 < loop.time() < 60:
                raise KubeUnavailable("no answer")
            health.observe("get", path, "200", 0.0)
            return b""

        task = asyncio.create_task(health.probe(read_path))
        for _ in range(15):
            health.observe("get", "Pod", "200", 0.0)
            await asyncio.sleep(1)
        assert asked == []
        await asyncio.sleep(55)
        task.cancel()
        assert asked[0] == 25
        assert health.problem() is None

    with caplog.at_level(logging.INFO, logger="nosana_operator.runtime.health"):
        run_virtually(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_loop_lag_is_what_a_blocked_loop_loses() -> None:
    async def main() -> None:
        lags: list[float] = []
        task = asyncio.create_task(measure_loop_lag(lags.append))
        await asyncio.sleep(3.5)
        task.cancel()
        assert lags == [0, 0, 0]

    run_virtually(main())


async def test_probes_name_each_check_and_what_is_wrong() -> None:
    problems: dict[str, str | None] = {"caches": "not complete", "kinds": None}
    metrics = OperatorMetrics()
    web = WebServer(
        metrics.registry,
        address="127.0.0.1",
        port=0,
        alive={"event loop": lambda: None},
        ready={name: lambda name=name: problems[name] for name in problems},  # type: ignore[misc]
    )
    port = await web.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with http.get("/readyz") as response:
                assert (response.status, await response.text()) == (503, "caches: not complete\nkinds: ok\n")
            problems["caches"] = None
            async with http.get("/readyz") as response:
                assert response.status == 200
            async with http.get("/healthz") as response:
                assert (response.status, await response.text()) == (200, "event loop: ok\n")
            async with http.get("/metrics") as response:
                assert response.status == 200
                assert "nosana_operator_build_info" in await response.text()
        other = WebServer(metrics.registry, address="127.0.0.1", port=port, alive={}, ready={})
        with pytest.raises(StartError, match=str(port)):
            await other.start()
    finally:
        await web.stop()


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("kopf", "kopf.objects", "kopf._cogs.clients", "aiohttp.access")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)


@pytest.mark.usefixtures("restored_logging")
def test_json_lines_carry_what_they_are_about() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    log = logging.getLogger("nosana_operator.x")
    log.info("pod created", extra={"job": "ns/j", "op": "a", "secret": "hidden"})
    log.debug("not shown")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["ts"].endswith("Z")
    del first["ts"]
    assert first == {
        "level": "info",
        "logger": "nosana_operator.x",
        "msg": "pod created",
        "job": "ns/j",
        "op": "a",
    }
    assert "ValueError: broken" in second["error"]


@pytest.mark.usefixtures("restored_logging")
def test_console_lines_are_for_people() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(format="console", level="debug"), stream)
    logging.getLogger("nosana_operator.x").debug("pod created", extra={"job": "ns/j", "op": "a"})
    assert stream.getvalue().rstrip().endswith("DEBUG   pod created job=ns/j op=a")


@pytest.mark.usefixtures("restored_logging")
def test_frameworks_do_not_write_a_line_per_event() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(level="debug"), stream)
    logging.getLogger("kopf.objects").info("Handler 'x' succeeded.")
    logging.getLogger("kopf._cogs.clients.watching").error("Request attempt #1 failed")
    assert stream.getvalue() == ""
