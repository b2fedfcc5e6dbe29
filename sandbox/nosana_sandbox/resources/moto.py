"""An S3 server: moto, in a separate virtual environment in the cache, because it needs an older python-dateutil."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nosana_sandbox.cache import cache_folder
from nosana_sandbox.cluster.errors import StartError

_REQUIREMENTS: Final = Path(__file__).parents[3] / "requirements" / "moto.txt"
_START_SECONDS: Final = 60.0


def moto_environment() -> Path:
    """The environment's Python. Creates it once from pinned requirements (half a minute). Raises StartError."""
    pinned = _REQUIREMENTS.read_bytes() + sys.version.encode()
    folder = cache_folder() / f"moto-{hashlib.sha256(pinned).hexdigest()[:16]}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        for command in (
            (sys.executable, "-m", "venv", "--clear", str(folder)),
            (str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(_REQUIREMENTS)),
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise StartError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}")
        complete.touch()
    return python


@contextlib.contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """Run moto's server on loopback and yield its URL; its output goes to `log`. Raises StartError."""
    python = moto_environment()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise StartError(f"moto did not start: {log.read_text(errors='replace')[-500:]}")
