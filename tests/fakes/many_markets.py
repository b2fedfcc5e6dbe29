"""Several markets, keys and nodes in one lab: jobs come in bursts, and every GPU is looked at in every slot.

The pods are there too, each bound to a node with room for it: a match that no node can take is an error.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from fakes.chain import keypair
from fakes.market import MarketLab, Posted
from fakes.market_objects import JOBS, gpu_node, nosana_market
from nosana_operator.api import JOB_KIND, LABEL_JOB, LABEL_JOB_UID, LABEL_MARKET, condition_is_true
from nosana_sandbox.program.layout import QUEUE_JOB, QUEUE_NODE, STATE_DONE, Market, Run
from nosana_sandbox.world.instructions import list_job, open_market

GPU = "nvidia.com/gpu"
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """What there is. Keys are dealt out to the markets in turn."""

    markets: int = 3
    keys: int = 8
    nodes: int = 3
    gpus: int = 4
    """Of each node."""
    price: int = 10

    @property
    def slots(self) -> int:
        """Jobs at once."""
        return self.nodes * self.gpus


@dataclass(slots=True)
class Use:
    """What was seen, slot by slot."""

    backlog_slots: int = 0
    """Slots of the chain in which a job waited in some market."""
    busy: int = 0
    """GPUs with a run in those slots, summed."""
    most_runs: int = 0
    """GPUs with a run, at most, at any time."""
    most_matches: int = 0
    """The same with the keys that stood, which a poster may match at any moment."""

    def ratio(self, slots: int) -> float:
        """The share of the GPUs that had a run while jobs waited."""
        return self.busy / (self.backlog_slots * slots) if self.backlog_slots else 1.0


class FleetLab(MarketLab):
    """`MarketLab` with a fleet in place of its one node, market and queue."""

    def __init__(self, shape: Shape, rng: random.Random, *, seconds: tuple[float, float]) -> None:
        self.shape = shape
        self.rng = rng
        self.addresses: list[Pubkey] = []
        self.use = Use()
        self._pods: dict[str, str] = {}
        super().__init__(price=shape.price, hosts=shape.keys, gpus=0, seconds=lambda: rng.uniform(*seconds))

    def _add_world(self, gpus: int, market: Body) -> None:
        for n in range(self.shape.nodes):
            self.kube.add(gpu_node(f"node-{n}", self.shape.gpus))
        for n, key in enumerate(self.begin.hosts):
            self.add_wallet(f"wallet-{n}", bytes(key))
        for n in range(self.shape.markets):
            address = self.begin.market if n == 0 else self._open(keypair(f"market-{n}"))
            self.addresses.append(address)
            names = [f"wallet-{k}" for k in range(self.shape.keys) if k % self.shape.markets == n]
            self.kube.add(nosana_market(f"market-{n}", address, names))

    def _open(self, market: Keypair) -> Pubkey:
        authority = keypair("authority")
        opened = open_market(
            market.pubkey(),
            authority.pubkey(),
            price=self.shape.price,
            job_timeout=7200,
            job_expiration=86_400,
            xnos_minimum=0,
        )
        assert self.ledger.act([opened], authority, market) is None
        return market.pubkey()

    # -- posters

    def burst(self, jobs: int, market: int, timeout: int) -> None:
        """So many jobs at once."""
        for _ in range(jobs):
            number = len(self.posted)
            job, run, poster = keypair(f"job-{number}"), keypair(f"run-of-job-{number}"), self.begin.poster
            self.posted.append(Posted(job.pubkey(), timeout, self.ledger.time(self.ledger.slot)))
            listed = list_job(
                self.addresses[market],
                job.pubkey(),
                run.pubkey(),
                poster.pubkey(),
                ipfs_job=hashlib.sha256(b"definition").digest(),
                timeout=timeout,
            )
            error = self.ledger.act([listed], poster, job, run)
            assert error is None, error

    # -- pods and figures

    async def slot(self) -> None:
        """One slot, then a look at all of it."""
        await super().slot()
        self._place_pods()
        self._look()

    def _place_pods(self) -> None:
        """What scheduler and kubelet do: a started job has a pod on a node, an ended one has none."""
        for body in self.kube.objects(JOB_KIND, JOBS):
            uid, name = body["metadata"]["uid"], body["metadata"]["name"]
            over = self._over(body)
            if uid in self._pods and over:
                self.kube.edit("Pod", JOBS, name, {"status": {"phase": "Succeeded"}})
                self.kube.remove("Pod", JOBS, name)
                del self._pods[uid]
            elif uid not in self._pods and not over and self.jobs.starts[uid]:
                used = Counter(self._pods.values())
                free = [n for n in range(self.shape.nodes) if used[f"node-{n}"] < self.shape.gpus]
                assert free, "a match that no node can take"
                self._pods[uid] = f"node-{self.rng.choice(free)}"
                self.kube.add(self._pod(name, uid, body["spec"]["run"]["market"]))

    def _pod(self, name: str, uid: str, market: str) -> Body:
        labels = {LABEL_JOB: name, LABEL_JOB_UID: uid, LABEL_MARKET: market}
        container = {"name": "op", "image": "x", "resources": {"requests": {GPU: "1"}, "limits": {GPU: "1"}}}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": JOBS, "labels": labels},
            "spec": {"nodeName": self._pods[uid], "containers": [container]},
            "status": {"phase": "Running"},
        }

    def _over(self, body: Body) -> bool:
        conditions = (body.get("status") or {}).get("conditions")
        return condition_is_true(conditions, "Complete") or condition_is_true(conditions, "Failed")

    def _look(self) -> None:
        state = self.ledger.state(self.ledger.slot)
        ended = {body["spec"]["run"]["run"] for body in self.kube.objects(JOB_KIND, JOBS) if self._over(body)}
        runs = sum(
            account.data[:8] == Run.DISCRIMINATOR and str(key) not in ended for key, account in state.items()
        )
        markets = [Market.decode(state[address].data) for address in self.addresses]
        standing = sum(len(market.queue) for market in markets if market.queue_type == QUEUE_NODE)
        use = self.use
        use.most_runs = max(use.most_runs, runs)
        use.most_matches = max(use.most_matches, runs + standing)
        assert use.most_matches <= self.shape.slots, "more matches than slots"
        if any(market.queue and market.queue_type == QUEUE_JOB for market in markets):
            use.backlog_slots += 1
            use.busy += runs

    async def life(self, jobs: int, *, burst: tuple[int, int], pause: tuple[float, float]) -> None:
        """Post so many jobs in bursts, each into some market, and wait until all of them are settled."""
        await self.pass_time(20)
        while len(self.posted) < jobs:
            many = min(jobs - len(self.posted), self.rng.randint(*burst))
            self.burst(many, self.rng.randrange(self.shape.markets), timeout=7200)
            await self.pass_time(self.rng.uniform(*pause))
        await self.until(self.all_settled, seconds=24 * 3600)

    def all_settled(self) -> bool:
        """Every posted job has a NosanaJob, and each is settled."""
        bodies = self.kube.objects(JOB_KIND, JOBS)
        return len(bodies) == len(self.posted) and all(
            condition_is_true((body.get("status") or {}).get("conditions"), "Settled") for body in bodies
        )

    def check_settled_once(self) -> None:
        """Each job was finished once, and paid what its seconds cost."""
        assert self.count("Finish") == len(self.posted)
        assert {self.job_account(job).state for job in self.posted} == {STATE_DONE}
        self.check_books()
