"""`python -m nosana_operator` is `nosana-operator`."""

from nosana_operator.cli import main

main()
