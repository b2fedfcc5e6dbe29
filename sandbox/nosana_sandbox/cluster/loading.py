"""Images into the nodes' containerds."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nosana_sandbox.cluster.inside import run
from nosana_sandbox.cluster.layout import Layout, Node
from nosana_sandbox.images.archive import Image, write_archive


def load(layout: Layout, images: Iterable[Image]) -> None:
    """Import the images into every node, under their full names. Raises `StartError`."""
    with tempfile.NamedTemporaryFile(prefix="images-", suffix=".tar", dir=layout.folder) as archive:
        write_archive(images, platform.machine(), Path(archive.name))

        def into(node: Node) -> None:
            # --all-platforms: the archive has one, and choosing would mean guessing what containerd calls it.
            run(
                "ctr", "--address", str(node.containerd_socket), "--namespace", "k8s.io",
                "images", "import", "--all-platforms", archive.name,
            )  # fmt: skip

        with ThreadPoolExecutor() as pool:
            list(pool.map(into, layout.nodes))
