"""What the repository has to be, whatever the code does."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_operator_is_a_folder_and_never_a_package() -> None:
    """An __init__.py there would shadow Python's own `operator`, and nothing would start any more."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    done = subprocess.run(
        [sys.executable, "-c", "import collections, operator; print(operator.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(ROOT) not in done.stdout


def test_the_wheel_holds_the_operator_only(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"nosana_operator"}
    assert "nosana_operator/chain/idl/nosana_jobs.json" in names
    assert "nosana_operator/py.typed" in names


def test_both_commands_are_declared() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) >= {"nosana-operator", "nosana-sandbox"}


@pytest.mark.parametrize("name", ["dev.txt", "operator.txt"])
def test_requirements_are_hashed_and_name_no_index(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    pins = re.findall(r"^[A-Za-z0-9][^\s=]*==\S+", text, flags=re.MULTILINE)
    assert pins
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text


@pytest.mark.parametrize(
    "target",
    [
        "help",
        "setup",
        "demo",
        "test",
        "unit",
        "contract",
        "soak",
        "check",
        "manifests",
        "sandbox",
        "sandbox-down",
        "bench",
    ],
)
def test_make_has_the_targets_it_promises(target: str) -> None:
    assert re.search(rf"^{target}:.*## \S", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_make_help_lists_each_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "demo" in done.stdout
    assert "Jobs all the way" in done.stdout


def _documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} points to {target}"


PACKAGE = ROOT / "operator" / "nosana_operator"
GONE = {
    "WallBuilder", "namespace_walls", "OneRun", "RunKeeper", "reluctance", "patience", "key_use", "one_run",
    "holdings", "standings", "queue_world",
}  # fmt: skip
"""Words of an earlier dialect: isolation, RunContext, RunController, not_offering, start_limits, foreign_use … now."""


def test_each_package_has_at_most_16_files() -> None:
    sizes = {path.parent: len(list(path.parent.glob("*.py"))) for path in PACKAGE.rglob("__init__.py")}
    assert {
        str(path.relative_to(PACKAGE)): size for path, size in sizes.items() if size > 16 and path != PACKAGE
    } == {}


def test_the_page_for_changes_names_files_that_exist() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Where do I change…", 1)[1].split("\n## ", 1)[0]
    named = re.findall(r"`([a-z_]+/(?:[a-z_]+/)*(?:[a-z_]+\.py)?|[a-z_]+\.py)`", section)
    assert len(named) > 30
    assert [path for path in named if not (PACKAGE / path).exists()] == []


def test_words_that_were_replaced_do_not_come_back() -> None:
    """As identifiers or file names; a word of a sentence is no identifier."""
    files = subprocess.run(
        ["git", "ls-files", "operator", "sandbox", "tools", "benchmarks", "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    found = {f"{path}: {word}" for path in files for word in GONE if Path(path).stem == word}
    for path in files:
        if path.endswith(".py") and path != "tests/repository/test_layout.py":
            tokens = tokenize.generate_tokens(io.StringIO((ROOT / path).read_text()).readline)
            found |= {f"{path}: {t.string}" for t in tokens if t.type == tokenize.NAME and t.string in GONE}
    assert found == set()
