"""A real API server for contract tests: started once, with the CRDs of this version in it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nosana_operator.api import crds
from nosana_operator.kube import KubeClient, load_credentials
from nosana_operator.runtime.operator import KINDS
from nosana_operator.runtime.watching import wait_for_kinds
from nosana_sandbox.cache import cache_folder
from nosana_sandbox.cluster.apiserver import BareApiServer
from nosana_sandbox.cluster.build import cache_key, ensure_programs


@pytest.fixture(scope="session")
def kubernetes_programs() -> Path:
    """The folder of etcd and kube-apiserver. Builds them when $CI is true; else skips where they are not."""
    built = cache_folder() / cache_key() / "bin" / "kube-apiserver"
    if os.environ.get("CI") != "true" and not built.is_file():
        pytest.skip("the API server is not built yet; `make sandbox` builds it")
    return ensure_programs(print)


@pytest.fixture(scope="session")
def apiserver(kubernetes_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareApiServer]:
    """etcd and kube-apiserver on loopback, shared by all tests."""
    with BareApiServer(tmp_path_factory.mktemp("apiserver"), kubernetes_programs) as server:
        yield server


@pytest.fixture
async def kube(apiserver: BareApiServer) -> AsyncIterator[KubeClient]:
    """An administrator's client of `apiserver` that knows our kinds too."""
    async with load_credentials(apiserver.kubeconfig).open_session() as session:
        yield KubeClient(session, kinds=KINDS)


@pytest.fixture
async def installed(kube: KubeClient) -> KubeClient:
    """`kube`, with our CRDs served."""
    for crd in crds():
        await kube.apply(crd, manager="tests")
    await wait_for_kinds(kube.read_path, [KINDS["NosanaJob"], KINDS["NosanaMarket"]], poll_seconds=0.1)
    return kube


@pytest.fixture
async def namespace(kube: KubeClient, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = f"t-{abs(hash(request.node.nodeid)):x}"[:40]
    await kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, manager="tests")
    return name
