"""nosana-fetch run as its container runs it, and a plain web server to fetch from."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nosana_operator.fetching import program
from nosana_operator.fetching.progress import Reporter
from nosana_sandbox.resources.serving import Faults, Served, serve


@dataclass(frozen=True)
class Result:
    code: int
    message: str
    lines: list[dict[str, Any]]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == kind]


class Fetch:
    """Runs nosana-fetch in a thread; `folder(n)` is the n-th resource's."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = tmp_path / "resources"
        self.mirrors: dict[str, str] = {}
        self.room: int | None = None
        self.folders: list[Path] = []
        self._tmp = tmp_path
        self._patch = monkeypatch

    def folder(self, index: int = 0) -> Path:
        return self.root / str(index)

    async def __call__(self, *resources: Mapping[str, Any]) -> Result:
        spec = {
            "mirrors": self.mirrors,
            "room": self.room,
            "resources": [{"folder": str(self.folder(i)), **r} for i, r in enumerate(resources)],
            "folders": [str(folder) for folder in self.folders],
        }
        (self._tmp / "spec.json").write_text(json.dumps(spec))
        message, out = self._tmp / "termination", io.StringIO()
        self._patch.setattr(program, "Reporter", lambda progress: Reporter(progress, out))
        code = await asyncio.to_thread(program.main, [str(self._tmp / "spec.json")], message)
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        return Result(code, message.read_text() if message.exists() else "", lines)


class Site:
    """A plain web server: files by path, no listings."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults = Faults()
        self.served: list[Served] = []
        self.url = ""
        self.on_cut: Callable[[], None] = lambda: None

    async def get(self, request: web.Request) -> web.StreamResponse:
        content = self.files.get(request.path)
        if content is None:
            return web.Response(status=404)
        cut = any(part in request.path and left for part, left in self.faults.cut.items())
        response = await serve(request, content, faults=self.faults, log=self.served)
        if cut:
            self.on_cut()
        return response


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def retried_files(result: Result) -> Sequence[str]:
    return [line["file"] for line in result.events("retrying")]
