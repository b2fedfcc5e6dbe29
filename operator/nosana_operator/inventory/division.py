"""Several markets on the same nodes: how many slots each may still offer so that everything fits together.

Two NosanaMarkets can see the same free GPU, and each decides alone. If each counted what it sees, both would offer
it. So each of them computes the division of *all* markets from the same facts, and takes its own share. Nothing is
left to chance or to the order of the arguments, so all of them come to the same division. It is made in four steps:

1. Place what is taken. A job whose pods are on a node keeps its slot there. A slot without pods (a wallet in the
   queue, a job whose pod is not created yet) goes to the node that the fewest other markets can use.
2. Place each market's reserve.
3. For a market without waiting jobs, place the demand of the others: a job that waits goes before jobs to come.
4. What still fits is the market's free share.

Where step 1 places a slot decides how much is left, because two halves of two nodes are no slot of four GPUs:

    nodes: a has 4 GPUs, b has 4 GPUs           market "big": slots of 4     market "small": slots of 1, 2 taken

    placed apart      a [S . . .]  b [S . . .]  big has 0 free
    placed together   a [S S . .]  b [. . . .]  big has 1 free               <- the division does this

and labels decide which node to spare:

    nodes: a is labelled pool=x, b is not       market "any" may use both    market "x" may use a only
    "any" has 1 slot taken and no pod yet       it is placed on b            x has 1 free

If something taken finds no place (a node was cordoned or shrank), nothing is offered on the nodes that it could
use: what remains there proves no room. If a market without waiting jobs stands in the way of a job that waits for
another market, it must yield: one of its wallets leaves the queue.

    node a: 1 GPU     market A: a wallet in the queue, no job waits     market B: 1 job waits
                      A must yield: it sends `stop`                     B has 1 free once that has landed
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nosana_operator.api import LABEL_JOB_UID, Gpu, Resources, timestamp
from nosana_operator.api.placement import NodeSettings
from nosana_operator.inventory.quota import Quota, admitted, pod_cost, pod_part, quotas_left, slot_cost
from nosana_operator.inventory.refusals import RefusingNode
from nosana_operator.inventory.requests import Amounts, add, amounts, has_ended, holds_node, requests
from nosana_operator.inventory.slots import exclusion, fitting, need_of, shown

_NAMED = 3
"""Nodes that a message names."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A market: what its slot needs, and how many slots it has taken."""

    name: str
    gpu: Gpu
    resources: Resources
    namespace: str
    """Where its jobs run: the ResourceQuotas there bound its slots."""
    taken: int = 0
    """Slots that jobs hold, or that the chain may give jobs for at any moment."""
    job_uids: frozenset[str] = frozenset()
    """uids of the NosanaJobs among these: their pods are the market's own."""
    reserve: int = 0
    """Slots that it keeps free."""
    demand: int = 0
    """Slots that it could fill at once, because jobs wait for it."""


@dataclass(frozen=True, slots=True)
class Share:
    """What the division leaves a market."""

    placed: int
    """Slots that it has taken and that found a place; fewer than taken when the nodes no longer hold them."""
    reserved: int
    """Slots of its reserve that found a place."""
    free: int
    """Further slots beside all that is taken and reserved, and beside jobs that wait for other markets."""
    shortage: str
    """What the next slot lacks, as a clause for a person; empty when there is a free one."""
    must_yield: bool
    """A job that waits for another market would find a slot if this market held one fewer."""

    @property
    def total(self) -> int:
        """Slots that the market may count on."""
        return self.placed + self.reserved + self.free


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all markets share. Objects are as the API server returns them, of all namespaces."""

    nodes: Sequence[Mapping[str, Any]]
    pods: Sequence[Mapping[str, Any]]
    quotas: Sequence[Mapping[str, Any]] = ()
    refusing: Mapping[str, RefusingNode] = field(default_factory=dict)
    """Nodes that are held back, by name."""
    settings: NodeSettings = field(default_factory=NodeSettings)
    """Which nodes can run ops at all."""

    def exclusion(self, node: Mapping[str, Any], gpu: Gpu) -> str | None:
        """Why no new job of that `gpu` may start on the node, as a phrase for a person; None when it may."""
        reason = exclusion(node, gpu, self.settings)
        held = self.refusing.get(_name(node))
        if reason is None and held is not None:
            return f"refused {held.refusals} pods in a row and is held back until {timestamp(held.until)}"
        return reason

    def refusing_for(self, gpu: Gpu) -> tuple[RefusingNode, ...]:
        """The nodes that are held back and could otherwise run jobs of that `gpu`."""
        return tuple(
            self.refusing[_name(node)]
            for node in sorted(self.nodes, key=_name)
            if _name(node) in self.refusing and exclusion(node, gpu, self.settings) is None
        )


def divide(cluster: Cluster, holders: Sequence[Holder]) -> dict[str, Share]:
    """The share of each holder, by name.


    An unscheduled pod takes nothing, because where it will go is not known.
    """
    in_order = sorted(cluster.nodes, key=_name)
    # Large slots are hard to place and go first; the name makes the order unique.
    ordered = sorted(holders, key=lambda one: (-one.gpu.count, one.name))
    eligible = {
        one.name: {_name(node): cluster.exclusion(node, one.gpu) for node in in_order} for one in ordered
    }
    start = _start(in_order, cluster.pods, ordered, eligible, cluster.quotas)
    claims = _claims(start, ordered)
    blocked = _sharing_nodes_with(claims.unplaced, eligible)
    shares = {}
    for one in ordered:
        rivals = [other for other in ordered if other is not one]
        after, waiting = claims.board.copy(), 0
        if not one.demand:
            waiting = sum(after.place(other, other.demand) for other in rivals)
        # Where something taken has found no place, what remains proves no room: nothing more is offered.
        free = 0 if one.name in blocked else after.free(one)
        shares[one.name] = Share(
            placed=claims.placed[one.name],
            reserved=claims.reserved[one.name],
            free=free,
            shortage="" if free else after.shortage(one),
            must_yield=not one.demand
            and waiting < sum(other.demand for other in rivals)
            and _yielding_helps(start, ordered, one, waiting),
        )
    return shares


def _yielding_helps(start: _Board, holders: Sequence[Holder], one: Holder, waiting: int) -> bool:
    """Whether more of the others' demand is placed if this market holds one slot fewer."""
    if one.taken <= start.bound[one.name]:
        return False
    fewer = [replace(each, taken=each.taken - 1) if each is one else each for each in holders]
    board = _claims(start, fewer).board
    return sum(board.place(other, other.demand) for other in fewer if other.name != one.name) > waiting


@dataclass(frozen=True, slots=True)
class _Claims:
    """What is taken and reserved, placed on a board; how much of it has found a place, by holder."""

    board: _Board
    placed: dict[str, int]
    reserved: dict[str, int]
    unplaced: frozenset[str]
    """Holders with taken slots that have found no place on the nodes, though their quotas admit them."""


def _claims(start: _Board, holders: Sequence[Holder]) -> _Claims:
    """Place what is taken, then the reserves.

    The order can decide whether everything fits. A holder that found no place goes first in the next try, and
    there is a try for each holder.
    """
    order, tries = list(holders), []
    for _ in holders:
        tries.append(_placed(start, order))
        if not tries[-1].unplaced:
            break
        # sorted() keeps the order among equals.
        order = sorted(order, key=lambda one: one.name not in tries[-1].unplaced)
    best = min(tries, key=lambda tried: len(tried.unplaced)) if tries else _placed(start, ())
    for one in holders:
        best.reserved[one.name] = best.board.place(one, one.reserve)
    return best


def _placed(start: _Board, holders: Sequence[Holder]) -> _Claims:
    board, placed = start.copy(), {}
    unplaced: set[str] = set()
    for one in holders:
        bound = board.bound[one.name]
        # What a quota does not admit cannot run, and takes nothing of the nodes.
        admissible = min(max(0, one.taken - bound), board.admitted(one))
        found = board.place(one, admissible)
        placed[one.name] = bound + found
        if found < admissible:
            unplaced.add(one.name)
    return _Claims(board, placed, {}, frozenset(unplaced))


def _sharing_nodes_with(names: Collection[str], eligible: Mapping[str, Mapping[str, str | None]]) -> set[str]:
    """These holders and all that share nodes with them, directly or through others."""
    reach = {name: {n for n, reason in nodes.items() if reason is None} for name, nodes in eligible.items()}
    group, grown = set(names), True
    while grown:
        nodes = {node for name in group for node in reach[name]}
        larger = {name for name, own in reach.items() if own & nodes} | group
        group, grown = larger, larger != group
    return group


class _Board:
    """What is left of each node, and how many slots of each holder have pods on nodes."""

    def __init__(
        self,
        left: dict[str, Amounts],
        bound: dict[str, int],
        needs: Mapping[str, Amounts],
        eligible: Mapping[str, Mapping[str, str | None]],
        quotas: Mapping[str, Sequence[Quota]],
        costs: Mapping[str, Amounts],
    ) -> None:
        self.left = left
        self.bound = bound
        self._needs = needs
        self._eligible = eligible
        self.quotas = quotas
        """By namespace."""
        self._costs = costs
        """What a slot of each holder takes of a quota."""

    def copy(self) -> _Board:
        """A board on which slots can be placed without changing this one."""
        left = {node: dict(amount) for node, amount in self.left.items()}
        quotas = {namespace: [one.copy() for one in these] for namespace, these in self.quotas.items()}
        return _Board(left, dict(self.bound), self._needs, self._eligible, quotas, self._costs)

    def admitted(self, holder: Holder) -> int:
        """How many more slots of the holder the quotas of its namespace admit."""
        return admitted(self.quotas.get(holder.namespace, ()), self._costs[holder.name])

    def free(self, holder: Holder) -> int:
        """How many more slots of the holder fit."""
        need = self._needs[holder.name]
        fits = sum(fitting(self.left[node], {}, need) for node in self._open_to(holder))
        return min(fits, self.admitted(holder))

    def place(self, holder: Holder, count: int) -> int:
        """Place up to `count` slots on the nodes that the fewest others can use; returns how many found a place."""
        need = self._needs[holder.name]
        for done in range(count):
            if not self.admitted(holder):
                return done
            fits = {node: fitting(self.left[node], {}, need) for node in self._open_to(holder)}
            fits = {node: number for node, number in fits.items() if number}
            if not fits:
                return done
            self.take(min(fits, key=lambda node: (self._rivals(node), fits[node], node)), need)
            for quota in self.quotas.get(holder.namespace, ()):
                quota.take(self._costs[holder.name])
        return count

    def take(self, node: str, amount: Amounts) -> None:
        """Subtract from what is left of the node, below zero if need be."""
        left = self.left[node]
        for name, number in amount.items():
            left[name] = left.get(name, 0) - number

    def shortage(self, holder: Holder) -> str:
        """What the next slot lacks."""
        need, nodes = self._needs[holder.name], self._open_to(holder)
        if not self.left:
            return "the cluster has no node"
        if not nodes:
            excluded = [f"{node} {reason}" for node, reason in self._eligible[holder.name].items()]
            more = f" and {len(excluded) - _NAMED} more" if len(excluded) > _NAMED else ""
            return f"no node may take it: {', '.join(excluded[:_NAMED])}{more}"
        lacking = {
            node: [name for name, number in need.items() if self.left[node].get(name, 0) < number]
            for node in nodes
        }
        gpu = holder.gpu.resource_name
        nearest = min(nodes, key=lambda node: (gpu in lacking[node], len(lacking[node]), node))
        clauses = [
            f"{name} (has {shown(name, self.left[nearest].get(name, 0))} of {shown(name, need[name])})"
            for name in lacking[nearest]
        ]
        if not clauses:
            return self._quota_shortage(holder)
        return f"short of {', '.join(clauses)} on {nearest}, the node that comes nearest"

    def _quota_shortage(self, holder: Holder) -> str:
        cost = self._costs[holder.name]
        return next(filter(None, (one.shortage(cost) for one in self.quotas.get(holder.namespace, ()))), "")

    def _open_to(self, holder: Holder) -> list[str]:
        return [node for node, reason in self._eligible[holder.name].items() if reason is None]

    def _rivals(self, node: str) -> int:
        """Holders that could use the node."""
        return sum(
            reasons[node] is None and self.left[node].get(gpu, 0) > 0
            for reasons, gpu in ((self._eligible[name], _gpu(self._needs[name])) for name in self._needs)
        )


def _gpu(need: Amounts) -> str:
    """The GPU resource comes first in what a slot needs."""
    return next(iter(need))


def _start(
    nodes: Sequence[Mapping[str, Any]],
    pods: Sequence[Mapping[str, Any]],
    holders: Sequence[Holder],
    eligible: Mapping[str, Mapping[str, str | None]],
    quotas: Sequence[Mapping[str, Any]],
) -> _Board:
    """The nodes minus what runs on them: a whole slot for each of a holder's jobs, other pods by their requests."""
    needs = {one.name: need_of(one.gpu, one.resources) for one in holders}
    allocatable = {_name(node): amounts((node.get("status") or {}).get("allocatable")) for node in nodes}
    owner = {uid: one for one in holders for uid in one.job_uids}
    costs = {one.name: slot_cost(one.gpu, one.resources) for one in holders}
    board = _Board(
        {node: dict(room) for node, room in allocatable.items()},
        {},
        needs,
        eligible,
        quotas_left(quotas, pods, owner.keys()),
        costs,
    )
    charged: dict[str, Amounts] = defaultdict(dict)
    own: dict[str, dict[str, Amounts]] = defaultdict(lambda: defaultdict(dict))
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        uid = (pod.get("metadata", {}).get("labels") or {}).get(LABEL_JOB_UID, "")
        if quotas and uid in owner and not has_ended(pod):
            add(charged[uid], pod_cost(pod))
        if node not in board.left or not holds_node(pod):
            continue
        if uid in owner:
            add(own[uid][node], requests(pod))
        else:
            board.take(node, requests(pod))
    board.bound = dict.fromkeys(needs, 0)
    for uid, places in sorted(own.items()):
        name, namespace = owner[uid].name, owner[uid].namespace
        home = _home(places, needs[name], eligible[name], allocatable)
        for node, used in places.items():
            board.take(node, needs[name] if node == home else used)
        board.bound[name] += home is not None
        if home is not None:
            # Between two stages its pods take less than the slot that it keeps.
            whole = {
                key: max(amount, charged[uid].get(key, 0)) for key, amount in pod_part(costs[name]).items()
            }
            for quota in board.quotas.get(namespace, ()):
                quota.take(whole)
    return board


def _home(
    places: Mapping[str, Amounts],
    need: Amounts,
    reasons: Mapping[str, str | None],
    allocatable: Mapping[str, Amounts],
) -> str | None:
    """The node on which a job holds its slot: where its GPUs are, else one of its nodes that could be it."""
    with_gpu = sorted(node for node, amount in places.items() if _gpu(need) in amount)
    if with_gpu:
        return with_gpu[0]
    able = sorted(node for node in places if reasons[node] is None and fitting(allocatable[node], {}, need))
    return able[0] if able else None


def _name(node: Mapping[str, Any]) -> str:
    name: str = node["metadata"]["name"]
    return name
