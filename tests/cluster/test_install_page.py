"""docs/install.md and the README, as a new user follows them: on a cluster where nothing is installed.

What stands in a block marked `run` is run as it stands. What stands in a block marked `file` is that file, with
the names of the sandbox in place of the examples' (its market, its network, its image). What is in no such block
(GPU drivers, Solana's tools, a registry) the sandbox brings or has no need of.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nosana_sandbox.cluster.kubectl import find_kubectl
from nosana_sandbox.helm import CHART, ChartHost
from nosana_sandbox.host import NETWORK
from nosana_sandbox.images.debian import FETCH_IMAGE
from nosana_sandbox.world.sandbox import Running, Sandbox, Shape
from support.scene import JOBS, SYSTEM, assert_paid_once, says, scene_of

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
README = (ROOT / "README.md").read_text()
MARKED = re.compile(r"^<!-- (run|file)(?:: (\S+))? -->\n```(?:sh|yaml)\n(.*?)^```$", flags=re.M | re.S)
SECONDS = 240


@dataclasses.dataclass(frozen=True)
class Block:
    kind: str
    name: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in MARKED.findall(page)]


@dataclasses.dataclass(frozen=True)
class NewUser:
    """A shell in the repository's root, on a machine with the tools that the page asks for."""

    running: Running
    host: ChartHost
    folder: Path
    environment: dict[str, str]

    def follow(self, block: Block) -> str:
        """Write the file, or run the commands; what they print."""
        if block.kind == "file":
            body = self.named_as_here(block.name, yaml.safe_load(block.text))
            (self.folder / block.name).write_text(yaml.safe_dump(body))
            return ""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def named_as_here(self, file: str, body: dict[str, Any]) -> dict[str, Any]:
        """The page's file with the sandbox's names."""
        services = self.running.world.services
        assert services is not None
        if file == "values.yaml":
            repository, _, tag = self.host.provided_image().rpartition(":")
            body["image"] = {"repository": repository, "tag": tag}
            settings = body["settings"]
            settings["fetch"]["image"] = FETCH_IMAGE
            del settings["exposure"]["ingressClassName"]
            network = settings["networks"].pop("mainnet")
            settings["networks"][NETWORK] = network
            network |= {"rpc": [services.rpc], "ws": [services.ws]}
            network |= {"program": self.running.world.program, "nosMint": self.running.world.mint}
            network["ipfs"]["gateways"] = [services.ipfs]
            network["ipfs"]["pin"][0]["url"] = services.ipfs
        if file == "market.yaml":
            spec = body["spec"]
            spec |= {"address": self.running.world.market, "network": NETWORK}
            del spec["gpu"]["product"]
            del spec["exposure"]["ingressClassName"]
        return body


@pytest.fixture(scope="module")
def user(short_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewUser]:
    def report(line: str) -> None:
        print(line, file=sys.stderr)

    name = f"page-{os.getpid()}"
    sandbox = Sandbox(name, report, short_folder / "page")
    folder = tmp_path_factory.mktemp("user")
    try:
        running = sandbox.up(Shape(name, gpus=2, nodes=1))
        host = ChartHost(sandbox, running, report)
        # The page begins where nothing is.
        host.kubectl.run("delete", "namespace", SYSTEM, JOBS, "--wait=true")
        programs = folder / "bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(find_kubectl())
        (programs / "helm").symlink_to(host.helm.program)
        (folder / "charts").mkdir()
        (folder / "charts" / "nosana-operator").symlink_to(CHART)
        shutil.copy(running.world.host.keypair, folder / "host.json")
        (folder / "pinata.jwt").write_text("a-token")
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(running.kubeconfig)}
        yield NewUser(running, host, folder, environment)
    finally:
        sandbox.down()


async def test_the_page_leads_to_the_first_paid_job(user: NewUser) -> None:
    said = {block.text: user.follow(block) for block in blocks(PAGE)}
    (tested,) = [text for block, text in said.items() if "helm test" in block]
    assert "kubernetes.rights: all" in tested
    assert "0 failures" in tested
    (ready,) = [text for block, text in said.items() if "get nosanamarkets" in block]
    assert "condition met" in ready
    async with scene_of(user.running, user.host) as scene:  # type: ignore[arg-type]
        posted = await scene.post(says("paid"))
        body = await scene.settled(posted)
        view = await scene.poster.job(posted.job)
        assert_paid_once(view, body, user.running.world.host.address)


def test_the_readme_installs_as_the_page_does() -> None:
    lines = {line for block in blocks(PAGE) for line in block.text.splitlines()}
    told = [line for block in blocks(README) for line in block.text.splitlines()]
    assert told
    assert [line for line in told if line not in lines] == []
