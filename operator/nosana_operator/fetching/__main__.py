"""`python -m nosana_operator.fetching SPEC`."""

from nosana_operator.fetching.program import run

run()
