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
from nosana_sandbox.resources.serving import Served, Trouble, serve


@dataclass(frozen=True)
class Ran:
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

    async def __call__(self, *resources: Mapping[str, Any]) -> Ran:
        spec = {
            "mirrors": self.mirrors,
            "room": self.room,
            "resources": [{"folder": str(self.folder(i)), **r} for i, r in enumerate(resources)],
            "folders": [str(folder) for folder in self.folders],
        }
        (self._tmp / "spec.json").write_text(json.dumps(spec))
        said, out = self._tmp / "termination", io.StringIO()
        self._patch.setattr(program, "Reporter", lambda progress: Reporter(progress, out))
        code = await asyncio.to_thread(program.main, [str(self._tmp / "spec.json")], said)
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        return Ran(code, said.read_text() if said.exists() else "", lines)


class Site:
    """Files by path, as a web server gives them; knows nothing of listings."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.trouble = Trouble()
        self.served: list[Served] = []
        self.url = ""
        self.on_cut: Callable[[], None] = lambda: None

    async def get(self, request: web.Request) -> web.StreamResponse:
        content = self.files.get(request.path)
        if content is None:
            return web.Response(status=404)
        cut = any(part in request.path and left for part, left in self.trouble.cut.items())
        answer = await serve(request, content, trouble=self.trouble, log=self.served)
        if cut:
            self.on_cut()
        return answer


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_of(ran: Ran) -> Sequence[str]:
    return [line["file"] for line in ran.events("retrying")]
