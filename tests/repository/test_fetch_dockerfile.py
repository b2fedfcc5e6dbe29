"""operator/fetch.Dockerfile says what the image that the sandbox makes without Docker is."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from nosana_sandbox.images import debian

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "operator" / "fetch.Dockerfile").read_text()
IGNORE = (ROOT / "operator" / "fetch.Dockerfile.dockerignore").read_text().splitlines()


def test_entrypoint_and_pins_are_those_of_the_image_without_docker() -> None:
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.+)$", TEXT, flags=re.M)
    made = inspect.getsource(debian.fetch_image)
    assert ", ".join(f'"{word}"' for word in json.loads(entrypoint)) in made
    assert f"-r requirements/{debian._FETCH_REQUIREMENTS}" in TEXT
    assert f"PYTHONPATH=/{debian._LIBRARIES}" in TEXT
    assert TEXT.count("--require-hashes") == 2


def test_what_it_copies_is_in_its_context() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, flags=re.M)
    sources = [source for line in copied for source in line.split()]
    assert sources
    assert IGNORE[0] == "*"
    assert [source for source in sources if f"!{source}" not in IGNORE or not (ROOT / source).exists()] == []
