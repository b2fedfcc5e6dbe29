"""Images as Docker reads them, written out in full."""

from __future__ import annotations

from typing import Any

import pytest

from nosana_operator.workload import build_op_objects
from nosana_operator.workload.image import full_reference
from nosana_operator.workload.pull_secret import registry_of
from support.workload import RUN, context, op

DIGEST = "sha256:" + "0a" * 32
HUB = "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    ("image", "full", "registry"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", HUB),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", HUB),
        ("library/ubuntu", "docker.io/library/ubuntu:latest", HUB),
        ("nosana/x", "docker.io/nosana/x:latest", HUB),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", HUB),
        ("index.docker.io/nosana/x:1", "docker.io/nosana/x:1", HUB),
        (f"ubuntu@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}", HUB),
        (f"ubuntu:1@{DIGEST}", f"docker.io/library/ubuntu:1@{DIGEST}", HUB),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest", "ghcr.io"),
        ("localhost/a", "localhost/a:latest", "localhost"),
        ("localhost:5000/a:V1.0-RC", "localhost:5000/a:V1.0-RC", "localhost:5000"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000"),
        ("Registry/a", "Registry/a:latest", "Registry"),
        ("localhostess/a", "docker.io/localhostess/a:latest", HUB),
    ],
)
def test_a_reference_is_written_out_as_docker_reads_it(image: str, full: str, registry: str) -> None:
    assert full_reference(image) == full
    assert registry_of(image) == registry
    assert full_reference(full) == full
    [pod] = [body for body in build_op_objects(context(op(image=image)), 0) if body["kind"] == "Pod"]
    assert pod["spec"]["containers"][0]["image"] == full, "case is kept: tags are case-sensitive"


def pod_of(ctx: Any, index: int = 0) -> dict[str, Any]:
    return dict(build_op_objects(ctx, index)[-1])


@pytest.mark.parametrize("image", ["ghcr.io/a/b:1", f"ghcr.io/a/b@{DIGEST}", "ubuntu"])
def test_a_strangers_pod_always_asks_the_registry(image: str) -> None:
    """Another poster's private image may be on the node already."""
    pod = pod_of(context(op(image=image), run=RUN))
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    private = pod_of(context(op(image=image)))["spec"]["containers"][0]["imagePullPolicy"]
    assert private == ("Always" if image == "ubuntu" else "IfNotPresent")
