"""Makes images available to the nodes."""

from __future__ import annotations

import platform
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nosana_sandbox.cluster import image_registry
from nosana_sandbox.cluster.inside import run
from nosana_sandbox.cluster.layout import Layout, Node
from nosana_sandbox.images.archive import Image, pack, write_archive


def provide(layout: Layout, images: Iterable[Image]) -> None:
    """Make the images available under their full names, replacing existing ones. Raises `StartError`.

    They go into the registries, from where nodes pull them. One whose name holds a digest goes into the
    nodes: no other image than the real one could be pulled under it.
    """
    pulled: list[Image] = []
    imported: list[Image] = []
    for image in images:
        (imported if "@" in image.name else pulled).append(image)
    machine = platform.machine()
    if replaced := image_registry.push(layout, [(image, pack(image, machine)) for image in pulled]):
        _forget(layout, replaced)
    if imported:
        load(layout, imported)


def load(layout: Layout, images: Iterable[Image]) -> None:
    """Import the images into every node, under their full names. Raises `StartError`."""
    with tempfile.NamedTemporaryFile(prefix="images-", suffix=".tar", dir=layout.folder) as archive:
        write_archive(images, platform.machine(), Path(archive.name))

        def into(node: Node) -> None:
            # --all-platforms: the archive has one platform, whose name in containerd we would have to guess.
            run(*_ctr(node), "import", "--all-platforms", archive.name)

        with ThreadPoolExecutor() as pool:
            list(pool.map(into, layout.nodes))


def _forget(layout: Layout, names: Sequence[str]) -> None:
    """Remove images from the nodes, so that they pull from the registry again. A missing one is no error."""
    for node in layout.nodes:
        subprocess.run((*_ctr(node), "rm", *names), capture_output=True, check=False)


def _ctr(node: Node) -> tuple[str, ...]:
    return ("ctr", "--address", str(node.containerd_socket), "--namespace", "k8s.io", "images")
