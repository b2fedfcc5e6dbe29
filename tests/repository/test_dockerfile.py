"""operator/Dockerfile says what the image that the sandbox makes without Docker is."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

import pytest

from nosana_sandbox.images import debian
from nosana_sandbox.images.archive import Image, pack

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "operator" / "Dockerfile").read_text()
LINES = re.sub(r"\s*\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", TEXT)).splitlines()
LAST_STAGE = LINES[max(number for number, line in enumerate(LINES) if line.startswith("FROM")) :]


def _said(word: str, lines: list[str] = LAST_STAGE) -> list[str]:
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


def test_user_entrypoint_and_labels_are_those_of_the_image_without_docker() -> None:
    assert _said("USER") == [debian.OPERATOR_USER]
    (entrypoint,) = _said("ENTRYPOINT")
    assert tuple(json.loads(entrypoint)) == debian.OPERATOR_ENTRYPOINT
    (labels,) = _said("LABEL")
    assert dict(re.findall(r'(\S+)="([^"]*)"', labels)) == debian.operator_labels()


def test_libraries_are_in_the_same_place_and_from_the_same_pins() -> None:
    (environment,) = _said("ENV")
    assert f"PYTHONPATH=/{debian._LIBRARIES}" in environment.split()
    installs = [line for line in _said("RUN", LINES) if "pip install" in line and "-r " in line]
    assert len(installs) == 2
    assert all("--require-hashes" in line for line in installs), "all that comes from outside is pinned"
    assert f"-r requirements/{debian.OPERATOR_REQUIREMENTS}" in installs[1]
    assert f"--no-binary={debian._WITHOUT_WHEEL} " in installs[1]
    assert f"-x '{debian._NOT_COMPILED}'" in TEXT


def test_both_are_of_the_same_python() -> None:
    bases = _said("FROM", LINES)
    assert len(bases) == 2, "what builds is not what runs"
    for base in bases:
        assert base.startswith(f"python:{debian._PYTHON}-slim-{debian._SUITE}")


def test_what_the_dockerfile_copies_is_in_its_context() -> None:
    let_in = (ROOT / "operator" / "Dockerfile.dockerignore").read_text().splitlines()
    assert let_in[0] == "*"
    sources = [word for line in _said("COPY", LINES) if "--from" not in line for word in line.split()[:-1]]
    assert sources
    for source in sources:
        assert f"!{source}" in let_in
        assert (ROOT / source).exists()


@pytest.mark.parametrize("name", ["build.txt", "operator.txt"])
def test_its_pins_are_hashed(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    pins = re.findall(r"^[A-Za-z0-9][^\s=]*==\S+", text, flags=re.MULTILINE)
    assert pins
    assert text.count("--hash=sha256:") >= len(pins)


def test_the_packed_image_carries_user_and_labels() -> None:
    image = Image(
        "a.invalid/a:1", (), debian.OPERATOR_ENTRYPOINT, user=debian.OPERATOR_USER, labels={"a": "b"}
    )
    packed = pack(image, platform.machine())
    config = json.loads(packed.blobs[json.loads(packed.blobs[packed.manifest])["config"]["digest"][7:]])
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Labels"] == {"a": "b"}


def test_another_tag_for_another_image() -> None:
    name = debian.operator_image_name()
    assert re.fullmatch(rf"{re.escape(debian.OPERATOR_REPOSITORY)}:[0-9a-f]{{16}}", name)
