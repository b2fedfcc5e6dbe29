"""Images with Python, made without Docker: a Debian root of packages, pinned wheels, and this project's own.

Each layer is kept in the cache under a name made of what it is made of, so that only what changed is made
again. The first image takes about 40 s, most of it for the Debian root.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from nosana_sandbox.cluster.build import Report, cache_folder
from nosana_sandbox.cluster.errors import ClusterError
from nosana_sandbox.images.archive import File, Image, layer
from nosana_sandbox.images.references import full_name
from nosana_sandbox.images.rootfs import PATH

FETCH_IMAGE: Final = "sandbox.invalid/nosana-fetch:1"
"""The image of nosana-fetch in the sandbox."""

_FETCH_REQUIREMENTS: Final = "fetch.txt"
_PROJECT: Final = Path(__file__).parents[3]
_SUITE: Final = "bookworm"
_PYTHON: Final = "3.11"
"""Of that suite."""
_PACKAGES: Final = ("python3", "ca-certificates")
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_LIBRARIES: Final = "opt/nosana"
"""Where wheels lie in the image."""


class ImageError(ClusterError):
    """An image cannot be made on this machine."""


def fetch_image(report: Report) -> Image:
    """The image of nosana-fetch. `report` is told each long step. Raises `ImageError`."""
    return python_image(
        FETCH_IMAGE, _FETCH_REQUIREMENTS, ("python3", "-m", "nosana_operator.fetching"), report
    )


def fetch_image_key() -> str:
    """Another one whenever the image of nosana-fetch would be another one; quick."""
    return _digest(_root_key(), _wheels_key(_FETCH_REQUIREMENTS), _own_key())


def python_image(name: str, requirements: str, entrypoint: tuple[str, ...], report: Report) -> Image:
    """An image with the operator's wheel and what `requirements/NAME` pins. Raises `ImageError`."""
    with _locked():
        layers = (
            _kept("root", _root_key(), lambda: _debian_root(report)),
            _kept(f"wheels-{requirements}", _wheels_key(requirements), lambda: _wheels(requirements, report)),
            _kept("own", _own_key(), _own_wheel),
        )
    environment = {"PATH": PATH, "PYTHONPATH": f"/{_LIBRARIES}", "PYTHONDONTWRITEBYTECODE": "1"}
    return Image(full_name(name), layers, entrypoint, (), environment)


def _kept(kind: str, key: str, make: Callable[[], bytes]) -> bytes:
    """The layer of that kind from the cache, made when there is none of that key; older ones go."""
    folder = cache_folder()
    file = folder / f"image-{kind}-{key}.tar"
    with contextlib.suppress(FileNotFoundError):
        return file.read_bytes()
    content = make()
    for old in folder.glob(f"image-{kind}-*"):
        old.unlink()
    part = file.with_suffix(".part")
    part.write_bytes(content)
    part.rename(file)
    return content


def _debian_root(report: Report) -> bytes:
    report(f"making a Debian root with {', '.join(_PACKAGES)} (once, about half a minute)")
    program = shutil.which("mmdebstrap")
    if program is None:
        raise ImageError("mmdebstrap is missing; install Debian's package of that name")
    with tempfile.TemporaryDirectory(prefix="nosana-root-") as folder:
        root = Path(folder, "root.tar")
        # Without standard input it takes the mirrors that belong to the suite.
        _run(
            program, "--quiet", "--variant=essential", f"--include={','.join(_PACKAGES)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT), _SUITE, str(root),
        )  # fmt: skip
        return root.read_bytes()


def _wheels(requirements: str, report: Report) -> bytes:
    report(f"fetching the wheels of requirements/{requirements}")
    with tempfile.TemporaryDirectory(prefix="nosana-wheels-") as folder:
        _run(
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
            "--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}",
            "--target", folder, "-r", str(_PROJECT / "requirements" / requirements),
        )  # fmt: skip
        shutil.rmtree(Path(folder, "bin"), ignore_errors=True)
        return layer(
            {
                f"{_LIBRARIES}/{path.relative_to(folder)}": File(
                    path.read_bytes(), path.stat().st_mode & 0o755
                )
                for path in Path(folder).rglob("*")
                if path.is_file()
            }
        )


def _own_wheel() -> bytes:
    with tempfile.TemporaryDirectory(prefix="nosana-wheel-") as folder:
        _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return layer({f"{_LIBRARIES}/{name}": File(archive.read(name)) for name in archive.namelist()})


def _root_key() -> str:
    return _digest(_SUITE, *_PACKAGES, *_LEFT_OUT, os.uname().machine)


def _wheels_key(requirements: str) -> str:
    pinned = (_PROJECT / "requirements" / requirements).read_text()
    return _digest(_PYTHON, os.uname().machine, _LIBRARIES, pinned)


def _own_key() -> str:
    digest = hashlib.sha256()
    sources = sorted((_PROJECT / "operator").rglob("*"))
    for file in (_PROJECT / "pyproject.toml", *sources):
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"{file.relative_to(_PROJECT)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=_PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ImageError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-1000:]}")


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Two who want the same image make it once."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "image.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
