"""Which aliases of ops have to be published anew (`workload/aliases.py`). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nosana_operator.api import OpStatus
from nosana_operator.definition import DefinitionError
from nosana_operator.jobs.decision.effects import PublishNames
from nosana_operator.jobs.decision.ops import OVER
from nosana_operator.jobs.decision.view import JobView, Loaded
from nosana_operator.workload import aliases, build_names, run_args


def names(view: JobView, ops: Sequence[OpStatus]) -> Iterator[PublishNames]:
    """Each op with aliases whose address is not the one that this process has published.

    What an earlier process published is not known, so for an op that was started it is said once more.
    """
    definition = view.definition
    if not isinstance(definition, Loaded) or not definition.context.has_aliases:
        return
    for op in ops:
        pod = view.pods.get(op.index)
        if op.state == "Waiting" and pod is None:
            continue
        address = pod.address if pod is not None and pod.ended is None and op.state not in OVER else None
        if op.index in view.named and view.named[op.index] == address:
            continue
        try:
            args = run_args(definition.context, op.index)
        except (DefinitionError, TypeError):
            continue  # It never had a pod.
        if aliases(args):
            yield PublishNames(op.index, build_names(definition.context, op.index, args, address), address)
