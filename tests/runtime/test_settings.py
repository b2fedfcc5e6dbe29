"""The settings file: what is read, and every kind of mistake with the sentence that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nosana_operator.kube import ElectionSettings
from nosana_operator.runtime.errors import SettingsError
from nosana_operator.runtime.settings import Settings, load_settings, parse_settings

FULL = """
clusterName: berlin
watchNamespaces: [a, b]
metrics: {address: 127.0.0.1, port: 9000}
log: {format: json, level: debug}
workers: {jobs: 3, markets: 1}
exposure: {domain: jobs.example.org, ingressClassName: nginx}
networks:
  mainnet:
    rpc: ["https://one.example.org/key"]
    ipfs:
      gateways: ["https://gateway.example.org"]
      pin:
        - {type: pinata, url: "https://pin.example.org", tokenFile: /etc/pin/token}
        - {type: kubo, url: "http://kubo:5001"}
  localnet:
    rpc: ["http://chain:8899"]
    ws: ["ws://chain:8900"]
    program: nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR
    nosMint: devr1BGQndEW5k5zfvG5FsLyZv1Ap73vNgAHcQ9sUVP
"""


def test_everything_that_can_be_set() -> None:
    settings = parse_settings(FULL)
    assert settings.cluster_name == "berlin"
    assert settings.watch_namespaces == ("a", "b")
    assert (settings.metrics.address, settings.metrics.port) == ("127.0.0.1", 9000)
    assert (settings.log.format, settings.log.level) == ("json", "debug")
    assert (settings.workers.jobs, settings.workers.markets) == (3, 1)
    assert settings.exposure.ingress_class_name == "nginx"
    pins = settings.networks["mainnet"].ipfs.pin
    assert pins[0].token_file == Path("/etc/pin/token")
    assert [pin.type for pin in pins] == ["pinata", "kubo"]


def test_a_well_known_network_knows_its_programs_and_derives_its_sockets() -> None:
    mainnet = parse_settings(FULL).networks["mainnet"]
    assert mainnet.program == "nosJhNRqr2bc9g1nfGDcXXTXvYUmxD4cVwy2pMWhrYM"
    assert mainnet.nos_mint == "nosXBVoaCTtYdLvKY6Csb4AC8JCdQKKAaWYtx2ZMoo7"
    assert mainnet.ws == ("wss://one.example.org/key",)


def test_several_endpoints_and_fees() -> None:
    devnet = parse_settings(
        "networks: {devnet: {rpc: ['http://a', 'https://b/k'], requestsPerSecond: 40, fees: {cap: 30000}}}"
    ).networks["devnet"]
    assert devnet.rpc == ("http://a", "https://b/k")
    assert devnet.ws == ("ws://a", "wss://b/k")
    assert devnet.requests_per_second == 40
    assert (devnet.fees.priority, devnet.fees.cap) == ("none", 30_000)


def test_mainnet_pays_the_going_price_unless_told_otherwise() -> None:
    fees = parse_settings(FULL).networks["mainnet"].fees
    assert (fees.priority, fees.percentile) == ("dynamic", 50)
    off = parse_settings("networks: {mainnet: {rpc: ['http://a'], fees: {priority: none, cap: 20000}}}")
    assert off.networks["mainnet"].fees.priority == "none"


def test_a_network_of_another_name_states_its_own() -> None:
    localnet = parse_settings(FULL).networks["localnet"]
    assert localnet.ws == ("ws://chain:8900",)
    assert localnet.staking_program == "nosScmHY2uR24Zh751PmGj9ww9QRNHewh9H59AfrTJE"


def test_the_lease() -> None:
    assert parse_settings("").election == ElectionSettings(
        enabled=True, name="nosana-operator", lease_seconds=15, renew_seconds=10, retry_seconds=2
    )
    election = parse_settings(
        "election: {enabled: false, namespace: ns, name: mine, leaseSeconds: 60, renewSeconds: 40, retrySeconds: 5}"
    ).election
    assert election == ElectionSettings(
        enabled=False, namespace="ns", name="mine", lease_seconds=60, renew_seconds=40, retry_seconds=5
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("enabled: maybe", "election.enabled: true or false is needed"),
        ("enabled: 1", "election.enabled: true or false is needed, this is a whole number"),
        ("namespace: A", "election.namespace: lower-case letters, digits and dashes are needed"),
        ("name: 'a b'", "election.name: lower-case letters"),
        ("retrySeconds: 0", "election.retrySeconds: at least 1"),
        ("renewSeconds: 3", "election: renewSeconds has to be at least twice retrySeconds"),
        ("leaseSeconds: 10", "election: leaseSeconds has to be longer than renewSeconds"),
    ],
)
def test_a_lease_that_could_not_be_kept_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_settings(f"election: {{{text}}}")


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n"])
def test_nothing_set_is_the_defaults(text: str) -> None:
    assert parse_settings(text) == Settings() == load_settings(None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("clusterNam: x", ["clusterNam", "no such key", "clusterName"]),
        ("metrics: {prt: 1}", ["metrics.prt", "address, port"]),
        ("metrics: {port: eighty}", ["metrics.port", "whole number", "text"]),
        ("metrics: {port: true}", ["metrics.port", "whole number", "true or false"]),
        ("metrics: {port: 70000}", ["metrics.port", "65535"]),
        ("workers: {jobs: 0}", ["workers.jobs", "at least 1"]),
        ("log: {format: xml}", ["log.format", "one of auto, json, console is needed"]),
        ("watchNamespaces: default", ["watchNamespaces", "list", "text"]),
        ("watchNamespaces: [Default]", ["watchNamespaces[0]", "lower-case"]),
        ("clusterName:", ["clusterName", "text is needed", "empty"]),
        ("- a", ["the file", "mapping", "a list"]),
        ("1: a", ["1: there is no such key"]),
        ("networks: {devnet: {rpc: []}}", ["networks.devnet.rpc", "at least one"]),
        ("networks: {x: {}}", ["networks.x.rpc", "needed"]),
        ("networks: {x: }", ["networks.x", "mapping", "empty"]),
        ("networks: {devnet: {rpc: ['http://a'], ws: []}}", ["networks.devnet.ws", "at least one"]),
        (
            "networks: {devnet: {rpc: ['http://a'], requestsPerSecond: -1}}",
            ["networks.devnet.requestsPerSecond", "at least 0"],
        ),
        (
            "networks: {devnet: {rpc: ['http://a'], fees: {priority: lots}}}",
            ["networks.devnet.fees.priority", "one of none, fixed, dynamic is needed"],
        ),
        (
            "networks: {devnet: {rpc: ['http://a'], fees: {percentile: 101}}}",
            ["networks.devnet.fees.percentile", "at most 100"],
        ),
        (
            "networks: {devnet: {rpc: ['http://a'], fees: {minimum: 9, maximum: 8}}}",
            ["networks.devnet.fees", "`minimum` must not be above `maximum`"],
        ),
        (
            "networks: {devnet: {rpc: ['http://a'], fees: {price: -1}}}",
            ["networks.devnet.fees.price", "at least 0"],
        ),
        ("networks: {devnet: {rpc: ['http://a'], fees: {cap: 9999}}}", ["networks.devnet.fees.cap", "10000"]),
        ("networks: {devnet: {rpc: 'http://a'}}", ["networks.devnet.rpc", "list", "text"]),
        ("networks: {x: {rpc: ['http://a']}}", ["networks.x.program", "needed"]),
        ("networks: {X: {rpc: ['http://a']}}", ["networks.X", "lower-case"]),
        ("networks: {devnet: {rpc: ['ftp://a']}}", ["networks.devnet.rpc[0]", "http://"]),
        ("networks: {devnet: {rpc: ['http://a'], ws: ['http://a']}}", ["networks.devnet.ws[0]", "ws://"]),
        ("networks: {devnet: {rpc: ['http://a'], program: nope}}", ["networks.devnet.program", "base58"]),
        (
            "networks: {devnet: {rpc: ['http://a'], ipfs: {pin: [{type: s3, url: 'http://a'}]}}}",
            ["networks.devnet.ipfs.pin[0].type", "one of kubo, pinata is needed"],
        ),
        (
            "networks: {devnet: {rpc: ['http://a'], ipfs: {pin: [{type: kubo}]}}}",
            ["networks.devnet.ipfs.pin[0].url", "needed"],
        ),
        ("networks: {devnet: {rpc: ['http://a:b']}}", ["networks.devnet.rpc[0]", "not a URL"]),
        ("networks: {devnet: {rpc: ['http://a'], nos_mint: x}}", ["networks.devnet.nos_mint", "nosMint"]),
        (
            "networks: {devnet: {rpc: ['http://a'], ipfs: {pin: [{typ: kubo}]}}}",
            ["pin[0].typ: there is no such key; allowed: type, url, tokenFile"],
        ),
        (
            "networks: {devnet: {rpc: ['http://a'], ipfs: {gateways: ['http://localhost:8080']}}}",
            ["networks.devnet.ipfs.gateways[0]", "use 127.0.0.1 in place of localhost"],
        ),
        (
            "networks: {devnet: {rpc: ['http://a'], ipfs: {gateways: ['http://a', 'http://ipfs.localhost']}}}",
            ["networks.devnet.ipfs.gateways[1]", "use 127.0.0.1"],
        ),
        ("isolation: {dns: {ports: []}}", ["isolation.dns.ports", "at least one"]),
        ("isolation: {dns: {ports: [0]}}", ["isolation.dns.ports[0]", "at least 1"]),
        ("isolation: {dns: {cidrs: [10.0.0.300]}}", ["isolation.dns.cidrs[0]", "10.0.0.0/8"]),
        ("isolation: {dns: {cidr: []}}", ["isolation.dns.cidr", "allowed: namespaces, cidrs, ports"]),
        ("isolation: {blocked: [10.0.0.1/8]}", ["isolation.blocked[0]", "10.0.0.0/8"]),
        ("volumes: {size: a lot}", ["volumes.size", "10Gi"]),
        ("fetch: {mirrors: {'https://a': b}}", ["fetch.mirrors.https://a", "http://"]),
        ("a: &a [*a]", ["contains itself"]),
        ("a: [", ["not YAML", "line"]),
    ],
)
def test_a_mistake_names_the_field_and_the_remedy(text: str, parts: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "networks: {devnet: {rpc: {secret-key-1: 1}}}",
        "networks: {devnet: {rpc: ['http://a'], ipfs: {pin: [{type: pinata, url: 'secret-key-1'}]}}}",
        "networks: {devnet: {rpc: ['secret-key-1']}}",
        "secret: |\n  secret-key-1\n bad: [",
        "log: {format: secret-key-1}",
        "watchNamespaces: [SECRET-secret-key-1]",
        "isolation: {blocked: [secret-key-1]}",
        "volumes: {size: secret-key-1}",
        "networks: {devnet: {rpc: ['http://a'], program: secret-key-1}}",
        "fetch: {mirrors: {'https://me:secret-key-1@a': b}}",
        "exposure: {domain: [secret-key-1]}",
    ],
)
def test_a_mistake_does_not_repeat_what_may_be_a_secret(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text)
    assert "secret-key-1" not in str(caught.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings("{clusterNam: x, metrics: {port: a, addr: b}, networks: {x: {rpc: []}}}")
    assert str(caught.value) == (
        "Settings: metrics.port: a whole number is needed, this is text. "
        "metrics.addr: there is no such key; allowed: address, port. "
        "networks.x.rpc: at least one is needed. networks.x.program: this key is needed. "
        "networks.x.nosMint: this key is needed. clusterNam: there is no such key; allowed: clusterName, "
        "clusterDomain, watchNamespaces, metrics, log, workers, election, exposure, nodes, fetch, volumes, isolation, networks."
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        load_settings(tmp_path / "nowhere.yaml")


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(FULL)
    assert load_settings(file) == parse_settings(FULL)
