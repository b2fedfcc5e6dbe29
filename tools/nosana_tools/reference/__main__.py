"""`python -m nosana_tools.reference`: writes docs/reference and docs/metrics.md again (`make docs`)."""

from __future__ import annotations

import click

from nosana_tools.reference import ROOT
from nosana_tools.reference.pages import pages


def main() -> None:
    """Write each page that has changed."""
    for path, text in pages():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            click.echo(f"{path.relative_to(ROOT)} is new")


if __name__ == "__main__":
    main()
