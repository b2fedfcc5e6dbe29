"""Several markets on the same nodes: what each may still offer, so that all of them together fit.

What is taken is placed first: a job whose pods stand on a node there, everything else (a key that stands, a
job without a pod) where it leaves the others the most. What a market may offer is what then still fits beside
it. All facts are the same for all markets and nothing here is left to chance, so that each of them, asked by
itself, comes to the same division.

A market whose jobs wait goes before one that only stands for jobs to come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nosana_operator.api import LABEL_JOB_UID, Gpu, Resources
from nosana_operator.api.quantity import UNIT
from nosana_operator.inventory.requests import Amounts, amounts, holds_node, requests
from nosana_operator.inventory.slots import exclusion, fitting, need_of

_GIB = 1024**3
_TOLD = 3
"""So many nodes are named in a sentence."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A market with its slot and what it has taken of them."""

    name: str
    gpu: Gpu
    resources: Resources
    taken: int = 0
    """Slots that jobs hold, or that the chain may give jobs for at any moment."""
    jobs: frozenset[str] = frozenset()
    """uids of its NosanaJobs among these: their pods are its own."""
    reserve: int = 0
    """Slots that it keeps free."""
    wanted: int = 0
    """Slots that it could use at once, because jobs wait for it."""


@dataclass(frozen=True, slots=True)
class Share:
    """What the division leaves a market."""

    placed: int
    """Of what it has taken; fewer than that when the nodes do not hold it any more."""
    reserved: int
    """Of its reserve."""
    room: int
    """Further slots beside all that is taken and reserved, and beside jobs that wait for other markets."""
    short: str
    """What the next slot lacks, as a clause for a person; empty when there is room."""
    gives_way: bool
    """Without one of its slots, a job that waits for another market would find one."""

    @property
    def total(self) -> int:
        """Slots that the market may count on."""
        return self.placed + self.reserved + self.room


def divide(
    nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], holders: Sequence[Holder]
) -> dict[str, Share]:
    """The share of each holder, by name, given all nodes and `pods` of the cluster.

    A pod that no node has been found for takes nothing: where it would go is not known.
    """
    found = sorted(nodes, key=_name)
    # Those that are hard to place go first; the name makes it one order.
    ordered = sorted(holders, key=lambda one: (-one.gpu.count, one.name))
    eligible = {one.name: {_name(node): exclusion(node, one.gpu) for node in found} for one in ordered}
    start = _start(found, list(pods), ordered, eligible)
    claims = _claims(start, ordered)
    blocked = _touching(claims.missing, eligible)
    shares = {}
    for one in ordered:
        rivals = [other for other in ordered if other is not one]
        after, waiting = claims.board.copy(), 0
        if not one.wanted:
            waiting = sum(after.place(other, other.wanted) for other in rivals)
        # Where something has no place as it is, nothing more is offered: the rest is no proof of room.
        room = 0 if one.name in blocked else after.room(one)
        shares[one.name] = Share(
            placed=claims.placed[one.name],
            reserved=claims.reserved[one.name],
            room=room,
            short="" if room else after.short(one),
            gives_way=not one.wanted
            and waiting < sum(other.wanted for other in rivals)
            and _helps(start, ordered, one, waiting),
        )
    return shares


def _helps(start: _Board, holders: Sequence[Holder], one: Holder, waiting: int) -> bool:
    """Whether more of what waits for the others is placed when this one holds a slot fewer."""
    if one.taken <= start.held[one.name]:
        return False
    fewer = [replace(each, taken=each.taken - 1) if each is one else each for each in holders]
    board = _claims(start, fewer).board
    return sum(board.place(other, other.wanted) for other in fewer if other.name != one.name) > waiting


@dataclass(frozen=True, slots=True)
class _Claims:
    """All that is taken and reserved, on the board; how much of it has found a place, by holder."""

    board: _Board
    placed: dict[str, int]
    reserved: dict[str, int]
    missing: frozenset[str]
    """Holders of whom something that is taken has found none."""


def _claims(start: _Board, holders: Sequence[Holder]) -> _Claims:
    """Place what is taken, then the reserves.

    The order can decide whether all of it fits. What found no place goes first in the next try; each holder
    gets its turn at that.
    """
    order, tries = list(holders), []
    for _ in holders:
        tries.append(_placed(start, order))
        if not tries[-1].missing:
            break
        # sorted() keeps the order among equals.
        order = sorted(order, key=lambda one: one.name not in tries[-1].missing)
    best = min(tries, key=lambda tried: len(tried.missing)) if tries else _placed(start, ())
    for one in holders:
        best.reserved[one.name] = best.board.place(one, one.reserve)
    return best


def _placed(start: _Board, holders: Sequence[Holder]) -> _Claims:
    board, placed = start.copy(), {}
    for one in holders:
        held = board.held[one.name]
        placed[one.name] = held + board.place(one, max(0, one.taken - held))
    missing = frozenset(one.name for one in holders if placed[one.name] < one.taken)
    return _Claims(board, placed, {}, missing)


def _touching(names: Collection[str], eligible: Mapping[str, Mapping[str, str | None]]) -> set[str]:
    """These holders and all that share nodes with them, directly or by way of others."""
    reach = {name: {n for n, reason in nodes.items() if reason is None} for name, nodes in eligible.items()}
    found, grown = set(names), True
    while grown:
        nodes = {node for name in found for node in reach[name]}
        more = {name for name, own in reach.items() if own & nodes} | found
        found, grown = more, more != found
    return found


class _Board:
    """What is left of each node, and whose jobs stand on it."""

    def __init__(
        self,
        left: dict[str, Amounts],
        held: dict[str, int],
        needs: Mapping[str, Amounts],
        eligible: Mapping[str, Mapping[str, str | None]],
    ) -> None:
        self.left = left
        self.held = held
        self._needs = needs
        self._eligible = eligible

    def copy(self) -> _Board:
        """One to try things on."""
        left = {node: dict(amount) for node, amount in self.left.items()}
        return _Board(left, dict(self.held), self._needs, self._eligible)

    def room(self, holder: Holder) -> int:
        """So many more slots of the holder fit."""
        need = self._needs[holder.name]
        return sum(fitting(self.left[node], {}, need) for node in self._open_to(holder))

    def place(self, holder: Holder, count: int) -> int:
        """Take up to `count` slots, on the nodes that the fewest others can use; how many were found."""
        need = self._needs[holder.name]
        for done in range(count):
            fits = {node: fitting(self.left[node], {}, need) for node in self._open_to(holder)}
            fits = {node: number for node, number in fits.items() if number}
            if not fits:
                return done
            self.take(min(fits, key=lambda node: (self._rivals(node), fits[node], node)), need)
        return count

    def take(self, node: str, amount: Amounts) -> None:
        """Less is left of the node; more than it has may be taken."""
        left = self.left[node]
        for name, number in amount.items():
            left[name] = left.get(name, 0) - number

    def short(self, holder: Holder) -> str:
        """What the next slot lacks."""
        need, nodes = self._needs[holder.name], self._open_to(holder)
        if not self.left:
            return "the cluster has no node"
        if not nodes:
            why = [f"{node} {reason}" for node, reason in self._eligible[holder.name].items()]
            more = f" and {len(why) - _TOLD} more" if len(why) > _TOLD else ""
            return f"no node may take it: {', '.join(why[:_TOLD])}{more}"
        lacking = {
            node: [name for name, number in need.items() if self.left[node].get(name, 0) < number]
            for node in nodes
        }
        gpu = holder.gpu.resource_name
        nearest = min(nodes, key=lambda node: (gpu in lacking[node], len(lacking[node]), node))
        told = [
            f"{name} (has {_shown(name, self.left[nearest].get(name, 0))} of {_shown(name, need[name])})"
            for name in lacking[nearest]
        ]
        return f"short of {', '.join(told)} on {nearest}, the node that comes nearest" if told else ""

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
) -> _Board:
    """The nodes less what stands on them: a holder's jobs with a whole slot each, all other pods as they are."""
    needs = {one.name: need_of(one.gpu, one.resources) for one in holders}
    allocatable = {_name(node): amounts((node.get("status") or {}).get("allocatable")) for node in nodes}
    board = _Board({node: dict(room) for node, room in allocatable.items()}, {}, needs, eligible)
    owner = {uid: one.name for one in holders for uid in one.jobs}
    own: dict[str, dict[str, Amounts]] = defaultdict(lambda: defaultdict(dict))
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node not in board.left or not holds_node(pod):
            continue
        uid = (pod.get("metadata", {}).get("labels") or {}).get(LABEL_JOB_UID, "")
        if uid in owner:
            into = own[uid][node]
            for name, amount in requests(pod).items():
                into[name] = into.get(name, 0) + amount
        else:
            board.take(node, requests(pod))
    board.held = dict.fromkeys(needs, 0)
    for uid, places in sorted(own.items()):
        name = owner[uid]
        home = _home(places, needs[name], eligible[name], allocatable)
        for node, used in places.items():
            board.take(node, needs[name] if node == home else used)
        board.held[name] += home is not None
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


def _shown(name: str, amount: int) -> str:
    whole = max(0, amount) / UNIT
    return f"{whole / _GIB:.4g}Gi" if name in ("memory", "ephemeral-storage") else f"{whole:g}"
