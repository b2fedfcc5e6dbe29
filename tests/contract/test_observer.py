"""What the tests themselves look through: the sandbox's observer against a real API server."""

from __future__ import annotations

import pytest

from nosana_operator.kube import CORE_KINDS, KubeClient, load_credentials
from nosana_sandbox.cluster.apiserver import BareApiServer
from nosana_sandbox.observer import Observer

pytestmark = pytest.mark.contract


def config_map(namespace: str, name: str, **data: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


async def test_it_tells_every_version_of_every_object(
    apiserver: BareApiServer, kube: KubeClient, namespace: str
) -> None:
    await kube.create(config_map(namespace, "before"))
    kinds = [CORE_KINDS["ConfigMap"], CORE_KINDS["Secret"]]
    credentials = load_credentials(apiserver.kubeconfig)
    async with Observer(credentials, kinds, namespace, metadata_only=("Secret",)) as seen:
        assert [each.type for each in seen.history("ConfigMap")] == ["LISTED"]
        assert seen.current("Secret") == {}
        large = "x" * 300_000  # Longer than what an HTTP client takes for a line.
        await kube.create(config_map(namespace, "after", large=large))
        await kube.patch("ConfigMap", namespace, "after", {"data": {"more": "1"}})
        await kube.delete("ConfigMap", namespace, "after")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
        await kube.create(secret | {"stringData": {"key": "hidden"}})
        last = lambda: seen.history("ConfigMap")[-1]  # noqa: E731
        await seen.until(lambda: last().type == "DELETED", 10, "the deletion is seen")
        await seen.until(lambda: "s" in seen.current("Secret"), 10, "the Secret is seen")
        told = [(each.type, each.body["metadata"]["name"]) for each in seen.history("ConfigMap")]
        assert told == [
            ("LISTED", "before"),
            ("ADDED", "after"),
            ("MODIFIED", "after"),
            ("DELETED", "after"),
        ]
        assert seen.history("ConfigMap")[1].body["data"] == {"large": large}
        assert list(seen.current("ConfigMap")) == ["before"]
        assert "data" not in seen.current("Secret")["s"]
        with pytest.raises(TimeoutError, match=r"waited 0\.1 s in vain until pigs fly"):
            await seen.until(lambda: False, 0.1, "pigs fly")
