"""What comments, docstrings, log texts and pages cite is in the repository, down to the heading."""

from __future__ import annotations

import ast
import io
import os
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = {"__pycache__", "build", "dist", "out"}
SUFFIXES = {"", ".go", ".in", ".md", ".mod", ".py", ".toml", ".tpl", ".txt", ".yaml"}
SECTION = "\N{SECTION SIGN}"

CITED = re.compile(r"(?<![\w./:-])(?P<page>(?:[\w.-]+/)*[\w-][\w.-]*\.md)(?!\w)(?:#(?P<heading>[\w-]+))?")
LINKED = re.compile(r"\]\((?P<page>[^)#\s]*)(?:#(?P<heading>[^)]+))?\)")
STANDARD = re.compile(rf"\b(?:RFC|KEP)[ -]\d+,? {SECTION}")
NOTES = re.compile(rf"{SECTION}|\bDESI{'GN'}\b")


def files() -> Iterator[Path]:
    """The files that people write, and those that are made from them."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in GENERATED and not name.startswith(".")]
        yield from (Path(folder, name) for name in names if Path(name).suffix in SUFFIXES)


FILES = {str(path.relative_to(ROOT)): path for path in sorted(files())}


@cache
def text_of(path: Path) -> str:
    return path.read_text("utf-8")


@cache
def anchors(page: Path) -> frozenset[str]:
    """The headings of a page as GitHub names them: of equal ones the second has `-1` behind it."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    found: dict[str, int] = {}
    for head in re.findall(r"^#+ (.+)$", prose, flags=re.M):
        slug = re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-")
        times = found.setdefault(slug, 0)
        found[slug] += 1
        if times:
            found[f"{slug}-{times}"] = 1
    return frozenset(found)


def prose_of(path: Path) -> str:
    """What of a file is written for people: of Python its comments, its docstrings and texts with a blank."""
    text = text_of(path)
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    said = [token.string for token in tokens if token.type == tokenize.COMMENT]
    nodes = list(ast.walk(ast.parse(text)))
    by_itself = {node.value for node in nodes if isinstance(node, ast.Expr)}
    texts = (node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    said.extend(str(text.value) for text in texts if text in by_itself or " " in str(text.value))
    return "\n".join(said)


def leads_nowhere(page: Path, heading: str | None) -> bool:
    return not page.exists() or (
        heading is not None and page.suffix == ".md" and heading not in anchors(page)
    )


def broken_citations(path: Path) -> Iterator[str]:
    """Pages are named from the repository's root, or from the folder of the file that names them.

    A link in code belongs to a page that is made there; it is followed in that page.
    """
    for found in CITED.finditer(LINKED.sub("", prose_of(path))):
        places = (ROOT / found["page"], path.parent / found["page"])
        if all(leads_nowhere(place, found["heading"]) for place in places):
            yield found[0]


def broken_links(path: Path) -> Iterator[str]:
    for found in LINKED.finditer(text_of(path)):
        page = path.parent / found["page"] if found["page"] else path
        if "://" not in found["page"] and leads_nowhere(page, found["heading"]):
            yield found[0]


def test_pages_and_headings_that_are_cited_exist() -> None:
    assert len(FILES) > 500
    broken = {name: list(broken_citations(path)) for name, path in FILES.items()}
    assert {name: cited for name, cited in broken.items() if cited} == {}


def test_links_of_pages_lead_somewhere() -> None:
    broken = {name: list(broken_links(path)) for name, path in FILES.items() if path.suffix == ".md"}
    assert {name: links for name, links in broken.items() if links} == {}


def test_nothing_is_cited_that_only_its_writer_has() -> None:
    """Paragraphs of standards may be cited; those of notes that are not here may not."""
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, path in FILES.items()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if NOTES.search(STANDARD.sub("", line))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("head", "anchor"),
    [
        ("## finish", "finish"),
        ("### `stop_if_dependent_stops`", "stop_if_dependent_stops"),
        ("## What ends a job, and how?", "what-ends-a-job-and-how"),
        ("## Twice\n\n## Twice", "twice-1"),
    ],
)
def test_headings_are_named_as_github_names_them(head: str, anchor: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{head}\n\n```sh\n# no heading\n```\n")
    assert anchor in anchors(page)
    assert "no-heading" not in anchors(page)
