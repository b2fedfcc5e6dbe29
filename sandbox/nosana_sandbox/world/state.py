"""A sandbox's record of itself: its addresses, keys and folders."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from nosana_sandbox.world.errors import NotRunning

CHAIN_PORT: Final = 8899
"""The chain inside the cluster's network namespace; WebSocket also on the next one."""
IPFS_PORT: Final = 5001

_ROOT: Final = Path("/var/lib/nosana-sandbox")


def state_folder(name: str) -> Path:
    """The folder of the sandbox `name`: $NOSANA_SANDBOX_STATE, else one below /var/lib/nosana-sandbox."""
    chosen = os.environ.get("NOSANA_SANDBOX_STATE")
    return Path(chosen).absolute() if chosen else _ROOT / name


@dataclass(frozen=True, slots=True)
class Party:
    """A party on the chain: base58 address and the path of a keypair file."""

    address: str
    keypair: str


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of chain and IPFS."""

    rpc: str
    ws: str
    ipfs: str


@dataclass(frozen=True, slots=True)
class World:
    """A running world. `rpc`, `ws`, `ipfs` and `gateway` are on this machine's loopback.

    `inside` are the same for programs in the cluster's network namespace, `services` for its pods; both None
    without a local cluster. `namespace` is that network namespace's file.
    """

    rpc: str
    ws: str
    ipfs: str
    gateway: str
    program: str
    mint: str
    market: str
    host: Party
    poster: Party
    market_authority: Party
    inside: Endpoints | None = None
    services: Endpoints | None = None
    namespace: str | None = None
    namespace_inode: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of `world.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> World:
        """Reverse of `to_json`."""
        parties = {key: Party(**body[key]) for key in ("host", "poster", "market_authority")}
        ways = {key: Endpoints(**body[key]) if body[key] else None for key in ("inside", "services")}
        return cls(**{**body, **parties, **ways})


@dataclass(frozen=True, slots=True)
class WorldFolder:
    """The world's files below a sandbox's state folder."""

    state: Path

    @property
    def folder(self) -> Path:
        """All files of the world."""
        return self.state / "world"

    @property
    def keys(self) -> Path:
        """Keypair files."""
        return self.folder / "keys"

    @property
    def record(self) -> Path:
        """Written when the world answers, deleted when it ends regularly."""
        return self.folder / "world.json"

    @property
    def processes(self) -> Path:
        """The record of its process."""
        return self.folder / "processes.json"

    @property
    def logs(self) -> Path:
        """Its logs."""
        return self.folder / "logs"

    def write(self, world: World) -> None:
        """Write the record atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.record.with_suffix(".new")
        fresh.write_text(json.dumps(world.to_json(), indent=1))
        fresh.rename(self.record)

    def read(self) -> World:
        """The running world. Raises NotRunning when there is none."""
        try:
            return World.from_json(json.loads(self.record.read_text()))
        except FileNotFoundError:
            raise NotRunning(
                f"no sandbox is up in {self.state}; start one with `nosana-sandbox up`"
            ) from None
