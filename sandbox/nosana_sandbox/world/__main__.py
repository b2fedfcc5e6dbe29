"""`python -m nosana_sandbox.world --state DIR`: the world's process, in the foreground."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import click

from nosana_operator.errors import NosanaError
from nosana_sandbox.chain import SLOT_SECONDS
from nosana_sandbox.world.daemon import WorldOptions, serve
from nosana_sandbox.world.genesis import DEFAULT_PRICE

_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--state", type=_PATH, required=True, help="The sandbox's folder.")
@click.option("--namespace", type=_PATH, help="File of the cluster's network namespace, to answer there too.")
@click.option("--kubeconfig", type=_PATH, help="The cluster whose Ingresses the gateway opens.")
@click.option("--price", default=DEFAULT_PRICE, show_default=True, help="NOS base units per second.")
@click.option("--slot-seconds", default=SLOT_SECONDS, show_default=True, help="How long a slot takes.")
@click.option("--finality", default=8, show_default=True, help="Slots until finalized; 32 on a real chain.")
def main(
    state: Path,
    namespace: Path | None,
    kubeconfig: Path | None,
    price: int,
    slot_seconds: float,
    finality: int,
) -> None:
    """Serve a sandbox's chain, IPFS and gateway until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options = WorldOptions(state.absolute(), price, slot_seconds, finality, namespace, kubeconfig)
    try:
        asyncio.run(serve(options))
    except NosanaError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
