"""`nosana-fetch` of one 2 GiB object from an S3 server on loopback, beside curl in the same run.

The server is a process of its own that sends from the page cache. The object's ETag is that of an upload in
parts, as that of any object of this size made by the usual tools is; `share_md5` is with an ETag that is the
content's MD5, which then is verified.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

NAME = "fetch"
GOAL = {"share": 0.5, "memory_mib": 128}
AT_LEAST = ("share",)
SIZE = 2 << 30
ROUNDS = 3
HERE = "127.0.0.1"


def serve(channel: Connection, file: str, md5: str) -> None:
    """Buckets `parts` and `whole`, which hold the file under two ETags; the port goes into the channel."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """The listing of a bucket, or the object."""
            etag = f'"{md5}"' if self.path.startswith("/whole") else f'"{md5}-256"'
            if "list-type=2" in self.path:
                body = (
                    "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>model/weights</Key>"
                    f"<LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{etag}</ETag>"
                    f"<Size>{SIZE}</Size></Contents></ListBucketResult>"
                ).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            first, last = 0, SIZE - 1
            if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(part[1]), int(part[2] or last)
            self.send_response(206 if part else 200)
            if part:
                self.send_header("Content-Range", f"bytes {first}-{last}/{SIZE}")
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("ETag", etag)
            self.end_headers()
            self.wfile.flush()
            with open(file, "rb") as content:
                self.connection.sendfile(content, first, last - first + 1)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HERE, 0), Handler)
    channel.send(server.server_address[1])
    server.serve_forever()


def timed(command: list[str], out: Path) -> tuple[float, float]:
    """Seconds of the command, and the most memory it had, MiB. Its output folder is new."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    assert sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) == SIZE
    return took, usage.ru_maxrss / 1024


def measure(port: int, folder: Path) -> dict[str, Any]:
    """Both programs in turn; medians."""
    out = folder / "out"

    def fetch(bucket: str) -> Callable[[], tuple[float, float]]:
        spec = folder / f"{bucket}.json"
        source = {"url": f"http://{HERE}:{port}/{bucket}/model", "bucket": bucket}
        resource = {"type": "S3", "folder": str(out), "sources": [source]}
        spec.write_text(json.dumps({"mirrors": {}, "room": None, "folders": [], "resources": [resource]}))
        return lambda: timed([sys.executable, "-m", "nosana_operator.fetching", str(spec)], out)

    url = f"http://{HERE}:{port}/parts/model/weights"
    runs = {
        "curl": lambda: timed(["curl", "-sS", "-o", str(out / "weights"), url], out),
        "parts": fetch("parts"),
        "whole": fetch("whole"),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, once in runs.items():
            taken[name].append(once())
    seconds = {name: statistics.median(took for took, _ in rounds) for name, rounds in taken.items()}
    return {
        "share": round(seconds["curl"] / seconds["parts"], 2),
        "share_md5": round(seconds["curl"] / seconds["whole"], 2),
        "memory_mib": round(max(memory for name in ("parts", "whole") for _, memory in taken[name])),
        "mb_per_second": {name: round(SIZE / 1e6 / took) for name, took in seconds.items()},
    }


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    with tempfile.TemporaryDirectory(prefix="nosana-bench-") as name:
        folder = Path(name)
        content, md5 = folder / "content", hashlib.md5(usedforsecurity=False)
        block = os.urandom(1 << 20)
        with content.open("wb") as file:
            for _ in range(SIZE >> 20):
                file.write(block)
                md5.update(block)
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        server = context.Process(target=serve, args=(there, str(content), md5.hexdigest()), daemon=True)
        server.start()
        try:
            return measure(here.recv(), folder)
        finally:
            server.terminate()
            server.join()


if __name__ == "__main__":
    print(run())
