"""The command `nosana-fetch`, also `python -m nosana_operator.fetching`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program, or exit with the name of the missing library: the extra `fetch` is optional."""
    try:
        from nosana_operator.fetching.program import run
    except ModuleNotFoundError as error:
        sys.exit(f"nosana-fetch needs {error.name}; install it with pip install 'nosana-operator[fetch]'")
    run()


if __name__ == "__main__":
    main()
