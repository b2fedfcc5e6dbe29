"""Images with Python, built without Docker: a Debian root, pinned wheels, and this project's own.

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
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from nosana_operator.errors import NosanaError
from nosana_sandbox.cache import Report, cache_folder
from nosana_sandbox.images.archive import File, Image, layer
from nosana_sandbox.images.references import full_name
from nosana_sandbox.images.rootfs import PATH

FETCH_IMAGE: Final = "sandbox.invalid/nosana-fetch:1"
"""The image of nosana-fetch in the sandbox."""
OPERATOR_REPOSITORY: Final = "sandbox.invalid/nosana-operator"
"""The operator's image in the sandbox, without the tag: that one says which code it holds."""
OPERATOR_USER: Final = "65532:65532"
OPERATOR_ENTRYPOINT: Final = ("python3", "-m", "nosana_operator")
OPERATOR_REQUIREMENTS: Final = "operator.txt"

_FETCH_REQUIREMENTS: Final = "fetch.txt"
_PROJECT: Final = Path(__file__).parents[3]
_SUITE: Final = "bookworm"
_PYTHON: Final = "3.11"
"""Of that suite."""
_PACKAGES: Final = ("python3", "ca-certificates")
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_LIBRARIES: Final = "opt/nosana"
"""The folder of the wheels in the image."""
_NOT_COMPILED: Final = r"/kubernetes/(client/(api|models)|aio)/"
"""Hundreds of modules, of which three are ever loaded; compiled they would take as much room as all others."""
_WITHOUT_WHEEL: Final = "construct"
"""The one package that is published as source only; it is pure Python, so it builds on any machine."""


class ImageError(NosanaError):
    """An image cannot be built on this machine."""


def fetch_image(report: Report) -> Image:
    """The image of nosana-fetch. `report` is called with each long step. Raises `ImageError`."""
    return python_image(
        FETCH_IMAGE, _FETCH_REQUIREMENTS, ("python3", "-m", "nosana_operator.fetching"), report
    )


def fetch_image_key() -> str:
    """A key that changes whenever the image of nosana-fetch would change; quick to compute."""
    return _digest(_root_key(), _wheels_key(_FETCH_REQUIREMENTS), _own_key())


def operator_image(report: Report) -> Image:
    """The operator's image, with what operator/Dockerfile gives it. Raises `ImageError`."""
    return python_image(
        operator_image_name(),
        OPERATOR_REQUIREMENTS,
        OPERATOR_ENTRYPOINT,
        report,
        user=OPERATOR_USER,
        labels=operator_labels(),
    )


def operator_image_name() -> str:
    """Repository and tag; the tag changes whenever the image would change. Quick to compute."""
    return f"{OPERATOR_REPOSITORY}:{_digest(_root_key(), _wheels_key(OPERATOR_REQUIREMENTS), _own_key())}"


def operator_labels() -> dict[str, str]:
    """The image's labels by OCI's names, from pyproject.toml."""
    project = tomllib.loads((_PROJECT / "pyproject.toml").read_text())["project"]
    return {
        "org.opencontainers.image.title": project["name"],
        "org.opencontainers.image.description": project["description"],
        "org.opencontainers.image.version": project["version"],
        "org.opencontainers.image.licenses": project["license"],
    }


def python_image(
    name: str,
    requirements: str,
    entrypoint: tuple[str, ...],
    report: Report,
    *,
    user: str = "",
    labels: Mapping[str, str] | None = None,
) -> Image:
    """An image with the operator's wheel and what `requirements/NAME` pins. Raises `ImageError`."""
    with _locked():
        layers = (
            _kept("root", _root_key(), lambda: _debian_root(report)),
            _kept(f"wheels-{requirements}", _wheels_key(requirements), lambda: _wheels(requirements, report)),
            _kept("own", _own_key(), _own_wheel),
        )
    environment = {"PATH": PATH, "PYTHONPATH": f"/{_LIBRARIES}", "PYTHONDONTWRITEBYTECODE": "1"}
    return Image(full_name(name), layers, entrypoint, (), environment, user=user, labels=labels or {})


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
            # The file names all of them: nothing is to be resolved.
            "--require-hashes", "--no-deps", "--only-binary=:all:", f"--no-binary={_WITHOUT_WHEEL}",
            "--implementation=cp", f"--python-version={_PYTHON}",
            "--target", folder, "-r", str(_PROJECT / "requirements" / requirements),
        )  # fmt: skip
        shutil.rmtree(Path(folder, "bin"), ignore_errors=True)
        return _libraries(Path(folder))


def _own_wheel() -> bytes:
    with tempfile.TemporaryDirectory(prefix="nosana-wheel-") as folder:
        _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
        (wheel,) = Path(folder).glob("*.whl")
        unpacked = Path(folder, "unpacked")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        return _libraries(unpacked)


def _libraries(folder: Path) -> bytes:
    """The layer of Python packages in `folder`, compiled where this machine's Python is the image's.

    A container cannot keep what it compiles: without this each start takes seconds of a core, and memory.
    """
    if _this_python() == _PYTHON:
        # Checked by nothing when loaded: a layer does not change. Some packages hold templates of Python,
        # which are no Python: they are left as they are.
        subprocess.run(
            (sys.executable, "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash",
             "-x", _NOT_COMPILED, "-s", str(folder), "-p", f"/{_LIBRARIES}", str(folder)),
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
    return layer(
        {
            f"{_LIBRARIES}/{path.relative_to(folder)}": File(path.read_bytes(), path.stat().st_mode & 0o755)
            for path in folder.rglob("*")
            if path.is_file()
        }
    )


def _this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _root_key() -> str:
    return _digest(_SUITE, *_PACKAGES, *_LEFT_OUT, os.uname().machine)


def _wheels_key(requirements: str) -> str:
    pinned = (_PROJECT / "requirements" / requirements).read_text()
    return _digest(_PYTHON, _this_python(), os.uname().machine, _LIBRARIES, _NOT_COMPILED, pinned)


def _own_key() -> str:
    digest = hashlib.sha256(_this_python().encode())
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
    """Two processes that need the same image build it once."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "image.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
